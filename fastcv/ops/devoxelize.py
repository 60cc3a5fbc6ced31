"""Features of voxels, brought back to points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import define
from fastcv.ops._voxels import Grid, as_grid

__all__ = ["devoxelize"]


def _fake_neighbors(
    coords: Tensor, points: Tensor, grid: Grid, offsets: Tensor | None, neighbors: int
) -> tuple[Tensor, Tensor]:
    shape = points.shape[0], neighbors
    wide = torch.float64 if points.dtype is torch.float64 else torch.float32
    return points.new_empty(shape, dtype=torch.int32), points.new_empty(shape, dtype=wide)


def _fake(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    return features.new_empty((indices.shape[0], features.shape[1]))


def _fake_transposed(grad: Tensor, indices: Tensor, weights: Tensor, voxels: int) -> Tensor:
    return grad.new_empty((voxels, grad.shape[1]))


_voxel_neighbors = define(
    "voxel_neighbors(Tensor coords, Tensor points, float[] grid, Tensor? offsets, int neighbors) -> (Tensor, Tensor)",
    fake=_fake_neighbors,
)

# Given the weights the op is linear in the features.


def _adjoint(grad: Tensor, shape: Any, indices: Tensor, weights: Tensor) -> Any:
    return _devoxelize_transposed(grad, indices, weights, shape[0])


def _adjoint_transposed(grad: Tensor, shape: Any, indices: Tensor, weights: Tensor, voxels: int) -> Any:
    return _devoxelize(grad, indices, weights)


_devoxelize = define(
    "devoxelize(Tensor features, Tensor indices, Tensor weights) -> Tensor",
    fake=_fake,
    adjoint=_adjoint,
)

_devoxelize_transposed = define(
    "devoxelize_transposed(Tensor grad, Tensor indices, Tensor weights, SymInt voxels) -> Tensor",
    fake=_fake_transposed,
    adjoint=_adjoint_transposed,
)


def _check_rows(features: Tensor, coords: Tensor) -> None:
    """Raise ValueError unless there is a row of features for each of coords; neither operator sees both."""
    same = features.dim() > 0 and coords.dim() > 0 and features.shape[0] == coords.shape[0]
    unknown = torch.compiler.is_compiling() and not isinstance(same, bool)
    if unknown or isinstance(same, torch.SymBool):  # the text cannot show what is not known yet
        torch._check_value(same, "coords must have as many rows as features".__str__)
    elif not same:
        raise ValueError(
            f"coords must have as many rows as features, of shape {describe_shape(features)}, got "
            f"{describe_shape(coords)}"
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
        For an argument that is not a tensor or of an unsupported dtype.

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
    for tensor, name in ((features, "features"), (coords, "coords"), (points, "points")):
        check_tensor(tensor, name)
    if mode not in ("nearest", "trilinear"):
        raise ValueError(f"mode must be 'nearest' or 'trilinear', got {mode!r}")
    if points.device != features.device:
        raise ValueError(f"points must be on the device of features ({features.device}), got {points.device}")
    _check_rows(features, coords)
    grid = as_grid(voxel_size, point_cloud_range)
    indices, weights = _voxel_neighbors(coords, points, grid, offsets, 8 if mode == "trilinear" else 1)
    output: Tensor = _devoxelize(features, indices, weights)
    return output
