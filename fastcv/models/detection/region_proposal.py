"""Region proposals: boxes that may contain an object of any class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.detection.anchor_generator import AnchorGenerator, cells_of
from fastcv.models.detection.fixed_size import drop_padding, gather_rows, rows_needed
from fastcv.models.detection.sampler import BalancedSampler
from fastcv.models.detection.transform import ImageList, Size, Target
from fastcv.nn.convolution import convolve
from fastcv.nn.feature_pyramid import rename_keys
from fastcv.ops.anchors import anchor_grid, decode_anchors
from fastcv.ops.box_coding import encode_boxes
from fastcv.ops.match_boxes import match_boxes
from fastcv.ops.nms import batched_nms_padded

__all__ = ["RPNHead", "RegionProposalNetwork"]


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
            for block in self.conv:
                conv, _ = block.children()
                assert isinstance(conv, nn.Conv2d)
                feature = convolve(conv, feature, conv.weight, conv.bias, relu=True)
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
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.sampler = BalancedSampler(batch_size_per_image, positive_fraction)
        self._pre_nms_top_n = pre_nms_top_n
        self._post_nms_top_n = post_nms_top_n
        self.nms_thresh = nms_thresh
        self.score_thresh = score_thresh

    def forward(
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
        if self.training:
            if targets is None:
                raise ValueError("targets must be given in training")
            anchors = anchor_grid(*self.grid(images, maps, dtype))
            losses = self.losses(torch.cat(objectness, 1), torch.cat(deltas, 1).to(dtype), anchors, targets)
        return boxes, count, losses

    def propose(
        self, images: ImageList, maps: Sequence[Tensor], objectness: Sequence[Tensor], deltas: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the best boxes (N, M, 4) after suppression, by descending score, and their number per image (N,)."""
        phase = "training" if self.training else "testing"
        scores, offsets, places, levels = [], [], [], []
        first = 0
        for level, (logits, moves) in enumerate(zip(objectness, deltas, strict=True)):
            best, index = logits.topk(min(self._pre_nms_top_n[phase], logits.shape[1]), dim=1)
            scores.append(best)
            offsets.append(gather_rows(moves, index))
            places.append(index + first)
            levels.append(torch.full_like(index, level))
            first += logits.shape[1]
        probability = torch.cat(scores, 1).sigmoid()
        boxes = self.decode(images, maps, torch.cat(offsets, 1).to(probability.dtype), torch.cat(places, 1))
        wide = (boxes[..., 2:] - boxes[..., :2] >= self.min_size).all(-1)
        candidates = probability.masked_fill(~(wide & (probability >= self.score_thresh)), -torch.inf)
        kept, _ = batched_nms_padded(
            boxes, candidates, torch.cat(levels, 1), self.nms_thresh, self._post_nms_top_n[phase]
        )
        index, count = drop_padding(kept, candidates)
        boxes = gather_rows(boxes, index).masked_fill((index < 0)[..., None], 0)
        return boxes[:, : rows_needed(count, boxes.shape[1])], count

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
        logits, labels, moves, wanted = [], [], [], []
        for image, target in enumerate(targets):
            gt = target["boxes"].to(anchors.dtype)
            matches = match_boxes(gt, anchors, self.fg_iou_thresh, self.bg_iou_thresh, True)
            # -2, between the thresholds, is ignored
            positive, negative = self.sampler(torch.where(matches >= 0, 1, torch.where(matches == -1, 0, -1)))
            logits += [objectness[image, positive], objectness[image, negative]]
            labels += [torch.ones_like(logits[-2]), torch.zeros_like(logits[-1])]
            moves.append(deltas[image, positive])
            wanted.append(encode_boxes(gt[matches[positive]], anchors[positive], (1.0, 1.0, 1.0, 1.0)))
        chosen = torch.cat(logits)
        box_loss = F.smooth_l1_loss(torch.cat(moves), torch.cat(wanted), beta=1 / 9, reduction="sum")
        return {
            "loss_objectness": F.binary_cross_entropy_with_logits(chosen, torch.cat(labels)),
            "loss_rpn_box_reg": box_loss / chosen.numel(),
        }
