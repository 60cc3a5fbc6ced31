"""What YOLO's heads learn from: objects assigned to boxes, and the terms of the papers' losses.

All sums run over an image; the losses are their means over the images of the batch. No loop over objects, and nothing
waits for a GPU: images have the same number of objects, of which some are only padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv.ops.box_iou import box_iou

__all__ = ["AnchorTruth", "Truth", "detection_losses", "match_anchors", "region_losses", "yolo_losses"]

Losses = dict[str, Tensor]


class Truth(NamedTuple):
    """The objects of N images, at most T each.

    boxes (N, T, 4), x1, y1, x2, y2 in pixels of the network's input; labels (N, T), int64, from 0; valid (N, T): which
    of them are objects. The others are boxes of zeros.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor

    @property
    def centres(self) -> Tensor:
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2

    @property
    def sizes(self) -> Tensor:
        return self.boxes[..., 2:] - self.boxes[..., :2]

    def cells(self, height: int, width: int, image: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return which cell of a map each centre is in (N, T), row by row, and where in it (N, T, 2), 0 to 1."""
        shape = self.boxes.new_tensor([width, height])
        place = self.centres / self.boxes.new_tensor([image[1], image[0]]) * shape
        corner = torch.minimum(place.floor().clamp(min=0), shape - 1)
        cell = corner.long()
        return cell[..., 1] * width + cell[..., 0], place - corner


class AnchorTruth(NamedTuple):
    """What the boxes of one map should say.

    box (N, T): which of the map's P boxes, in the order row, column, anchor, an object is assigned to; mine (N, T):
    whether it is; place (N, T, 2) in the cell; growth (N, T, 2): logarithms of width and height over the anchor's;
    weight (N, T): more for small objects, 2 - the object's part of the image; taken (N, P): boxes that have an object.
    """

    box: Tensor
    mine: Tensor
    place: Tensor
    growth: Tensor
    weight: Tensor
    taken: Tensor


def match_anchors(
    truth: Truth,
    anchors: Sequence[tuple[float, float]],
    mask: Sequence[int],
    shape: tuple[int, int],
    image: tuple[int, int],
) -> AnchorTruth:
    """Assign each object to the anchor that is most like it, in the cell of its centre.

    Parameters
    ----------
    truth : Truth
        The objects.
    anchors : sequence of (width, height)
        Those of all maps, in pixels.
    mask : sequence of int
        Which of them this map has.
    shape : (height, width)
        Of the map.
    image : (height, width)
        Of the network's input, in pixels.

    Notes
    -----
    Alike are boxes whose IoU, with one centre, is large; of equal ones the first anchor. Where two objects want one
    box, the first has it.
    """
    height, width = shape
    sizes = truth.sizes
    table = sizes.new_tensor(anchors)
    best = box_iou(_centred(sizes), _centred(table)).argmax(-1)  # (N, T)
    chosen = best[..., None] == torch.tensor(list(mask), device=best.device)
    cell, place = truth.cells(height, width, image)
    index = cell * len(mask) + chosen.byte().argmax(-1)
    boxes = height * width * len(mask)
    mine = _first_of_each(index, truth.valid & chosen.any(-1), boxes)
    taken = mine.new_zeros(len(mine), boxes + 1).scatter(1, index.masked_fill(~mine, boxes), True)[:, :boxes]
    growth = (sizes / table[best]).clamp(min=1e-9).log()
    return AnchorTruth(index, mine, place, growth, 2 - sizes.prod(-1) / (image[0] * image[1]), taken)


def yolo_losses(
    values: Tensor, boxes: Tensor, truth: Truth, matched: AnchorTruth, ignore: float, stretch: float
) -> Losses:
    """The loss of version 3 for one map.

    Parameters
    ----------
    values : Tensor (N, P, 5 + K)
        The map by box: x, y, w, h, confidence, classes, all before any function.
    boxes : Tensor (N, P, 4)
        The same, decoded, in pixels.
    truth, matched
        The objects and where they belong.
    ignore : float
        Boxes without an object are not told that they have none where they overlap one by more than this.
    stretch : float
        ``scale_x_y``.

    References
    ----------
    Redmon, Farhadi: YOLOv3: An Incremental Improvement (2018), sections 2.1 and 2.2: squared errors of w and h, binary
    cross entropy for confidence and classes. For x and y it is cross entropy too: its gradient is the one that Darknet
    uses, the difference of place and prediction.
    """
    overlap = _overlap(boxes, truth.boxes)
    found = _gather(values, matched.box)
    place = ((matched.place + (stretch - 1) / 2) / stretch).clamp(0, 1)
    weight = matched.mine * matched.weight
    xy = F.binary_cross_entropy_with_logits(found[..., :2], place, reduction="none").sum(-1)
    wh = (found[..., 2:4] - matched.growth).square().sum(-1)
    kinds = F.binary_cross_entropy_with_logits(found[..., 5:], _one_hot(truth.labels, found), reduction="none").sum(-1)
    silent = ~matched.taken & ~(overlap > ignore).any(-1)
    return {
        "loss_coord": _total(weight * (xy + wh)),
        "loss_object": _total(matched.mine * F.softplus(-found[..., 4])),
        "loss_noobject": _total(silent * F.softplus(values[..., 4])),
        "loss_class": _total(matched.mine * kinds),
    }


class RegionScales(NamedTuple):
    """How the terms of version 2 are weighted: options of [region]."""

    coord: float
    object: float
    noobject: float
    kind: float


def region_losses(
    values: Tensor,
    boxes: Tensor,
    truth: Truth,
    matched: AnchorTruth,
    ignore: float,
    scales: RegionScales,
    softmax: bool,
    rescore: bool,
) -> Losses:
    """The loss of version 2.

    Parameters
    ----------
    values, boxes, truth, matched, ignore
        As in :func:`yolo_losses`.
    scales : RegionScales
        Weights of the terms.
    softmax : bool
        Whether the classes exclude each other: cross entropy; else binary cross entropy.
    rescore : bool
        Whether the confidence should be the IoU with the object, as the paper has it, or else 1.

    References
    ----------
    Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (2016), section 2: squared errors as in version 1, of numbers
    relative to cell and anchor. Weights as in Darknet's [region].
    """
    overlap = _overlap(boxes, truth.boxes)
    found = _gather(values, matched.box)
    wanted = overlap.gather(1, matched.box[:, None])[:, 0] if rescore else torch.ones_like(matched.weight)
    errors = torch.cat([found[..., :2].sigmoid() - matched.place, found[..., 2:4] - matched.growth], -1)
    if softmax:
        kinds = F.cross_entropy(found[..., 5:].movedim(-1, 1), truth.labels, reduction="none")
    else:
        hot = _one_hot(truth.labels, found)
        kinds = F.binary_cross_entropy_with_logits(found[..., 5:], hot, reduction="none").sum(-1)
    silent = ~matched.taken & ~(overlap > ignore).any(-1)
    return {
        "loss_coord": scales.coord * _total(matched.mine * matched.weight * errors.square().sum(-1)),
        "loss_object": scales.object * _total(matched.mine * (found[..., 4].sigmoid() - wanted).square()),
        "loss_noobject": scales.noobject * _total(silent * values[..., 4].sigmoid().square()),
        "loss_class": scales.kind * _total(matched.mine * kinds),
    }


class DetectionScales(NamedTuple):
    """How the terms of version 1 are weighted: the paper's are 5, 1, 0.5, 1."""

    coord: float
    object: float
    noobject: float
    kind: float


def detection_losses(
    classes: Tensor,
    confidences: Tensor,
    values: Tensor,
    truth: Truth,
    image: tuple[int, int],
    scales: DetectionScales,
    root: bool,
    rescore: bool,
) -> Losses:
    """The loss of version 1, the paper's equation 3.

    Parameters
    ----------
    classes : Tensor (N, S, S, K)
        Probabilities of the cells.
    confidences : Tensor (N, S, S, B)
        Of the boxes.
    values : Tensor (N, S, S, B, 4)
        x, y in the cell, and parts of the image, or their square roots.
    truth, image, rescore
        As in :func:`region_losses`.
    scales : DetectionScales
        Weights of the terms.
    root : bool
        Whether ``values`` holds square roots: those are compared then, as in the paper.

    Notes
    -----
    Responsible for an object is the box of its cell that overlaps it most; where none does, the nearest in the
    squared error. A cell has one object: the first.

    References
    ----------
    Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection (2016), section 2.2.
    """
    side, count = values.shape[1], values.shape[3]
    cell, place = truth.cells(side, side, image)
    whole = values.new_tensor([image[1], image[0]])
    parts = truth.sizes / whole
    mine = _first_of_each(cell, truth.valid, side * side)
    here = _gather(values.flatten(1, 2).flatten(2), cell).unflatten(-1, (count, 4))  # (N, T, B, 4)
    wanted = torch.cat([place, parts.clamp(min=0).sqrt() if root else parts], -1)[:, :, None]
    with torch.no_grad():
        sizes = here[..., 2:].square() if root else here[..., 2:].clamp(min=0)
        centres, true_centres = here[..., :2] / side, place[:, :, None] / side  # from the cell's corner
        overlap = _overlap(_corners(centres, sizes), _corners(true_centres, parts[:, :, None]))[..., 0]
        distance = torch.cat([centres - true_centres, sizes - parts[:, :, None]], -1).square().sum(-1)
        box = torch.where(overlap > 0, overlap, -distance).argmax(-1)
        target = overlap.gather(-1, box[..., None])[..., 0] if rescore else torch.ones_like(parts[..., 0])
    errors = (here - wanted).square().sum(-1).gather(-1, box[..., None])[..., 0]
    index, boxes = cell * count + box, side * side * count
    taken = mine.new_zeros(len(mine), boxes + 1).scatter(1, index.masked_fill(~mine, boxes), True)[:, :boxes]
    flat = confidences.flatten(1)
    kinds = _gather(classes.flatten(1, 2), cell)
    return {
        "loss_coord": scales.coord * _total(mine * errors),
        "loss_object": scales.object * _total(mine * (flat.gather(1, index) - target).square()),
        "loss_noobject": scales.noobject * _total(~taken * flat.square()),
        "loss_class": scales.kind * _total(mine * (kinds - _one_hot(truth.labels, kinds, 0)).square().sum(-1)),
    }


def _overlap(boxes: Tensor, truth: Tensor) -> Tensor:
    """IoU as a constant; 0 for boxes without area, of which neither is an object."""
    return box_iou(boxes.detach(), truth).nan_to_num(0)


def _total(terms: Tensor) -> Tensor:
    """Sum over what an image has, mean over images."""
    return terms.sum() / len(terms)


def _gather(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows (N, T, D) of (N, P, D)."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def _one_hot(labels: Tensor, values: Tensor, first: int = 5) -> Tensor:
    return F.one_hot(labels, values.shape[-1] - first).to(values.dtype)


def _first_of_each(index: Tensor, wanted: Tensor, places: int) -> Tensor:
    """Return which of the wanted rows (N, T) are the first with their index."""
    slot = index.masked_fill(~wanted, places)
    order = torch.arange(index.shape[1], device=index.device).expand_as(index)
    first = order.new_full((len(index), places + 1), index.shape[1]).scatter_reduce(1, slot, order, "amin")
    return wanted & (first.gather(1, slot) == order)


def _centred(sizes: Tensor) -> Tensor:
    return torch.cat([-sizes / 2, sizes / 2], -1)


def _corners(centres: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([centres - sizes / 2, centres + sizes / 2], -1)
