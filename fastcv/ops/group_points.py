"""Features of points gathered by index, and weighted sums of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Operator
from fastcv.ops._points import as_indices, contiguous

__all__ = ["group_points", "three_interpolate"]


def _check(features: Tensor, indices: Tensor, weights: Tensor | None, name: str) -> None:
    if features.dim() != 3:
        raise ValueError(f"{name} must have shape {_MEANING[name]}, got {describe_shape(features)}")
    rank, meaning = (2, "(B, P)") if weights is None else (3, "(B, P, K)")
    if indices.dim() != rank or indices.shape[0] != features.shape[0]:
        raise ValueError(
            f"indices must have shape {meaning} with B = {features.shape[0]} as in {name}, got "
            f"{describe_shape(indices)}"
        )
    if weights is not None and weights.shape != indices.shape:
        raise ValueError(
            f"weights must have the shape of indices {tuple(indices.shape)}, got {describe_shape(weights)}"
        )


_MEANING = {"features": "(B, N, C)", "grad_output": "(B, P, C)"}


def _new(like: Tensor, batch: int, rows: int, channels: int) -> Tensor:
    return like.new_empty_strided((batch, rows, channels), (rows * channels, channels, 1))


def _allocate(features: Tensor, indices: Tensor, weights: Tensor | None = None) -> Tensor:
    _check(features, indices, weights, "features")
    return _new(features, features.shape[0], indices.shape[1], features.shape[2])


def _forward(features: Tensor, indices: Tensor, weights: Tensor | None = None) -> Tensor:
    output = _allocate(features, indices, weights)
    _C.group_points_forward(output, features.contiguous(), indices.contiguous(), contiguous(weights))
    return output


def _allocate_gradient(grad_output: Tensor, indices: Tensor, weights: Tensor | None, count: int) -> Tensor:
    _check(grad_output, indices, weights, "grad_output")
    return _new(grad_output, grad_output.shape[0], count, grad_output.shape[2])


def _forward_gradient(grad_output: Tensor, indices: Tensor, weights: Tensor | None, count: int) -> Tensor:
    grad_features = _allocate_gradient(grad_output, indices, weights, count)
    rows = order = None
    if grad_output.is_cuda or not _C.has_cpu_kernels:
        rows, order = _sorted_entries(indices, count)
    _C.group_points_backward(
        grad_features, grad_output.contiguous(), indices.contiguous(), contiguous(weights), rows, order
    )
    return grad_features


def _sorted_entries(indices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the row of all clouds that each entry takes (-1 for none), sorted, and the entries in that order."""
    flat = indices.flatten(1)
    first = torch.arange(0, flat.shape[0] * count, max(count, 1), device=flat.device)[: flat.shape[0], None]
    rows = torch.where((flat >= 0) & (flat < count), flat + first, -1) if count else torch.full_like(flat, -1)
    sorted_rows, order = rows.flatten().sort(stable=True)
    return sorted_rows, order


# The op is linear in the features, and each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shape: Any, indices: Tensor, weights: Tensor | None = None) -> Any:
    return _group_points_backward(grad_output, indices, weights, shape[1])


def _adjoint_gradient(grad: Tensor, shape: Any, indices: Tensor, weights: Tensor | None, *_: Any) -> Any:
    return _group_points(grad, indices, weights)


_group_points = Operator(
    "group_points(Tensor features, Tensor indices, Tensor? weights) -> Tensor",
    forward=_forward,
    fake=_allocate,
    adjoint=_adjoint,
)

_group_points_backward = Operator(
    "group_points_backward(Tensor grad_output, Tensor indices, Tensor? weights, SymInt count) -> Tensor",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    adjoint=_adjoint_gradient,
)


def group_points(features: Tensor, indices: Tensor) -> Tensor:
    """Gather the features of points by index, as of the neighbours that :func:`knn` or :func:`ball_query` found.

    Parameters
    ----------
    features : Tensor (B, N, C)
        Features of the points, or their coordinates: float16, bfloat16, float32 or float64. Channels come last.
    indices : Tensor (B, ...), int64 or int32
        Indices into the cloud, such as (B, Q, k); -1 for no point.

    Returns
    -------
    Tensor (B, ..., C)
        ``features[b, indices[b, ...]]``; zeros for -1.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or an index outside of [-1, N). On CUDA, where
        looking would cost a synchronisation, such an index gives zeros.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode. The gradient sums in a fixed order, without atomics: the
    same bits on every run.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.2, "Grouping layer".

    Examples
    --------
    >>> group_points(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[1, -1]]))
    tensor([[[3., 4.],
             [0., 0.]]])
    """
    check_tensor(features, "features")
    check_tensor(indices, "indices")
    indices = as_indices(indices, "indices")
    if indices.dim() == 2:
        grouped: Tensor = _group_points(features, indices, None)
        return grouped
    if indices.dim() < 2:
        raise ValueError(f"indices must have shape (B, ...) of at least two axes, got {describe_shape(indices)}")
    grouped = _group_points(features, indices.flatten(1), None)
    return grouped.view(*indices.shape, features.shape[2])


def three_interpolate(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Interpolate features from three (or any number of) known points each.

    Parameters
    ----------
    features : Tensor (B, M, C)
        Features of the known points: float16, bfloat16, float32 or float64. Channels come last.
    indices : Tensor (B, N, K), int64 or int32
        The known points of each of the N wanted ones, in PointNet++ the three nearest; -1 for no point.
    weights : Tensor (B, N, K)
        Their weights, of any floating dtype, used in float32 (float64 when ``features`` is float64); in PointNet++ the
        inverse squared distances, normalised to sum one.

    Returns
    -------
    Tensor (B, N, C)
        ``sum_j weights[b, n, j] * features[b, indices[b, n, j]]``, summed in float32 (float64 for float64) in the order
        of j.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or an index outside of [-1, M). On CUDA, where
        looking would cost a synchronisation, such an index counts as -1.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode; the gradient is deterministic. ``weights`` get no
    gradient.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.4, equation 2.

    Examples
    --------
    >>> features = torch.tensor([[[0.0], [10.0]]])
    >>> three_interpolate(features, torch.tensor([[[0, 1, -1]]]), torch.tensor([[[0.25, 0.75, 0.0]]]))
    tensor([[[7.5000]]])
    """
    check_tensor(features, "features")
    check_tensor(indices, "indices")
    check_tensor(weights, "weights")
    indices = as_indices(indices, "indices")
    dtype = weights.dtype
    wide = torch.float64 if features.dtype is torch.float64 else torch.float32
    if dtype is not wide:
        if not dtype.is_floating_point:
            raise TypeError(f"weights must be of a floating dtype, got {dtype}")
        weights = weights.to(wide)
    output: Tensor = _group_points(features, indices, weights)
    return output
