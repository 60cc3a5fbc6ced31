"""Checks and conversions of arguments that several operators share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_INTEGERS = (int, torch.SymInt)


def check_tensor(value: Any, name: str) -> None:
    """Raise TypeError unless ``value`` is a tensor."""
    if type(value) is not Tensor and not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def as_pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Return ``value`` as two positive integers (height, width); one integer stands for both."""
    if type(value) is int and value > 0:
        return value, value
    if isinstance(value, _INTEGERS):
        pair = (value, value)
    else:
        try:
            height, width = value
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be an int or two ints (height, width), got {value!r}") from None
        pair = (height, width)
    for side in pair:
        if not isinstance(side, _INTEGERS):
            raise TypeError(f"{name} must be an int or two ints (height, width), got {value!r}")
        if side <= 0:
            raise ValueError(f"{name} must be positive, got {value!r}")
    return pair


def describe_shape(tensor: Tensor) -> str:
    """Return the shape as people write it."""
    return str(tuple(tensor.shape))


def as_rois(boxes: Tensor | Sequence[Tensor], input: Tensor) -> Tensor:
    """Return boxes as one (K, 5) tensor: a sequence of (L, 4) tensors, one per image, gets its batch index column."""
    return boxes if type(boxes) is Tensor or isinstance(boxes, Tensor) else _concatenate_boxes(boxes, input)


def _concatenate_boxes(boxes: Sequence[Tensor], input: Tensor) -> Tensor:
    if not isinstance(boxes, list | tuple):
        raise TypeError(f"boxes must be a (K, 5) tensor or a list of (L, 4) tensors, got {type(boxes).__name__}")
    if len(boxes) != input.shape[0]:
        raise ValueError(f"boxes must be one tensor per image: input has {input.shape[0]} images, boxes {len(boxes)}")
    rows = []
    for index, image_boxes in enumerate(boxes):
        check_tensor(image_boxes, f"boxes[{index}]")
        if image_boxes.dim() != 2 or image_boxes.shape[1] != 4:
            raise ValueError(f"boxes[{index}] must have shape (L, 4), got {describe_shape(image_boxes)}")
        if not image_boxes.dtype.is_floating_point:
            raise TypeError(f"boxes[{index}] must be of a floating dtype, got {image_boxes.dtype}")
        if image_boxes.dtype in (torch.float16, torch.bfloat16):
            image_boxes = image_boxes.float()  # a half cannot hold every batch index
        rows.append(torch.nn.functional.pad(image_boxes, (1, 0), value=float(index)))
    return torch.cat(rows) if rows else input.new_empty(0, 5, dtype=torch.float32)


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a 4-D tensor keeps its channels next to each other, and is not contiguous as well."""
    return not tensor.is_contiguous() and tensor.stride(1) == 1


# What compiled graphs allocate with: a third of the time of new_empty_strided. Private to torch, so it may be missing.
_empty_strided_cpu: Any = getattr(getattr(torch._C._dynamo, "guards", None), "_empty_strided_cpu", None)


def new_strided(like: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor on the device of ``like``."""
    if like.is_cpu and type(like) is Tensor and _empty_strided_cpu is not None:
        made: Tensor = _empty_strided_cpu(shape, strides, dtype)
        return made
    return like.new_empty_strided(shape, strides, dtype=dtype)


def new_matrix(like: Tensor, rows: int, columns: int) -> Tensor:
    """Return an uninitialised contiguous matrix of the dtype and device of ``like``."""
    return new_strided(like, (rows, columns), (columns, 1), like.dtype)


def new_dense(like: Tensor, n: int, c: int, h: int, w: int) -> Tensor:
    """Return an uninitialised (n, c, h, w) tensor of the dtype, device and layout of ``like``."""
    if like.is_contiguous() or like.stride(1) != 1:
        return new_strided(like, (n, c, h, w), (c * h * w, h * w, w, 1), like.dtype)
    return new_strided(like, (n, c, h, w), (h * w * c, 1, w * c, c), like.dtype)


def new_pooled(input: Tensor, boxes: Tensor, height: int, width: int, bins: int = 1) -> Tensor:
    """Return an uninitialised (K, C / bins, height, width) tensor for features (N, C, H, W) and boxes (K, 5).

    Raises ValueError for other shapes. For tensors without memory; the bindings do this for the others.
    """
    shape, rois = input.shape, boxes.shape
    if len(shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {describe_shape(input)}")
    if len(rois) != 2 or rois[1] != 5:
        raise ValueError(
            "boxes must have shape (K, 5), rows of batch index, x1, y1, x2, y2 (or be a list of (L, 4) tensors, one "
            f"per image), got {describe_shape(boxes)}"
        )
    if boxes.dtype.itemsize > max(input.dtype.itemsize, 4) or not boxes.dtype.is_floating_point:
        wanted = torch.promote_types(input.dtype, torch.float32)
        raise TypeError(f"boxes must be of a floating dtype not wider than {wanted}, got {boxes.dtype}")
    channels = shape[1]
    if bins != 1:
        if channels % bins:
            raise ValueError(
                f"input must have channels divisible by the {height} * {width} bins of output_size, got {channels} "
                "channels"
            )
        channels //= bins
    return new_dense(input, rois[0], channels, height, width)


def as_dense(tensor: Tensor) -> Tensor:
    """Return a 4-D tensor that is contiguous or channels_last, copying only when it is neither."""
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.contiguous()


def as_result_layout(tensor: Tensor) -> Tensor:
    """Return a 4-D tensor in the layout that :func:`new_dense` gives a result like it, copying only when it must."""
    if tensor.is_contiguous():
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last if tensor.stride(1) == 1 else torch.contiguous_format)


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` names one."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """Return the loss, its mean (zero for no elements) or its sum."""
    if reduction == "none":
        return loss
    if reduction == "mean" and loss.numel() > 0:
        return loss.mean()
    return loss.sum()
