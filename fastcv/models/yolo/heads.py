"""The heads of YOLO's versions: from maps to boxes and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fastcv.models.yolo.config import Section
from fastcv.models.yolo.losses import (
    DetectionScales,
    RegionScales,
    Truth,
    detection_losses,
    match_anchors,
    region_losses,
    yolo_losses,
)
from fastcv.ops.decode_yolo import decode_yolo, decode_yolo_v1

__all__ = ["HEADS", "DetectionHead", "Head", "RegionHead", "YOLOHead", "make_head"]


_MOST_ANCHORS = 32


class Head(ABC):
    """What decodes a map: ``classes``, and ``boxes`` per image."""

    classes: int
    boxes: int

    @abstractmethod
    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (N, K, 4), x1, y1, x2, y2 in pixels of the network's input, and scores (N, K, classes)."""

    @abstractmethod
    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return those of :meth:`decode` with high enough scores, as :func:`fastcv.ops.decode_yolo` does."""

    @abstractmethod
    def losses(self, output: Tensor, truth: Truth) -> dict[str, Tensor]:
        """Return loss_coord, loss_object, loss_noobject and loss_class of a map, for objects of the same images."""


class YOLOHead(Head):
    """[yolo], of version 3.

    A map has A × (5 + classes) channels: per anchor x, y, w, h, confidence, classes. With the cell's column c and row r
    the box's centre is (c + s(x), r + s(y)) cells, where s is the logistic function, and its size (exp(w), exp(h))
    times the anchor, in pixels. A score is the product of confidence and class, which are both logistic.

    References
    ----------
    Redmon, Farhadi: YOLOv3: An Incremental Improvement (2018), section 2.1.
    """

    def __init__(self, section: Section, shape: tuple[int, int, int], image: tuple[int, int]) -> None:
        section.refuse("new_coords")
        self.classes = section.integer("classes", 20, 1)
        count = section.integer("num", 1, 1)
        anchors = _anchors(section, count)
        mask = section.integers("mask") or list(range(count))
        if min(mask) < 0 or max(mask) >= count:
            raise section.error(f"mask must be from 0 to {count - 1}, got {section.text('mask', '')[:40]}", "mask")
        self.anchors = [anchors[index] for index in mask]
        self.all_anchors, self.mask = anchors, mask
        self.ignore = section.number("ignore_thresh", 0.5)
        self.stretch = section.number("scale_x_y", 1)
        self.image = image
        self.boxes = _check_channels(section, shape, len(mask), self.classes)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        values = _by_box(output, len(self.anchors))
        scores = values[..., 4:5].sigmoid() * values[..., 5:].sigmoid()
        return self._boxes(values), scores.flatten(1, 3)

    def _boxes(self, values: Tensor) -> Tensor:
        cells, step = _cells(values.shape[1], values.shape[2], values), _step(values, self.image)
        shift = (self.stretch - 1) / 2
        centres = (values[..., :2].sigmoid() * self.stretch - shift + cells) * step
        return _corners(centres, values[..., 2:4].exp() * values.new_tensor(self.anchors))

    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return decode_yolo(output, self.anchors, self.image, threshold, capacity, scale_xy=self.stretch)

    def losses(self, output: Tensor, truth: Truth) -> dict[str, Tensor]:
        values = _by_box(output, len(self.anchors))
        shape = (output.shape[-2], output.shape[-1])
        matched = match_anchors(truth, self.all_anchors, self.mask, shape, self.image)
        boxes = self._boxes(values.detach())
        return yolo_losses(values.flatten(1, 3), boxes, truth, matched, self.ignore, self.stretch)


class RegionHead(Head):
    """[region], of version 2: as [yolo], but anchors are in cells, and classes have a softmax where asked for.

    References
    ----------
    Redmon, Farhadi: YOLO9000: Better, Faster, Stronger (2016), section 2.
    """

    def __init__(self, section: Section, shape: tuple[int, int, int], image: tuple[int, int]) -> None:
        section.refuse("background")
        if "tree" in section.options:
            raise section.error("tree is not supported", "tree")
        section.integer("coords", 4, 4, 4)
        self.classes = section.integer("classes", 20, 1)
        count = section.integer("num", 1, 1)
        self.anchors = _anchors(section, count)
        self.softmax = bool(section.integer("softmax", 0))
        self.ignore = section.number("thresh", 0.5)
        self.rescore = bool(section.integer("rescore", 0))
        self.scales = RegionScales(*_scales(section))
        self.image = image
        self.boxes = _check_channels(section, shape, count, self.classes)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        values = _by_box(output, len(self.anchors))
        classes = values[..., 5:].softmax(-1) if self.softmax else values[..., 5:].sigmoid()
        return self._boxes(values), (values[..., 4:5].sigmoid() * classes).flatten(1, 3)

    def _boxes(self, values: Tensor) -> Tensor:
        cells, step = _cells(values.shape[1], values.shape[2], values), _step(values, self.image)
        centres = (values[..., :2].sigmoid() + cells) * step
        return _corners(centres, values[..., 2:4].exp() * values.new_tensor(self.anchors) * step)

    def _anchors_in_pixels(self, output: Tensor) -> list[tuple[float, float]]:
        across, down = self.image[1] / output.shape[-1], self.image[0] / output.shape[-2]
        return [(width * across, height * down) for width, height in self.anchors]

    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        anchors = self._anchors_in_pixels(output)
        return decode_yolo(output, anchors, self.image, threshold, capacity, softmax=self.softmax)

    def losses(self, output: Tensor, truth: Truth) -> dict[str, Tensor]:
        values = _by_box(output, len(self.anchors))
        anchors, shape = self._anchors_in_pixels(output), (output.shape[-2], output.shape[-1])
        matched = match_anchors(truth, anchors, range(len(anchors)), shape, self.image)
        boxes = self._boxes(values.detach())
        options = (self.ignore, self.scales, self.softmax, self.rescore)
        return region_losses(values.flatten(1, 3), boxes, truth, matched, *options)


class DetectionHead(Head):
    """[detection], of version 1.

    The S × S × (classes + 5 × B) numbers are, as Darknet orders them, the classes of all cells, the confidences of all
    boxes, and their x, y, w, h: centres in cells from the cell's corner, and sizes as parts of the image, or the square
    roots of them. All boxes of a cell share its classes. Nothing is logistic.

    References
    ----------
    Redmon, Divvala, Girshick, Farhadi: You Only Look Once: Unified, Real-Time Object Detection (2016), section 2.
    """

    def __init__(self, section: Section, shape: tuple[int, int, int], image: tuple[int, int]) -> None:
        section.integer("coords", 1, 4, 4)
        self.classes = section.integer("classes", 1, 1)
        self.side = side = section.integer("side", 7, 1, 1 << 10)
        self.count = section.integer("num", 1, 1, _MOST_ANCHORS)
        self.softmax = bool(section.integer("softmax", 0))
        self.root = bool(section.integer("sqrt", 0))
        self.rescore = bool(section.integer("rescore", 0))
        self.scales = DetectionScales(*_scales(section))
        self.image = image
        self.boxes = side * side * self.count
        wanted, numbers = side * side * (self.classes + 5 * self.count), shape[0] * shape[1] * shape[2]
        if numbers != wanted:
            raise section.error(f"must follow a layer of {wanted} numbers, got {numbers}")

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        classes, confidences, boxes = self._split(output)
        scores = confidences[..., None] * classes[..., None, :]
        whole = boxes.new_tensor([self.image[1], self.image[0]])
        centres = (boxes[..., :2] + _cells(self.side, self.side, boxes)) / self.side * whole
        sizes = (boxes[..., 2:].square() if self.root else boxes[..., 2:].clamp(min=0)) * whole
        return _corners(centres, sizes), scores.flatten(1, 3)

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the classes (N, S, S, K), confidences (N, S, S, B) and boxes (N, S, S, B, 4)."""
        side, cells = self.side, self.side * self.side
        sizes = [cells * self.classes, cells * self.count, cells * self.count * 4]
        classes, confidences, boxes = output.flatten(1).split(sizes, dim=1)
        classes = classes.reshape(-1, side, side, self.classes)
        if self.softmax:
            classes = classes.softmax(-1)
        return classes, confidences.reshape(-1, side, side, self.count), boxes.reshape(-1, side, side, self.count, 4)

    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        options = (self.side, self.count, self.image, threshold, capacity, self.softmax, self.root)
        return decode_yolo_v1(output.flatten(1), *options)

    def losses(self, output: Tensor, truth: Truth) -> dict[str, Tensor]:
        return detection_losses(*self._split(output), truth, self.image, self.scales, self.root, self.rescore)


HEADS: dict[str, type[YOLOHead] | type[RegionHead] | type[DetectionHead]] = {
    "yolo": YOLOHead,
    "region": RegionHead,
    "detection": DetectionHead,
}


def make_head(section: Section, shape: tuple[int, int, int], image: tuple[int, int]) -> Head:
    """Return the head of a section, for a map of a shape (C, H, W) and a network's input of height and width."""
    return HEADS[section.name](section, shape, image)


def _anchors(section: Section, count: int) -> list[tuple[float, float]]:
    anchors = section.numbers("anchors") or []
    if len(anchors) != 2 * count or min(anchors) <= 0:
        raise section.error(f"anchors must be {2 * count} positive numbers, two per num, got {anchors[:4]}", "anchors")
    if len(anchors) > 2 * _MOST_ANCHORS:
        raise section.error(f"anchors must be at most {_MOST_ANCHORS}, got {len(anchors) // 2}", "anchors")
    return list(zip(anchors[::2], anchors[1::2], strict=True))


def _check_channels(section: Section, shape: tuple[int, int, int], anchors: int, classes: int) -> int:
    """Return the number of boxes, or raise ValueError unless the map before has the right channels."""
    wanted = anchors * (5 + classes)
    if shape[0] != wanted:
        raise section.error(f"must follow a layer of {wanted} = {anchors} × (5 + {classes}) channels, got {shape[0]}")
    return anchors * shape[1] * shape[2]


def _scales(section: Section) -> list[float]:
    """Return the weights of the losses."""
    return [section.number(f"{name}_scale", 1) for name in ("coord", "object", "noobject", "class")]


def _by_box(output: Tensor, anchors: int) -> Tensor:
    """Return the values (N, H, W, A, 5 + classes) of a map."""
    values: Tensor = output.unflatten(1, (anchors, -1))
    return values.permute(0, 3, 4, 1, 2)


def _cells(height: int, width: int, like: Tensor) -> Tensor:
    """Return the columns and rows of cells (H, W, 1, 2)."""
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    columns = torch.arange(width, device=like.device, dtype=like.dtype)
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)[:, :, None]


def _step(values: Tensor, image: tuple[int, int]) -> Tensor:
    """Return width and height of a cell in pixels."""
    return values.new_tensor([image[1] / values.shape[2], image[0] / values.shape[1]])


def _corners(centres: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([centres - sizes / 2, centres + sizes / 2], -1).flatten(1, 3)
