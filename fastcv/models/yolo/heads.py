"""The heads of YOLO's versions: from maps to boxes and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from fastcv.models.yolo.config import Section
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
        self.stretch = section.number("scale_x_y", 1)
        self.image = image
        self.boxes = _check_channels(section, shape, len(mask), self.classes)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        values, cells = _by_box(output, len(self.anchors))
        step = _step(output, self.image)
        shift = (self.stretch - 1) / 2
        centres = (values[..., :2].sigmoid() * self.stretch - shift + cells) * step
        sizes = values[..., 2:4].exp() * values.new_tensor(self.anchors)
        scores = values[..., 4:5].sigmoid() * values[..., 5:].sigmoid()
        return _corners(centres, sizes), scores.flatten(1, 3)

    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return decode_yolo(output, self.anchors, self.image, threshold, capacity, scale_xy=self.stretch)


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
        self.image = image
        self.boxes = _check_channels(section, shape, count, self.classes)

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        values, cells = _by_box(output, len(self.anchors))
        step = _step(output, self.image)
        centres = (values[..., :2].sigmoid() + cells) * step
        sizes = values[..., 2:4].exp() * values.new_tensor(self.anchors) * step
        classes = values[..., 5:].softmax(-1) if self.softmax else values[..., 5:].sigmoid()
        return _corners(centres, sizes), (values[..., 4:5].sigmoid() * classes).flatten(1, 3)

    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        across, down = self.image[1] / output.shape[-1], self.image[0] / output.shape[-2]
        anchors = [(width * across, height * down) for width, height in self.anchors]
        return decode_yolo(output, anchors, self.image, threshold, capacity, softmax=self.softmax)


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
        self.image = image
        self.boxes = side * side * self.count
        wanted, numbers = side * side * (self.classes + 5 * self.count), shape[0] * shape[1] * shape[2]
        if numbers != wanted:
            raise section.error(f"must follow a layer of {wanted} numbers, got {numbers}")

    def decode(self, output: Tensor) -> tuple[Tensor, Tensor]:
        images, side, cells = len(output), self.side, self.side * self.side
        classes, confidences, boxes = output.flatten(1).split(
            [cells * self.classes, cells * self.count, cells * self.count * 4], dim=1
        )
        classes = classes.reshape(images, cells, 1, self.classes)
        if self.softmax:
            classes = classes.softmax(-1)
        scores = confidences.reshape(images, cells, self.count, 1) * classes
        boxes = boxes.reshape(images, side, side, self.count, 4)
        whole = boxes.new_tensor([self.image[1], self.image[0]])
        centres = (boxes[..., :2] + _cells(side, side, boxes)) / side * whole
        sizes = (boxes[..., 2:].square() if self.root else boxes[..., 2:].clamp(min=0)) * whole
        return _corners(centres, sizes), scores.flatten(1, 2)

    def candidates(self, output: Tensor, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        options = (self.side, self.count, self.image, threshold, capacity, self.softmax, self.root)
        return decode_yolo_v1(output.flatten(1), *options)


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


def _by_box(output: Tensor, anchors: int) -> tuple[Tensor, Tensor]:
    """Return the values (N, H, W, A, 5 + classes) of a map, and the columns and rows of its cells (H, W, 1, 2)."""
    height, width = output.shape[-2:]
    values = output.unflatten(1, (anchors, -1)).permute(0, 3, 4, 1, 2)
    return values, _cells(height, width, values)


def _cells(height: int, width: int, like: Tensor) -> Tensor:
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    columns = torch.arange(width, device=like.device, dtype=like.dtype)
    return torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], -1)[:, :, None]


def _step(output: Tensor, image: tuple[int, int]) -> Tensor:
    """Return width and height of a cell in pixels."""
    return output.new_tensor([image[1] / output.shape[-1], image[0] / output.shape[-2]])


def _corners(centres: Tensor, sizes: Tensor) -> Tensor:
    return torch.cat([centres - sizes / 2, centres + sizes / 2], -1).flatten(1, 3)
