"""Validation of a detector's images and training targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.detection.roi_heads import RoIHeads

__all__ = ["check_boxes_and_labels", "check_images", "check_targets"]


def check_images(images: Any, channels: int, standard: bool) -> None:
    """Raise TypeError or ValueError for images that a detector does not accept.

    ``standard`` says that values must be between 0 and 1. This is checked on a CPU only, with a margin for the
    overshoot of resampling filters.
    """
    if not isinstance(images, list | tuple):
        raise TypeError(f"images must be a list of tensors (C, H, W), got {type(images).__name__}")
    if not images:
        raise ValueError("images must hold at least one image")
    for index, image in enumerate(images):
        name = f"images[{index}]"
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(image).__name__}")
        if image.dim() != 3 or image.shape[0] != channels:
            raise ValueError(f"{name} must have shape ({channels}, H, W), got {tuple(image.shape)}")
        if not image.is_floating_point():
            raise TypeError(f"{name} must be floating, with values 0 to 1, got {image.dtype}")
        if image.shape[1] == 0 or image.shape[2] == 0:
            raise ValueError(f"{name} must not be empty, got {tuple(image.shape)}")
        if image.device != images[0].device or image.dtype is not images[0].dtype:
            raise ValueError(
                f"{name} must have the dtype and device of images[0] ({images[0].dtype}, {images[0].device}), got "
                f"{image.dtype}, {image.device}"
            )
        if standard and image.is_cpu and not torch.compiler.is_compiling():
            low, high = (bound.item() for bound in image.aminmax())
            if not (low >= -0.5 and high <= 1.5):  # written so that NaN fails
                raise ValueError(f"{name} must have values 0 to 1, got {low:.4g} to {high:.4g}")


def check_targets(targets: Any, images: Sequence[Tensor], heads: RoIHeads) -> None:
    """Raise TypeError, ValueError or KeyError for targets that do not fit the images or the model.

    On a GPU this synchronises once per image, as torchvision's checks do.
    """
    check_boxes_and_labels(targets, images, 1, _classes(heads))
    for index, (target, image) in enumerate(zip(targets, images, strict=True)):
        name = f"targets[{index}]"
        count = len(target["boxes"])
        if heads.has_mask():
            masks = _get(target, "masks", name)
            if masks.shape != (count, *image.shape[-2:]) and not _is_nothing(masks, count):
                raise ValueError(
                    f"{name}['masks'] must have shape {(count, *image.shape[-2:])}, got {tuple(masks.shape)}"
                )
        if heads.has_keypoint():
            _check_keypoints(target, name, count, heads.keypoint_predictor)


def check_boxes_and_labels(targets: Any, images: Sequence[Tensor], first_label: int, classes: int | None) -> None:
    """Raise TypeError, ValueError or KeyError unless each image has boxes that overlap it, with labels.

    Labels are from ``first_label``, 1 where 0 is the background, to ``classes - 1``; of any number for None.
    """
    if not isinstance(targets, list | tuple):
        raise TypeError(f"targets must be a list of dictionaries, got {type(targets).__name__}")
    if len(targets) != len(images):
        raise ValueError(f"targets must have one dictionary per image ({len(images)}), got {len(targets)}")
    for index, (target, image) in enumerate(zip(targets, images, strict=True)):
        name = f"targets[{index}]"
        if not isinstance(target, dict):
            raise TypeError(f"{name} must be a dictionary, got {type(target).__name__}")
        _check_boxes(target, name, image)
        _check_labels(target, name, first_label, classes)


def _get(target: dict[str, Any], key: str, name: str) -> Tensor:
    if key not in target:
        raise KeyError(f"{name} must have {key!r}, has {sorted(target)}")
    value = target[key]
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}[{key!r}] must be a torch.Tensor, got {type(value).__name__}")
    return value


def _is_nothing(value: Tensor, count: int) -> bool:
    """Whether an image without objects has nothing of a kind, in whatever shape, as torchvision takes it."""
    return count == 0 and value.numel() == 0


def _classes(heads: RoIHeads) -> int | None:
    score = getattr(heads.box_predictor, "cls_score", None)
    return score.out_features if isinstance(score, nn.Linear) else None


def _check_boxes(target: dict[str, Any], name: str, image: Tensor) -> None:
    boxes = _get(target, "boxes", name)
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name}['boxes'] must have shape (N, 4), got {tuple(boxes.shape)}")
    if boxes.dtype is torch.bool or boxes.is_complex():  # integers become floating when the image is resized
        raise TypeError(f"{name}['boxes'] must be numbers, got {boxes.dtype}")
    low, high = boxes[:, :2], boxes[:, 2:]
    flat = ~(boxes.isfinite().all(1) & (high > low).all(1))
    height, width = image.shape[-2:]
    outside = (high <= 0).any(1) | (low[:, 0] >= width) | (low[:, 1] >= height)
    if not bool((flat | outside).any()):
        return
    for which, what in ((flat, "have finite corners, x1 < x2 and y1 < y2"), (outside, "overlap the image")):
        wrong = torch.where(which)[0].tolist()
        if wrong:
            raise ValueError(
                f"{name}['boxes'] must {what}; box {wrong[0]} is {boxes[wrong[0]].tolist()}, the image {width}x{height}"
            )


def _check_labels(target: dict[str, Any], name: str, first: int, classes: int | None) -> None:
    labels, count = _get(target, "labels", name), len(target["boxes"])
    if labels.dtype is not torch.int64:
        raise TypeError(f"{name}['labels'] must be int64, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"{name}['labels'] must have shape ({count},), one per box, got {tuple(labels.shape)}")
    if classes is not None and count:
        low, high = torch.stack(labels.aminmax()).tolist()
        if low < first or high >= classes:
            background = " (0 is the background)" if first else ""
            raise ValueError(
                f"{name}['labels'] must be {first} to {classes - 1}{background}, got {low if low < first else high}"
            )


def _check_keypoints(target: dict[str, Any], name: str, count: int, predictor: nn.Module | None) -> None:
    keypoints = _get(target, "keypoints", name)
    wanted = (count, getattr(predictor, "out_channels", keypoints.shape[1] if keypoints.dim() > 1 else 0), 3)
    if keypoints.shape != wanted and not _is_nothing(keypoints, count):
        raise ValueError(f"{name}['keypoints'] must have shape {wanted}, got {tuple(keypoints.shape)}")
    if not keypoints.is_floating_point():
        raise TypeError(f"{name}['keypoints'] must be floating, got {keypoints.dtype}")
