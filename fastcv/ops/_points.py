"""Checks of point clouds that several operators share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_tensor, describe_shape

_INTEGERS = (int, torch.SymInt)


def check_cloud(cloud: Tensor, name: str, meaning: str) -> None:
    """Raise ValueError unless ``cloud`` is (B, N, 3)."""
    shape = cloud.shape
    if len(shape) != 3 or shape[2] != 3:
        raise ValueError(f"{name} must have shape {meaning}, got {describe_shape(cloud)}")


def check_clouds(query: Tensor, points: Tensor) -> None:
    """Raise ValueError unless both are clouds, and as many."""
    check_cloud(points, "points", "(B, N, 3)")
    check_cloud(query, "query", "(B, Q, 3)")
    if query.shape[0] != points.shape[0]:
        raise ValueError(f"query must have as many clouds as points ({points.shape[0]}), got {query.shape[0]}")


def check_count(value: Any, name: str, least: int) -> None:
    """Raise TypeError or ValueError unless ``value`` is an integer of at least ``least``."""
    if type(value) is int:
        if value >= least:
            return
    elif not isinstance(value, _INTEGERS) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def as_lengths(lengths: Tensor | None, name: str) -> Tensor | None:
    """Return the lengths of clouds as a contiguous int64 tensor."""
    if lengths is None:
        return None
    check_tensor(lengths, name)
    if lengths.dim() != 1:
        raise ValueError(f"{name} must have shape (B,), got {describe_shape(lengths)}")
    return as_indices(lengths, name)


def as_indices(indices: Tensor, name: str) -> Tensor:
    """Return int32 or int64 ``indices`` as int64."""
    if indices.dtype is torch.int64:
        return indices
    if indices.dtype is not torch.int32:
        raise TypeError(f"{name} must be int64 or int32, got {indices.dtype}")
    return indices.long()


def contiguous(tensor: Tensor | None) -> Tensor | None:
    """Return the tensor, copied when it is not contiguous, or None."""
    return tensor if tensor is None or tensor.is_contiguous() else tensor.contiguous()
