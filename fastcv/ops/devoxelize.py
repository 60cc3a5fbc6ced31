"""Features of voxels, brought back to points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Operator
from fastcv.ops._voxels import FLOATING, Grid, as_contiguous, as_grid, as_rows, check_offsets, check_points

__all__ = ["devoxelize"]


def _accumulate(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _allocate_neighbors(
    coords: Tensor, points: Tensor, grid: Grid, offsets: Tensor | None, neighbors: int
) -> tuple[Tensor, Tensor]:
    check_points(points)
    check_offsets(offsets)
    if coords.dim() != 2:
        raise ValueError(f"coords must have shape (V, 4), rows of b, z, y, x, got {describe_shape(coords)}")
    torch._check_value(coords.shape[1] == 4, "coords must have shape (V, 4), rows of b, z, y, x".__str__)
    if coords.dtype is not torch.int32:
        raise TypeError(f"coords must be int32, got {coords.dtype}")
    shape = points.shape[0], neighbors
    return points.new_empty(shape, dtype=torch.int32), points.new_empty(shape, dtype=_accumulate(points.dtype))


def _forward_neighbors(
    coords: Tensor, points: Tensor, grid: Grid, offsets: Tensor | None, neighbors: int
) -> tuple[Tensor, Tensor]:
    indices, weights = _allocate_neighbors(coords, points, grid, offsets, neighbors)
    slots = 1 << (2 * coords.shape[0] + 31).bit_length()
    table = points.new_empty((12 * slots if points.is_cuda or not _C.has_cpu_kernels else 0,), dtype=torch.uint8)
    _C.voxel_neighbors(indices, weights, coords.contiguous(), as_rows(points), grid, as_contiguous(offsets), table)
    return indices, weights


def _allocate(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    if features.dim() != 2:
        raise ValueError(f"features must have shape (V, C), got {describe_shape(features)}")
    if features.dtype not in FLOATING:
        raise TypeError(f"features must be float16, bfloat16, float32 or float64, got {features.dtype}")
    return features.new_empty((indices.shape[0], features.shape[1]))


def _forward(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    output = _allocate(features, indices, weights)
    _C.devoxelize(
        output, as_contiguous(features), as_contiguous(indices), as_contiguous(weights.to(_accumulate(features.dtype)))
    )
    return output


def _allocate_transposed(grad: Tensor, indices: Tensor, weights: Tensor, voxels: int) -> Tensor:
    return grad.new_empty((voxels, grad.shape[1]))


def _forward_transposed(grad: Tensor, indices: Tensor, weights: Tensor, voxels: int) -> Tensor:
    output = _allocate_transposed(grad, indices, weights, voxels)
    order = starts = None
    if grad.is_cuda or not _C.has_cpu_kernels:
        voxel, order = indices.flatten().sort(stable=True)
        starts = torch.searchsorted(voxel.long(), torch.arange(voxels + 1, device=grad.device))
    _C.devoxelize_transposed(
        output,
        as_contiguous(grad),
        as_contiguous(indices),
        as_contiguous(weights.to(_accumulate(grad.dtype))),
        order,
        starts,
    )
    return output


_voxel_neighbors = Operator(
    "voxel_neighbors(Tensor coords, Tensor points, float[] grid, Tensor? offsets, int neighbors) -> (Tensor, Tensor)",
    forward=_forward_neighbors,
    fake=_allocate_neighbors,
)

# Given the weights the op is linear in the features.


def _adjoint(grad: Tensor, shape: Any, indices: Tensor, weights: Tensor) -> Any:
    return _devoxelize_transposed(grad, indices, weights, shape[0])


def _adjoint_transposed(grad: Tensor, shape: Any, indices: Tensor, weights: Tensor, voxels: int) -> Any:
    return _devoxelize(grad, indices, weights)


_devoxelize = Operator(
    "devoxelize(Tensor features, Tensor indices, Tensor weights) -> Tensor",
    forward=_forward,
    fake=_allocate,
    adjoint=_adjoint,
)

_devoxelize_transposed = Operator(
    "devoxelize_transposed(Tensor grad, Tensor indices, Tensor weights, SymInt voxels) -> Tensor",
    forward=_forward_transposed,
    fake=_allocate_transposed,
    adjoint=_adjoint_transposed,
)


def devoxelize(
    features: Tensor,
    coords: Tensor,
    points: Tensor,
    voxel_size: float | Sequence[float],
    point_cloud_range: Sequence[float],
    mode: str = "trilinear",
    offsets: Tensor | None = None,
) -> Tensor:
    """Bring features of voxels back to points.

    Parameters
    ----------
    features : Tensor (V, C)
        One row per voxel: float16, bfloat16, float32 or float64. Sums are kept in float32, or in float64 for float64.
    coords : Tensor (V, 4)
        int32: b, z, y, x of each voxel. Those outside the grid are never found, of equal ones the first is.
    points : Tensor (P, 3 or more)
        Rows of x, y, z and whatever else, as in :func:`voxel_ids`.
    voxel_size, point_cloud_range
        The grid, as in :func:`voxelize`.
    mode : {'nearest', 'trilinear'}
        The features of the voxel that a point lies in; or those of the eight voxels whose centres are around it,
        weighted trilinearly. Voxels that are not in ``coords`` are left out, and the other weights scaled to sum to
        one.
    offsets : Tensor (B + 1,), optional
        int64: several clouds behind each other, as in :func:`voxel_ids`.

    Returns
    -------
    Tensor (P, C)
        In the dtype of ``features``. Points outside the range, or with no voxel around them, get zeros.

    Raises
    ------
    ValueError
        For a tensor of another shape, another mode, sizes or a range that make no grid, or tensors on different
        devices.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode; the gradient is deterministic. ``points`` get none.

    References
    ----------
    Tang et al.: Searching Efficient 3D Architectures with Sparse Point-Voxel Convolution (2020), section 3.1.

    Examples
    --------
    >>> coords = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
    >>> points = torch.tensor([[0.75, 0.5, 0.5], [1.0, 0.5, 0.5]])
    >>> devoxelize(torch.tensor([[0.0], [8.0]]), coords, points, 1.0, [0, 0, 0, 2, 1, 1])
    tensor([[2.],
            [4.]])
    """
    check_tensor(features, "features")
    check_tensor(coords, "coords")
    check_tensor(points, "points")
    if offsets is not None:
        check_tensor(offsets, "offsets")
    if mode not in ("nearest", "trilinear"):
        raise ValueError(f"mode must be 'nearest' or 'trilinear', got {mode!r}")
    if features.device != points.device:
        raise ValueError(f"points must be on the device of features ({features.device}), got {points.device}")
    if features.dim() != 2:
        raise ValueError(f"features must have shape (V, C), got {describe_shape(features)}")
    torch._check_value(
        features.shape[0] == coords.shape[0] if coords.dim() > 0 else False,
        "features and coords must have the same number of rows".__str__,
    )
    grid = as_grid(voxel_size, point_cloud_range)
    indices, weights = _voxel_neighbors(coords, points, grid, offsets, 8 if mode == "trilinear" else 1)
    output: Tensor = _devoxelize(features, indices, weights)
    return output
