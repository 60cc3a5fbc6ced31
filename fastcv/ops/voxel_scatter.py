"""Features of points, reduced per voxel: mean, sum, max or min."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_tensor
from fastcv.ops._define import Gradient, define, size_from_data

__all__ = ["voxel_scatter"]

_REDUCTIONS = ("sum", "mean", "max", "min")
_FIRST_THAT_CHOOSES = 2

# Of segments there are the voxels (V, 4), the voxel of each point (P,), the points by voxel (P,) and where voxels begin
# among those (V + 1,).


def _fake_segments(coords: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points = coords.shape[0]
    count = size_from_data(coords)
    return (
        coords.new_empty((count, 4)),
        coords.new_empty((points,), dtype=torch.int64),
        coords.new_empty((points,)),
        coords.new_empty((count + 1,)),
    )


def _fake_reduce(
    features: Tensor, voxel_of: Tensor, order: Tensor, starts: Tensor, reduction: int
) -> tuple[Tensor, Tensor]:
    shape = starts.shape[0] - 1, features.shape[1]
    chooses = reduction >= _FIRST_THAT_CHOOSES
    return features.new_empty(shape), features.new_empty(shape if chooses else (0, shape[1]), dtype=torch.int32)


def _fake_spread(
    grad: Tensor, voxel_of: Tensor, order: Tensor, starts: Tensor, argument: Tensor, reduction: int
) -> Tensor:
    return grad.new_empty((voxel_of.shape[0], grad.shape[1]))


# Given the points chosen by max or min, each of the pair is linear and the transpose of the other.


def _reduce_again(
    values: Tensor, voxel_of: Tensor, order: Tensor, starts: Tensor, argument: Tensor, reduction: int
) -> Tensor:
    if reduction < _FIRST_THAT_CHOOSES:
        reduced: Tensor = _voxel_reduce(values, voxel_of, order, starts, reduction)[0]
        return reduced
    if argument.numel() == 0:
        return values.sum() * 0 + values.new_zeros(argument.shape)
    return values.gather(0, argument.clamp(min=0).long()) * (argument >= 0)


def _save(arguments: tuple[Any, ...], outputs: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], Any]:
    _, voxel_of, order, starts, reduction = arguments
    return (voxel_of, order, starts, outputs[1]), reduction


def _backward(tensors: Any, reduction: int, needs: Any, grad: Tensor, _: Any) -> tuple[Tensor]:
    return (_voxel_spread(grad, *tensors, reduction),)


def _jvp(tensors: Any, reduction: int, tangent: Tensor) -> Any:
    voxel_of, order, starts, argument = tensors
    return _reduce_again(tangent, voxel_of, order, starts, argument, reduction), None


def _adjoint_gradient(
    grad: Tensor, shape: Any, voxel_of: Tensor, order: Tensor, starts: Tensor, argument: Tensor, reduction: int
) -> Tensor:
    return _reduce_again(grad, voxel_of, order, starts, argument, reduction)


_voxel_segments = define("voxel_segments(Tensor coords) -> (Tensor, Tensor, Tensor, Tensor)", fake=_fake_segments)

_voxel_reduce = define(
    "voxel_reduce(Tensor features, Tensor voxel_of, Tensor order, Tensor starts, int reduction) -> (Tensor, Tensor)",
    fake=_fake_reduce,
    gradient=Gradient(("features",), _save, _backward, _jvp),
)

_voxel_spread = define(
    "voxel_spread(Tensor grad, Tensor voxel_of, Tensor order, Tensor starts, Tensor argument, int reduction) -> Tensor",
    fake=_fake_spread,
    adjoint=_adjoint_gradient,
)


def voxel_scatter(features: Tensor, coords: Tensor, reduce: str = "mean") -> tuple[Tensor, Tensor, Tensor]:
    """Reduce the features of the points of each voxel to one row.

    Parameters
    ----------
    features : Tensor (P, C)
        float16, bfloat16, float32 or float64. Sums are kept in float32, or in float64 for float64.
    coords : Tensor (P, 4)
        int32: b, z, y, x of each point, as :func:`voxel_ids` gives them. Points with a negative number are left out.
    reduce : {'mean', 'sum', 'max', 'min'}
        How. A NaN makes its voxel's value NaN.

    Returns
    -------
    reduced : Tensor (V, C)
        One row per voxel, in the dtype of ``features``.
    voxels : Tensor (V, 4)
        int32: b, z, y, x of each voxel, in ascending order.
    voxel_of : Tensor (P,)
        int64: the row of each point's voxel, -1 for points left out.

    Raises
    ------
    ValueError
        For a tensor of another shape, another ``reduce``, or tensors on different devices.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode. The largest and smallest hand their gradient to the first
    point that has the value. Points are added in their order, so the result and its gradient are the same bits in every
    run and for every number of threads.

    On CUDA the call waits for the device once, for the size of the result. Under ``torch.compile(fullgraph=True)`` the
    size needs ``torch._dynamo.config.capture_dynamic_output_shape_ops = True``.

    References
    ----------
    Zhou et al.: End-to-End Multi-View Fusion for 3D Object Detection in LiDAR Point Clouds (2019), section 3.1.

    Examples
    --------
    >>> coords = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [-1, -1, -1, -1]], dtype=torch.int32)
    >>> reduced, voxels, voxel_of = voxel_scatter(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), coords)
    >>> reduced, voxel_of
    (tensor([[2.],
            [2.]]), tensor([ 1,  0,  1, -1]))
    """
    check_tensor(features, "features")
    check_tensor(coords, "coords")
    if reduce not in _REDUCTIONS:
        raise ValueError(f"reduce must be 'mean', 'sum', 'max' or 'min', got {reduce!r}")
    if coords.device != features.device:
        raise ValueError(f"coords must be on the device of features ({features.device}), got {coords.device}")
    voxels, voxel_of, order, starts = _voxel_segments(coords)
    reduced, _ = _voxel_reduce(features, voxel_of, order, starts, _REDUCTIONS.index(reduce))
    return reduced, voxels, voxel_of
