"""The second stage of an R-CNN: from proposals to classes, boxes, masks and keypoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.detection.box_head import fastrcnn_loss
from fastcv.models.detection.fixed_size import can_read_values, drop_padding, gather_rows, rows_needed
from fastcv.models.detection.keypoint_head import heatmaps_to_keypoints, keypoint_loss
from fastcv.models.detection.mask_head import MaskRCNNPredictor, mask_loss
from fastcv.models.detection.matching import BoxCoder, Matcher, is_unchanged, match
from fastcv.models.detection.sampler import BalancedSampler
from fastcv.models.detection.transform import Size, Target, paste_masks_in_image
from fastcv.ops.box_coding import decode_boxes
from fastcv.ops.box_iou import box_iou
from fastcv.ops.boxes import clip_boxes_to_image
from fastcv.ops.nms import batched_nms_padded

__all__ = ["RoIHeads", "fastrcnn_loss", "paste_masks_in_image"]

Features = dict[str, Tensor]


class RoIHeads(nn.Module):
    """The heads of an R-CNN; names of parameters are those of torchvision's RoIHeads.

    Parameters
    ----------
    box_roi_pool, box_head, box_predictor : nn.Module
        Pooling from the feature maps, features of each box, and its class logits and box offsets.
    fg_iou_thresh, bg_iou_thresh : float
        In training, a proposal whose IoU with an object is at least ``fg_iou_thresh`` is trained as that object; one
        whose IoU is below ``bg_iou_thresh`` is trained as background.
    batch_size_per_image, positive_fraction
        As in :class:`BalancedSampler`.
    bbox_reg_weights : four floats, optional
        Weights of the box offsets. Default: 10, 10, 5, 5.
    score_thresh : float
        Detections must score more than this.
    nms_thresh : float
        IoU above which a detection suppresses a lower-scoring one of the same class.
    detections_per_img : int
        Maximum detections per image.
    mask_roi_pool, mask_head, mask_predictor : nn.Module, optional
        For masks.
    keypoint_roi_pool, keypoint_head, keypoint_predictor : nn.Module, optional
        For keypoints.
    """

    min_size = 1e-2

    def __init__(
        self,
        box_roi_pool: nn.Module,
        box_head: nn.Module,
        box_predictor: nn.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        bbox_reg_weights: Sequence[float] | None,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
        mask_roi_pool: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        keypoint_roi_pool: nn.Module | None = None,
        keypoint_head: nn.Module | None = None,
        keypoint_predictor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.box_similarity: Any = box_iou
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=False)
        self.fg_bg_sampler = BalancedSampler(batch_size_per_image, positive_fraction)
        self.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0) if bbox_reg_weights is None else bbox_reg_weights)
        self.box_roi_pool = box_roi_pool
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.mask_roi_pool = mask_roi_pool
        self.mask_head = mask_head
        self.mask_predictor = mask_predictor
        self.keypoint_roi_pool = keypoint_roi_pool
        self.keypoint_head = keypoint_head
        self.keypoint_predictor = keypoint_predictor

    def has_mask(self) -> bool:
        """Whether the model predicts masks."""
        return None not in (self.mask_roi_pool, self.mask_head, self.mask_predictor)

    def has_keypoint(self) -> bool:
        """Whether the model predicts keypoints."""
        return None not in (self.keypoint_roi_pool, self.keypoint_head, self.keypoint_predictor)

    @property
    def sampler(self) -> BalancedSampler:
        """``fg_bg_sampler``, which chooses the proposals to train on."""
        return self.fg_bg_sampler

    def is_unchanged(self) -> bool:
        """Whether all images can be done at once: no program has replaced a method or a part."""
        methods = ("forward", "postprocess_detections")
        return is_unchanged(self, RoIHeads, methods) and type(self.box_coder) is BoxCoder

    def forward(
        self,
        features: Features,
        proposals: Sequence[Tensor],
        image_shapes: list[Size],
        targets: Sequence[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Return the detections of each image, in evaluation, and the losses, in training; the other is empty.

        All methods and attributes of torchvision's heads are there. A program that replaces one is followed.
        """
        if self.training:
            self.check_targets(targets)
            assert targets is not None
            return [], self.losses(features, proposals, image_shapes, targets)
        pooled = self.box_head(self.box_roi_pool(features, list(proposals), image_shapes))
        logits, deltas = self.box_predictor(pooled)
        columns = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        result = [dict(zip(("boxes", "scores", "labels"), image, strict=True)) for image in zip(*columns, strict=True)]
        result = [{name: image[name] for name in ("boxes", "labels", "scores")} for image in result]
        if self.has_mask():
            self.add_masks(result, features, image_shapes)
        if self.has_keypoint():
            self.add_keypoints(result, features, image_shapes)
        return result, {}

    # Training ---------------------------------------------------------------------------------------------------------

    def losses(
        self, features: Features, proposals: Sequence[Tensor], image_sizes: list[Size], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the losses of all heads.

        Parameters
        ----------
        features : dict of str to Tensor (N, C, H_l, W_l)
            Feature maps.
        proposals : list of N tensors (M_i, 4)
            Proposals of each image.
        image_sizes : list of (height, width)
            Sizes of the images.
        targets : list of N dict
            Objects of each image.
        """
        boxes, matches, labels, offsets = self.select_training_samples(proposals, targets)
        pooled = self.box_head(self.box_roi_pool(features, boxes, image_sizes))
        class_logits, box_deltas = self.box_predictor(pooled)
        loss_classifier, loss_box_reg = fastrcnn_loss(class_logits, box_deltas, labels, offsets)
        losses = {"loss_classifier": loss_classifier, "loss_box_reg": loss_box_reg}
        if not (self.has_mask() or self.has_keypoint()):
            return losses
        positive = [label > 0 for label in labels]
        boxes = [rows[where] for rows, where in zip(boxes, positive, strict=True)]
        matches = [rows[where] for rows, where in zip(matches, positive, strict=True)]
        if self.mask_roi_pool is not None and self.mask_head is not None and self.mask_predictor is not None:
            logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_sizes)))
            masks, classes = [t["masks"] for t in targets], [t["labels"] for t in targets]
            losses["loss_mask"] = mask_loss(logits, boxes, masks, classes, matches)
        if self.keypoint_roi_pool is not None and self.keypoint_head is not None:
            assert self.keypoint_predictor is not None
            logits = self.keypoint_predictor(self.keypoint_head(self.keypoint_roi_pool(features, boxes, image_sizes)))
            losses["loss_keypoint"] = keypoint_loss(logits, boxes, [t["keypoints"] for t in targets], matches)
        return losses

    def check_targets(self, targets: Sequence[Target] | None) -> None:
        """Raise ValueError unless there are targets with all that the heads are trained on."""
        if targets is None:
            raise ValueError("targets must be given in training")
        keys = ["boxes", "labels", *["masks"] * self.has_mask(), *["keypoints"] * self.has_keypoint()]
        for index, target in enumerate(targets):
            for key in keys:
                if key not in target:
                    raise ValueError(f"targets[{index}] must have {key!r}, has {sorted(target)}")

    def add_gt_proposals(self, proposals: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> list[Tensor]:
        """Return the proposals of each image and its true boxes behind them."""
        return [torch.cat(pair) for pair in zip(proposals, gt_boxes, strict=True)]

    def assign_targets_to_proposals(
        self, proposals: Sequence[Tensor], gt_boxes: Sequence[Tensor], gt_labels: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the object (M,) that each proposal is matched to, 0 if none, and its class: 0 background, -1 neither.

        Parameters
        ----------
        proposals : list of Tensor (M, 4)
            Of each image.
        gt_boxes, gt_labels : list of Tensor (G, 4), and of Tensor (G,)
            Objects of each image.
        """
        matches, labels = [], []
        for boxes, gt, classes in zip(proposals, gt_boxes, gt_labels, strict=True):
            if len(gt):
                found = match(gt, boxes, self.box_similarity, self.proposal_matcher)
                label = torch.where(found >= 0, classes[found.clamp(min=0)], found + 1)
            else:  # all background
                found = label = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            matches.append(found.clamp(min=0))
            labels.append(label)
        return matches, labels

    def subsample(self, labels: Sequence[Tensor]) -> list[Tensor]:
        """Return the indices, ascending, of the proposals of each image to train on."""
        return [torch.where(yes | no)[0] for yes, no in zip(*self.fg_bg_sampler(list(labels)), strict=True)]

    def select_training_samples(
        self, proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Sample training examples from the proposals (M, 4) and the true boxes of each image.

        Returns
        -------
        boxes : list of Tensor (S, 4)
        matches : list of Tensor (S,)
            Index of the object that each is matched to; 0 for background.
        labels : list of Tensor (S,)
            Class of that object; 0 for background.
        offsets : list of Tensor (S, 4)
            From the box to that object; meaningless for background.
        """
        self.check_targets(targets)
        gt = [target["boxes"].to(rows.dtype) for rows, target in zip(proposals, targets, strict=True)]
        boxes = self.add_gt_proposals(proposals, gt)
        matches, labels = self.assign_targets_to_proposals(boxes, gt, [target["labels"] for target in targets])
        matched = []
        for image, sampled in enumerate(self.subsample(labels)):
            boxes[image], labels[image] = boxes[image][sampled], labels[image][sampled]
            matches[image] = matches[image][sampled]
            matched.append((gt[image] if len(gt[image]) else gt[image].new_zeros(1, 4))[matches[image]])
        return boxes, matches, labels, self.box_coder.encode(matched, boxes)

    # Inference --------------------------------------------------------------------------------------------------------

    def detect(
        self, features: Features, proposals: Tensor, count: Tensor, image_sizes: list[Size]
    ) -> tuple[list[Target], Tensor]:
        """Return the detections of each image and their number.

        On a CPU each tensor has one row per detection. On a GPU and in a compiled graph, where reading the number would
        synchronise, it has ``detections_per_img`` rows, and only the first ``count`` are valid.

        Parameters
        ----------
        features : dict of str to Tensor (N, C, H_l, W_l)
            Feature maps.
        proposals : Tensor (N, M, 4)
            Proposals of each image.
        count : Tensor (N,)
            Number of valid proposals of each image; the rows after them are padding.
        image_sizes : list of (height, width)
            Sizes of the images.

        Returns
        -------
        detections : list of N dict
            boxes (D, 4), labels (D,), scores (D,) and, for models that have them, masks (D, 1, M, M), probabilities
            within the box, and keypoints (D, N, 3) with keypoints_scores (D, N).
        count : Tensor (N,)
        """
        images, rows = proposals.shape[:2]
        pooled = self.box_head(self.box_roi_pool(features, list(proposals.unbind()), image_sizes))
        logits, deltas = self.box_predictor(pooled)
        dtype = proposals.dtype
        scores = logits.to(dtype).softmax(-1).view(images, rows, logits.shape[-1])
        scores = scores.masked_fill(torch.arange(rows, device=count.device)[:, None] >= count[:, None, None], 0)
        boxes, scores, labels, count = self.suppress(
            scores, deltas.to(dtype).view(images, rows, logits.shape[-1], 4), proposals, image_sizes
        )
        lengths = count.tolist() if can_read_values(count) else [boxes.shape[1]] * images
        result = [
            {"boxes": boxes[i, :n], "labels": labels[i, :n], "scores": scores[i, :n]} for i, n in enumerate(lengths)
        ]
        if self.has_mask():
            self.add_masks(result, features, image_sizes)
        if self.has_keypoint():
            self.add_keypoints(result, features, image_sizes)
        return result, count

    def postprocess_detections(
        self, class_logits: Tensor, box_regression: Tensor, proposals: Sequence[Tensor], image_shapes: list[Size]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return boxes (D_i, 4), scores (D_i,) and labels (D_i,) of each image, by descending score.

        Parameters
        ----------
        class_logits, box_regression : Tensor (K, classes), (K, 4 classes)
            Predictions for the proposals of all images.
        proposals : list of Tensor (M_i, 4)
            Of each image, K in all.
        image_shapes : list of (height, width)
            Boxes are clipped to them.
        """
        dtype, classes = proposals[0].dtype, class_logits.shape[-1]
        lengths = [len(rows) for rows in proposals]
        moves = box_regression.to(dtype).view(len(box_regression), -1, 4)
        if moves.shape[1] == 1:  # the same for every class
            moves = moves.expand(-1, classes, -1)

        def padded(rows: Sequence[Tensor]) -> Tensor:
            return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

        probability = class_logits.to(dtype).softmax(-1)
        boxes, scores, labels, count = self.suppress(
            padded(probability.split(lengths)), padded(moves.split(lengths)), padded(proposals), image_shapes
        )
        numbers = count.tolist()
        boxes_, scores_, labels_ = (
            [rows[:number] for rows, number in zip(column, numbers, strict=True)] for column in (boxes, scores, labels)
        )
        return boxes_, scores_, labels_

    def suppress(
        self, scores: Tensor, deltas: Tensor, proposals: Tensor, image_sizes: list[Size]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the best boxes (N, D, 4), scores (N, D), labels (N, D) after suppression, and their number (N,).

        Parameters
        ----------
        scores : Tensor (N, M, classes)
            Probabilities, background first; 0 in rows of padding.
        deltas : Tensor (N, M, classes, 4)
            Offsets.
        proposals : Tensor (N, M, 4)
            Boxes that the offsets refer to.
        image_sizes : list of (height, width)
            Boxes are clipped to them.
        """
        _, rows, classes = scores.shape
        flat = scores[..., 1:].flatten(1)
        flat = flat.masked_fill(~(flat > self.score_thresh), -torch.inf)
        # Probabilities of a proposal add up to 1: at most 1 / score_thresh of its classes can be above the threshold.
        most = min(classes - 1, math.floor(1 / self.score_thresh) if self.score_thresh > 0 else classes - 1)
        capacity = min(rows_needed((flat > -torch.inf).sum(1), rows * most), rows * most)
        # in ascending order again: of equal scores, the one with the lower index goes first
        place = flat.topk(capacity, dim=1, sorted=False).indices.sort(dim=1).values
        row, label = place // max(classes - 1, 1), place % max(classes - 1, 1) + 1
        moves = gather_rows(deltas.flatten(1, 2), row * classes + label)
        boxes = decode_boxes(
            moves.flatten(0, 1),
            gather_rows(proposals, row).flatten(0, 1),
            self.box_coder.weights,
            self.box_coder.bbox_xform_clip,
        ).view(moves.shape)
        boxes = torch.stack([clip_boxes_to_image(b, size) for b, size in zip(boxes, image_sizes, strict=True)])
        wide = (boxes[..., 2:] - boxes[..., :2] >= self.min_size).all(-1)
        candidates = flat.gather(1, place).masked_fill(~wide, -torch.inf)
        kept, _ = batched_nms_padded(boxes, candidates, label, self.nms_thresh, self.detections_per_img)
        index, count = drop_padding(kept, candidates)
        if not capacity:
            return boxes, candidates, label, count
        empty = index < 0
        index = index.clamp(min=0)
        return (
            gather_rows(boxes, index).masked_fill(empty[..., None], 0),
            candidates.gather(1, index).masked_fill(empty, 0),
            label.gather(1, index).masked_fill(empty, 0),
            count,
        )

    def add_masks(self, result: list[Target], features: Features, image_sizes: list[Size]) -> None:
        """Add ``masks`` (D, 1, M, M) to each image's detections: probabilities within the box."""
        assert self.mask_roi_pool is not None
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        pooled = self.mask_head(self.mask_roi_pool(features, [image["boxes"] for image in result], image_sizes))
        labels = torch.cat([image["labels"] for image in result])
        if isinstance(self.mask_predictor, MaskRCNNPredictor):
            logits = self.mask_predictor.of_classes(pooled, labels)
        else:
            logits = self.mask_predictor(pooled)
            logits = logits[torch.arange(len(labels), device=labels.device), labels][:, None]
        masks = logits.to(result[0]["boxes"].dtype).sigmoid().split([len(image["labels"]) for image in result])
        for image, mask in zip(result, masks, strict=True):
            image["masks"] = mask

    def add_keypoints(self, result: list[Target], features: Features, image_sizes: list[Size]) -> None:
        """Add ``keypoints`` (D, N, 3) and ``keypoints_scores`` (D, N) to each image's detections."""
        assert self.keypoint_roi_pool is not None
        assert self.keypoint_head is not None
        assert self.keypoint_predictor is not None
        boxes = [image["boxes"] for image in result]
        heat = self.keypoint_predictor(self.keypoint_head(self.keypoint_roi_pool(features, boxes, image_sizes)))
        lengths = [len(rows) for rows in boxes]
        for image, maps, size in zip(result, heat.split(lengths), image_sizes, strict=True):
            image["keypoints"], image["keypoints_scores"] = heatmaps_to_keypoints(maps, image["boxes"], size)
