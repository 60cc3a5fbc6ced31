"""Checks and conversions of arguments that several operators share."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Proxy

_INT_LIMIT = 2**63
_PLAIN_NUMBERS = frozenset({float, int})


def check_tensor(value: Any, name: str) -> None:
    """Raise TypeError unless ``value`` is a dense tensor, or what stands for one in ``torch.fx``."""
    if type(value) is not Tensor and not isinstance(value, Tensor | Proxy):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided and isinstance(value, Tensor):
        raise TypeError(f"{name} must be a dense tensor, got one of layout {value.layout}")


def check_numbers(value: Any, name: str) -> None:
    """Raise TypeError unless ``value`` is such a tensor, and an array of numbers.

    That is asked for once a call did not go the plain way: it takes as long as :func:`check_tensor` again.
    """
    check_tensor(value, name)
    if isinstance(value, Tensor) and (value.is_quantized or value.is_nested):
        kind = str(value.dtype).replace("torch.", "quantized one of dtype ") if value.is_quantized else "nested one"
        raise TypeError(f"{name} must be a dense tensor, got a {kind}")


def as_int(value: Any, name: str) -> Any:
    """Return an integer of any type, numpy's too, as an int (or the symbol that a trace has for one)."""
    if isinstance(value, torch.SymInt | Proxy):
        return value
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):  # torch raises RuntimeError for a tensor without memory
        raise TypeError(f"{name} must be an int, got {_show(value)}") from None
    if not -_INT_LIMIT <= number < _INT_LIMIT:
        raise ValueError(f"{name} must be an int of 64 bits, got {number}")
    return number


def as_float(value: Any, name: str) -> Any:
    """Return a real number of any type, numpy's and tensors of one element too, as a float."""
    if isinstance(value, torch.SymFloat | Proxy):
        return value
    if isinstance(value, str | bytes) or (not hasattr(value, "__float__") and not hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a float, got {_show(value)}")
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a float, got {_show(value)}") from None
    except OverflowError:
        raise ValueError(f"{name} must be in the range of a float, got {_show(value)}") from None


def as_bool(value: Any, name: str) -> Any:
    """Return True or False, numpy's or 0 and 1 too, as a bool."""
    if isinstance(value, torch.SymBool | Proxy):
        return value
    try:
        if value in (0, 1):  # False and True are 0 and 1
            return bool(value)
    except (TypeError, ValueError, RuntimeError):  # such as a tensor of more than one element
        pass
    raise TypeError(f"{name} must be a bool, got {_show(value)}")


def as_ints(value: Any, count: int, name: str, least: int, axes: str = "") -> tuple[int, ...]:
    """Return ``count`` integers, none below ``least``; one integer, or a sequence of one, stands for all.

    ``axes`` says in errors what they are, as in "(height, width)".
    """
    if type(value) is int and least <= value < _INT_LIMIT:
        return (value,) * count
    given: tuple[Any, ...]
    try:
        given = tuple(value)
    except TypeError:
        given = (value,)
    if len(given) == 1:
        given *= count
    try:
        ints = tuple(as_int(element, name) for element in given)
    except TypeError:
        ints = ()
    if len(ints) != count:
        expected = "an int" if count == 1 else f"an int or {_COUNTS.get(count, count)} ints{axes and ' ' + axes}"
        raise TypeError(f"{name} must be {expected}, got {_show(value)}")
    for element in ints:
        if element < least:
            expected = {0: "at least 0", 1: "positive"}.get(least, f"at least {least}")
            raise ValueError(f"{name} must be {expected}, got {_show(value)}")
    return ints


_COUNTS = {2: "two", 3: "three"}


def as_pair(value: Any, name: str) -> tuple[int, int]:
    """Return ``value`` as two positive integers (height, width); one integer stands for both."""
    if type(value) is int and 0 < value < _INT_LIMIT:
        return value, value
    height, width = as_ints(value, 2, name, 1, "(height, width)")
    return height, width


def as_size(value: Any, name: str) -> tuple[int, int]:
    """Return a pair of integers (height, width), which no single integer stands for."""
    if type(value) is tuple and len(value) == 2:
        height, width = value
        if type(height) is int and type(width) is int and 0 <= height < _INT_LIMIT and 0 <= width < _INT_LIMIT:
            return value
    try:
        sides = tuple(as_int(side, name) for side in value)
    except TypeError:
        sides = ()
    if len(sides) != 2:
        raise TypeError(f"{name} must be two ints (height, width), got {_show(value)}")
    height, width = sides
    return height, width


def as_floats(value: Any, count: int, name: str, axes: str = "", one_for_all: bool = False) -> tuple[float, ...]:
    """Return a sequence of ``count`` real numbers as floats; if ``one_for_all``, one number stands for all.

    ``axes`` says in errors what they are, as in "(x, y, z)".
    """
    if type(value) is tuple and len(value) == count and {*map(type, value)} == {float}:
        return value
    given: tuple[Any, ...]
    if one_for_all and type(value) in _PLAIN_NUMBERS:
        given = (value,) * count
    else:
        try:
            given = tuple(value)
        except TypeError:  # not a sequence
            given = (value,) * count if one_for_all else ()
    if len(given) == count:
        try:
            if {*map(type, given)} <= _PLAIN_NUMBERS:
                return tuple(map(float, given))
            return tuple(as_float(element, name) for element in given)
        except (TypeError, OverflowError):
            pass
    expected = f"{'a float or ' if one_for_all else ''}{count} floats{axes and ' ' + axes}"
    raise TypeError(f"{name} must be {expected}, got {_show(value)}")


def _show(value: Any) -> str:
    """Return a value as errors show it: short, whatever it is."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {describe_shape(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}... ({type(value).__name__})"


def describe_shape(tensor: Tensor) -> str:
    """Return the shape as people write it."""
    return str(tuple(tensor.shape))


def as_rois(boxes: Tensor | Sequence[Tensor], input: Tensor, numbers: int = 4) -> Tensor:
    """Return boxes as one (K, 5) tensor: a sequence of (L, 4) tensors, one per image, gets its batch index column.

    ``numbers`` is how many there are to a box: 4, or 5 for rotated boxes.
    """
    return boxes if type(boxes) is Tensor or isinstance(boxes, Tensor) else _concatenate_boxes(boxes, input, numbers)


def _concatenate_boxes(boxes: Sequence[Tensor], input: Tensor, numbers: int) -> Tensor:
    if not isinstance(boxes, list | tuple):
        expected = f"a (K, {numbers + 1}) tensor or a list of (L, {numbers}) tensors"
        raise TypeError(f"boxes must be {expected}, got {type(boxes).__name__}")
    check_tensor(input, "input")
    images = input.shape[0] if input.dim() else 0
    if len(boxes) != images:
        raise ValueError(f"boxes must be one tensor per image: input has {images} images, boxes {len(boxes)}")
    rows = []
    for index, image_boxes in enumerate(boxes):
        check_tensor(image_boxes, f"boxes[{index}]")
        if image_boxes.dim() != 2 or image_boxes.shape[1] != numbers:
            raise ValueError(f"boxes[{index}] must have shape (L, {numbers}), got {describe_shape(image_boxes)}")
        if not image_boxes.dtype.is_floating_point:
            raise TypeError(f"boxes[{index}] must be of a floating dtype, got {image_boxes.dtype}")
        if image_boxes.dtype in (torch.float16, torch.bfloat16):
            image_boxes = image_boxes.float()  # a half cannot hold every batch index
        rows.append(torch.nn.functional.pad(image_boxes, (1, 0), value=float(index)))
    return torch.cat(rows) if rows else input.new_empty(0, numbers + 1, dtype=torch.float32)


def new_dense(like: Tensor, n: int, c: int, *sizes: int) -> Tensor:
    """Return an (n, c, *sizes) tensor of the dtype, device and layout of ``like``, for a fake: without values."""
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    step = c if channels_last else 1
    strides: tuple[int, ...] = ()
    for size in reversed(sizes):
        strides = (step, *strides)
        step *= size
    strides = (step, 1, *strides) if channels_last else (c * step, step, *strides)
    return like.new_empty_strided((n, c, *sizes), strides)


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` names one."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")
