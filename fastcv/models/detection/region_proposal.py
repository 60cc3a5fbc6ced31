"""Region proposals: boxes that may contain an object of any class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.detection.anchor_generator import AnchorGenerator, cells_of
from fastcv.models.detection.fixed_size import drop_padding, gather_rows, rows_needed
from fastcv.models.detection.matching import BoxCoder, Matcher, is_unchanged, match
from fastcv.models.detection.sampler import BalancedSampler
from fastcv.models.detection.transform import ImageList, Size, Target
from fastcv.nn._plain import is_watched
from fastcv.nn.convolution import convolve_block, joined
from fastcv.nn.feature_pyramid import rename_keys
from fastcv.ops.anchors import anchor_grid, decode_anchors
from fastcv.ops.box_iou import box_iou
from fastcv.ops.boxes import clip_boxes_to_image
from fastcv.ops.nms import batched_nms_padded

__all__ = ["RPNHead", "RegionProposalNetwork", "concat_box_prediction_layers"]


class RPNHead(nn.Module):
    """Objectness logit and box offsets for every anchor at every location of a feature map.

    Names of parameters are those of torchvision's RPNHead; older checkpoints load too.

    Parameters
    ----------
    in_channels : int
        Channels of the maps.
    num_anchors : int
        Anchors per location.
    conv_depth : int
        Number of 3x3 convolutions before the predictions.
    """

    _version = 2

    def __init__(self, in_channels: int, num_anchors: int, conv_depth: int = 1) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.ReLU()) for _ in range(conv_depth)
        ]
        self.conv = nn.Sequential(*blocks)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def rename_old_keys(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Rename the keys of an older checkpoint, in place."""
        rename_keys(state_dict, prefix, {"conv": "conv.0.0"})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.rename_old_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the logits (N, A, H, W) and the offsets (N, 4 A, H, W) of each map (N, C, H, W)."""
        logits, offsets = [], []
        for feature in x:
            if type(self.conv) is nn.Sequential and not is_watched(self.conv):
                for block in self.conv:
                    feature = convolve_block(block, feature)
            else:
                feature = self.conv(feature)
            joint = joined(self, (self.cls_logits, self.bbox_pred))
            if joint is not None and joint.is_served(feature):
                both = joint.convolve(feature, None, None)
                logits.append(both[:, : self.cls_logits.out_channels])
                offsets.append(both[:, self.cls_logits.out_channels :])
            else:
                logits.append(self.cls_logits(feature))
                offsets.append(self.bbox_pred(feature))
        return logits, offsets


def _by_anchor(levels: Sequence[Tensor], numbers: int) -> list[Tensor]:
    """Reorder each level from (N, A * numbers, H, W) to (N, H * W * A, numbers), the order of the anchors."""
    return [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, numbers) for level in levels]


class RegionProposalNetwork(nn.Module):
    """Proposals from feature maps and, in training, their losses.

    Parameters
    ----------
    anchor_generator : AnchorGenerator
        Generates the anchors.
    head : nn.Module
        Predicts logits and offsets, as :class:`RPNHead` does.
    fg_iou_thresh, bg_iou_thresh : float
        In training, an anchor is positive if its IoU with an object is at least ``fg_iou_thresh``, and negative if its
        IoU with every object is below ``bg_iou_thresh``.
    batch_size_per_image, positive_fraction
        As in :class:`BalancedSampler`.
    pre_nms_top_n, post_nms_top_n : dict of str to int
        Maximum anchors per level before non-maximum suppression and maximum proposals per image after it, under the
        keys "training" and "testing".
    nms_thresh : float
        IoU above which a proposal suppresses a lower-scoring one of the same level.
    score_thresh : float
        Minimum probability of a proposal.

    Notes
    -----
    All images and levels are processed together, and the size of every tensor depends on the sizes of the maps alone:
    on a GPU there is no synchronisation.

    References
    ----------
    Ren, He, Girshick, Sun: Faster R-CNN (2015), section 3.1.
    """

    min_size = 1e-3

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: nn.Module,
        fg_iou_thresh: float,
        bg_iou_thresh: float,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_top_n: dict[str, int],
        post_nms_top_n: dict[str, int],
        nms_thresh: float,
        score_thresh: float = 0.0,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.box_similarity: Any = box_iou
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=True)
        self.fg_bg_sampler = BalancedSampler(batch_size_per_image, positive_fraction)
        self._pre_nms_top_n = pre_nms_top_n
        self._post_nms_top_n = post_nms_top_n
        self.nms_thresh = nms_thresh
        self.score_thresh = score_thresh

    @property
    def sampler(self) -> BalancedSampler:
        """``fg_bg_sampler``, which chooses the anchors to train on."""
        return self.fg_bg_sampler

    def is_unchanged(self) -> bool:
        """Whether proposals can be made all at once: no program has replaced a method or a part that makes them."""
        return (
            is_unchanged(self, RegionProposalNetwork, _METHODS)
            and is_unchanged(self.anchor_generator, AnchorGenerator, ("forward", "grid_anchors"))
            and type(self.box_coder) is BoxCoder
        )

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals of each image, (M_i, 4), and, in training, the losses.

        All methods and attributes of torchvision's network are there. A program that replaces one is followed.
        """
        if self.training and targets is None:
            raise ValueError("targets must be given in training")
        if self.is_unchanged():
            boxes, count, losses = self.forward_padded(images, features, targets)
            return [rows[:number] for rows, number in zip(boxes, count.tolist(), strict=True)], losses
        maps = list(features.values())
        logits, offsets = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        counts = [level.shape[1] * level.shape[2] * level.shape[3] for level in logits]
        objectness, deltas = concat_box_prediction_layers(logits, offsets)
        proposals = self.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
        chosen, _ = self.filter_proposals(proposals, objectness, images.image_sizes, counts)
        if not self.training or targets is None:
            return chosen, {}
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        wanted = self.box_coder.encode(matched, anchors)
        loss_objectness, loss_box = self.compute_loss(objectness, deltas, labels, wanted)
        return chosen, {"loss_objectness": loss_objectness, "loss_rpn_box_reg": loss_box}

    def forward_padded(
        self, images: ImageList, features: dict[str, Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return proposals (N, M, 4), their number per image (N,) and, in training, the losses.

        Rows beyond an image's number are zero.
        """
        maps = list(features.values())
        logits, offsets = self.head(maps)
        dtype = torch.float64 if maps[0].dtype is torch.float64 else torch.float32
        objectness = [level[..., 0].to(dtype) for level in _by_anchor(logits, 1)]
        deltas = _by_anchor(offsets, 4)
        boxes, count = self.propose(images, maps, [o.detach() for o in objectness], [d.detach() for d in deltas])
        losses: dict[str, Tensor] = {}
        if self.training and targets is not None:
            anchors = anchor_grid(*self.grid(images, maps, dtype))
            losses = self.losses(torch.cat(objectness, 1), torch.cat(deltas, 1).to(dtype), anchors, targets)
        return boxes, count, losses

    def propose(
        self, images: ImageList, maps: Sequence[Tensor], objectness: Sequence[Tensor], deltas: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the best boxes (N, M, 4) after suppression, by descending score, and their number per image (N,)."""
        scores, offsets, places, levels = [], [], [], []
        first = 0
        for level, (logits, moves) in enumerate(zip(objectness, deltas, strict=True)):
            best, index = logits.topk(min(self.pre_nms_top_n(), logits.shape[1]), dim=1)
            scores.append(best)
            offsets.append(gather_rows(moves, index))
            places.append(index + first)
            levels.append(torch.full_like(index, level))
            first += logits.shape[1]
        probability = torch.cat(scores, 1).sigmoid()
        boxes = self.decode(images, maps, torch.cat(offsets, 1).to(probability.dtype), torch.cat(places, 1))
        boxes, _, count = self.suppress(boxes, probability, torch.cat(levels, 1))
        return boxes, count

    def suppress(self, boxes: Tensor, probability: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best of boxes (N, K, 4) with their probability (N, K), and their number per image (N,)."""
        wide = (boxes[..., 2:] - boxes[..., :2] >= self.min_size).all(-1)
        candidates = probability.masked_fill(~(wide & (probability >= self.score_thresh)), -torch.inf)
        kept, _ = batched_nms_padded(boxes, candidates, levels, self.nms_thresh, self.post_nms_top_n())
        index, count = drop_padding(kept, candidates)
        boxes = gather_rows(boxes, index).masked_fill((index < 0)[..., None], 0)
        rows = rows_needed(count, boxes.shape[1])
        if not probability.shape[1]:
            return boxes[:, :rows], probability, count
        return boxes[:, :rows], probability.gather(1, index.clamp(min=0))[:, :rows], count

    def pre_nms_top_n(self) -> int:
        """Maximum anchors per level before non-maximum suppression."""
        return self._pre_nms_top_n["training" if self.training else "testing"]

    def post_nms_top_n(self) -> int:
        """Maximum proposals per image after it."""
        return self._post_nms_top_n["training" if self.training else "testing"]

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: Sequence[Size],
        num_anchors_per_level: Sequence[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the best boxes (M_i, 4) and their probability (M_i,) of each image.

        Parameters
        ----------
        proposals : Tensor (N, A, 4)
            Decoded boxes.
        objectness : Tensor (N * A, 1) or (N, A)
            Logits.
        image_shapes : list of (height, width)
            Boxes are clipped to them.
        num_anchors_per_level : list of int
            They add up to A.
        """
        logits = objectness.detach().reshape(len(proposals), -1)
        index, levels, first = [], [], 0
        for level, part in enumerate(logits.split(list(num_anchors_per_level), 1)):
            best = part.topk(min(self.pre_nms_top_n(), part.shape[1]), dim=1).indices
            index.append(best + first)
            levels.append(torch.full_like(best, level))
            first += part.shape[1]
        places = torch.cat(index, 1)
        boxes = gather_rows(proposals, places)
        boxes = torch.stack([clip_boxes_to_image(b, size) for b, size in zip(boxes, image_shapes, strict=True)])
        probability = logits.gather(1, places).sigmoid()
        boxes, scores, count = self.suppress(boxes, probability, torch.cat(levels, 1))
        lengths = count.tolist()
        return (
            [rows[:number] for rows, number in zip(boxes, lengths, strict=True)],
            [rows[:number] for rows, number in zip(scores, lengths, strict=True)],
        )

    def decode(self, images: ImageList, maps: Sequence[Tensor], deltas: Tensor, places: Tensor) -> Tensor:
        """Return the boxes (N, K, 4) of the selected anchors, clipped to their images."""
        grid = self.grid(images, maps, deltas.dtype)

        def decoded(moves: Tensor, chosen: Tensor, size: Size) -> Tensor:
            return decode_anchors(moves, chosen, *grid, image_size=size)

        if all(size == images.image_sizes[0] for size in images.image_sizes):
            return decoded(deltas, places, images.image_sizes[0])
        return torch.stack([decoded(*image) for image in zip(deltas, places, images.image_sizes, strict=True)])

    def grid(
        self, images: ImageList, maps: Sequence[Tensor], dtype: torch.dtype
    ) -> tuple[list[Size], list[Size], list[Tensor]]:
        """Return sizes and strides of the maps and the cell anchors, which together describe all anchors."""
        height, width = images.tensors.shape[-2:]
        sizes = [(level.shape[-2], level.shape[-1]) for level in maps]
        cells = cells_of(self.anchor_generator, dtype, maps[0].device)
        return sizes, [(height // h, width // w) for h, w in sizes], cells

    def losses(
        self, objectness: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return ``loss_objectness`` and ``loss_rpn_box_reg``.

        Parameters
        ----------
        objectness : Tensor (N, A)
            Logits.
        deltas : Tensor (N, A, 4)
            Offsets.
        anchors : Tensor (A, 4)
            The same for all images.
        targets : sequence of dict
            With boxes (G, 4).
        """
        logits, chosen, moves, wanted = [], [], [], []
        labels, matched = self.assign_targets_to_anchors([anchors] * len(targets), targets)
        for image, (label, boxes) in enumerate(zip(labels, matched, strict=True)):
            positive, negative = self.fg_bg_sampler(label)
            logits += [objectness[image, positive], objectness[image, negative]]
            chosen += [torch.ones_like(logits[-2]), torch.zeros_like(logits[-1])]
            moves.append(deltas[image, positive])
            wanted.append(self.box_coder.encode_single(boxes[positive], anchors[positive]))
        return _losses(torch.cat(logits), torch.cat(chosen), torch.cat(moves), torch.cat(wanted))

    def assign_targets_to_anchors(
        self, anchors: Sequence[Tensor], targets: Sequence[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the label of each anchor (A,), 1 object, 0 background, -1 neither, and the box of its object (A, 4).

        Parameters
        ----------
        anchors : list of Tensor (A, 4)
            Of each image.
        targets : list of dict
            With boxes (G, 4).
        """
        labels, matched = [], []
        for boxes, target in zip(anchors, targets, strict=True):
            gt = target["boxes"].to(boxes.dtype)
            if not len(gt):
                labels.append(boxes.new_zeros(len(boxes)))
                matched.append(torch.zeros_like(boxes))
                continue
            matches = match(gt, boxes, self.box_similarity, self.proposal_matcher)
            # -2, between the thresholds, is ignored
            labels.append(torch.where(matches >= 0, 1.0, torch.where(matches == -1, 0.0, -1.0)).to(boxes.dtype))
            matched.append(gt[matches.clamp(min=0)])
        return labels, matched

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness (N * A,) and of offsets (N * A, 4), of sampled anchors.

        Parameters
        ----------
        objectness, pred_bbox_deltas
            Predictions.
        labels, regression_targets : list of Tensor (A,), and of Tensor (A, 4)
            What they should be, of each image.
        """
        positive, negative = (torch.where(torch.cat(masks))[0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        wanted = torch.cat(regression_targets)[positive]
        losses = _losses(objectness.flatten()[sampled], torch.cat(labels)[sampled], pred_bbox_deltas[positive], wanted)
        return losses["loss_objectness"], losses["loss_rpn_box_reg"]


_METHODS = ("forward", "filter_proposals", "compute_loss", "pre_nms_top_n", "post_nms_top_n")


def _losses(logits: Tensor, labels: Tensor, moves: Tensor, wanted: Tensor) -> dict[str, Tensor]:
    box_loss = F.smooth_l1_loss(moves, wanted, beta=1 / 9, reduction="sum")
    return {
        "loss_objectness": F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype)),
        "loss_rpn_box_reg": box_loss / logits.numel(),
    }


def concat_box_prediction_layers(box_cls: Sequence[Tensor], box_regression: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return logits (N * A, C) and offsets (N * A, 4) of all maps, in the order of the anchors.

    Parameters
    ----------
    box_cls : list of Tensor (N, A_l C, H_l, W_l)
        Logits of each map.
    box_regression : list of Tensor (N, 4 A_l, H_l, W_l)
        Offsets of each map.
    """
    anchors = box_regression[0].shape[1] // 4
    logits = torch.cat(_by_anchor(box_cls, box_cls[0].shape[1] // anchors), 1)
    return logits.flatten(0, 1), torch.cat(_by_anchor(box_regression, 4), 1).reshape(-1, 4)
