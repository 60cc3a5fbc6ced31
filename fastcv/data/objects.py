"""Targets under changes of their image: mirrored, scaled, cut, joined. Inputs are never changed in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv.data.dataset import Target
from fastcv.ops import masks_to_boxes

__all__ = [
    "GREY",
    "agreeing_boxes",
    "box_area",
    "boxes_of_masks",
    "cropped",
    "joined",
    "mirrored",
    "resized",
    "selected",
    "swap_pairs",
    "uniform",
]

GREY = 114 / 255  # where there is no image; the value that YOLO pads with
_OF_OBJECTS = ("boxes", "labels", "area", "iscrowd", "masks", "keypoints")


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Return a random number."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Return the boxes (N, 4) around masks, to the far side of the last pixels; zeros for empty masks."""
    there = masks.bool().flatten(1).any(1)
    edge = torch.tensor([0.0, 0.0, 1.0, 1.0], device=masks.device)  # masks_to_boxes counts to the near side
    boxes = torch.zeros(len(masks), 4, device=masks.device)
    boxes[there] = masks_to_boxes(masks[there]) + edge
    return boxes


def selected(target: Target, keep: Tensor) -> Target:
    """Return a target with some of the objects: ``keep`` is bool or indices."""
    return {name: value[keep] if name in _OF_OBJECTS else value for name, value in target.items()}


def joined(targets: Sequence[Target]) -> Target:
    """Return the objects of all targets; what else they hold is that of the first. Masks must have the same size."""
    first = targets[0]
    return {
        name: torch.cat([target[name] for target in targets]) if name in _OF_OBJECTS else value
        for name, value in first.items()
    }


def agreeing_boxes(boxes: Tensor, masks: Tensor) -> Tensor:
    """Return the boxes, but those around their masks where the two differ by more than a pixel."""
    around = boxes_of_masks(masks)
    return torch.where(((around - boxes).abs() > 1).any(1, keepdim=True), around, boxes)


def mirrored(image: Tensor, target: Target, keypoint_pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Target]:
    """Return image and target with left and right exchanged."""
    width = image.shape[2]
    target = dict(target)
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    target["boxes"] = torch.stack([width - x2, y1, width - x1, y2], 1)
    if "masks" in target:
        target["masks"] = target["masks"].flip(2)
    if "keypoints" in target:
        points = swap_pairs(target["keypoints"], keypoint_pairs)
        points[..., 0] = torch.where(points[..., 2] > 0, width - points[..., 0], points[..., 0])
        target["keypoints"] = points
    return image.flip(2), target


def swap_pairs(keypoints: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Return a copy of keypoints (N, K, 3) in which the two of each pair have changed places."""
    order = torch.arange(keypoints.shape[1])
    for first, second in pairs:
        order[first], order[second] = second, first
    return keypoints[:, order]


def resized(image: Tensor, target: Target, height: int, width: int) -> tuple[Tensor, Target]:
    """Return image and target in another size."""
    down, across = height / image.shape[1], width / image.shape[2]
    if (down, across) == (1, 1):
        return image, target
    image = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0].clamp(0, 1)
    target = dict(target)
    factors = torch.tensor([across, down, across, down], dtype=torch.float64)
    target["boxes"] = (target["boxes"] * factors).float()
    if "area" in target:
        target["area"] = (target["area"].double() * (down * across)).float()
    if "masks" in target:
        masks = target["masks"]
        scaled = F.interpolate(masks[None], (height, width), mode="nearest-exact")[0] if len(masks) else None
        target["masks"] = masks.new_zeros(0, height, width) if scaled is None else scaled
    if "keypoints" in target:
        points = target["keypoints"].clone()
        points[..., :2] = (points[..., :2] * factors[:2]).float()
        target["keypoints"] = points
    if "masks" in target:
        target["boxes"] = agreeing_boxes(target["boxes"], target["masks"])
        return image, selected(target, box_area(target["boxes"]) > 0)  # thin masks can fall between the pixels
    return image, target


def cropped(
    image: Tensor, target: Target, top: int, left: int, height: int, width: int, least_visible: float
) -> tuple[Tensor, Target]:
    """Return a window of image and target, with a grey border where the window reaches out of the image."""
    padding = (-left, left + width - image.shape[2], -top, top + height - image.shape[1])
    image = F.pad(image, padding, value=GREY)  # what is negative cuts off
    target = dict(target)
    shift = torch.tensor([left, top, left, top], dtype=torch.float32)
    before = target["boxes"] - shift
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = before.clamp(min=0).minimum(limits)
    cut = (boxes != before).any(1)
    share = box_area(boxes) / box_area(before).clamp(min=1e-9)
    if "masks" in target:
        pixels = target["masks"].flatten(1).sum(1)
        target["masks"] = F.pad(target["masks"], padding)
        share = target["masks"].flatten(1).sum(1) / pixels.clamp(min=1)
        boxes = torch.where(cut[:, None], boxes_of_masks(target["masks"]), boxes)
    target["boxes"] = boxes
    if "area" in target:
        target["area"] = torch.where(cut, target["area"] * share, target["area"])
    if "keypoints" in target:
        target["keypoints"] = inside(target["keypoints"] - torch.tensor([left, top, 0.0]), height, width)
    visible = (box_area(boxes) > 0) & (~cut | ((share >= least_visible) & (share > 0)))
    return image, selected(target, visible)


def inside(keypoints: Tensor, height: int, width: int) -> Tensor:
    """Return keypoints, with zeros for those that are not in the image or were not annotated."""
    x, y, visible = keypoints.unbind(2)
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (visible > 0)
    return torch.where(there[..., None], keypoints, torch.zeros_like(keypoints))


def box_area(boxes: Tensor) -> Tensor:
    """Return the areas of boxes, 0 for those without any."""
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
