"""Upsampling without weights: nearest neighbour, and bed of nails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_pair, as_result_layout, check_tensor, describe_shape, new_dense
from fastcv.ops._define import Operator

__all__ = ["unpool_bed_of_nails", "unpool_nearest"]


def _allocate(input: Tensor, scale_height: int, scale_width: int, nails: bool) -> Tensor:
    shape = input.shape
    if len(shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {describe_shape(input)}")
    return new_dense(input, shape[0], shape[1], shape[2] * scale_height, shape[3] * scale_width)


def _forward(input: Tensor, scale_height: int, scale_width: int, nails: bool) -> Tensor:
    output = _allocate(input, scale_height, scale_width, nails)
    _C.unpool_forward(output, as_result_layout(input), scale_height, scale_width, nails)
    return output


def _allocate_gradient(grad_output: Tensor, scale_height: int, scale_width: int, nails: bool) -> Tensor:
    shape = grad_output.shape
    if len(shape) != 4 or shape[2] % scale_height or shape[3] % scale_width:
        raise ValueError(
            f"grad_output must have shape (N, C, H * {scale_height}, W * {scale_width}), got "
            f"{describe_shape(grad_output)}"
        )
    return new_dense(grad_output, shape[0], shape[1], shape[2] // scale_height, shape[3] // scale_width)


def _forward_gradient(grad_output: Tensor, scale_height: int, scale_width: int, nails: bool) -> Tensor:
    grad_input = _allocate_gradient(grad_output, scale_height, scale_width, nails)
    _C.unpool_backward(grad_input, as_result_layout(grad_output), scale_height, scale_width, nails)
    return grad_input


# Each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shape: Any, *options: Any) -> Any:
    return _unpool_backward(grad_output, *options)


def _adjoint_gradient(grad: Tensor, shape: Any, *options: Any) -> Any:
    return _unpool(grad, *options)


_unpool = Operator(
    "unpool(Tensor input, int scale_height, int scale_width, bool nails) -> Tensor",
    forward=_forward,
    fake=_allocate,
    adjoint=_adjoint,
)

_unpool_backward = Operator(
    "unpool_backward(Tensor grad_output, int scale_height, int scale_width, bool nails) -> Tensor",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    adjoint=_adjoint_gradient,
)


def unpool_nearest(input: Tensor, scale: int | Sequence[int] = 2) -> Tensor:
    """Repeat every pixel over a rectangle (nearest-neighbour upsampling).

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        float16, bfloat16, float32 or float64, of any strides.
    scale : int or (int, int)
        Height and width of the rectangle.

    Returns
    -------
    Tensor (N, C, H * scale, W * scale)
        In the dtype of ``input``, and channels_last when ``input`` is.

    Raises
    ------
    ValueError
        For a tensor of another shape, or a scale that is not positive.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable, twice and in forward mode: the gradient is the sum over the rectangle, in float32 for half types.
    Values are those of ``torch.nn.functional.interpolate(input, scale_factor=scale, mode="nearest")``.

    Examples
    --------
    >>> unpool_nearest(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[1., 1., 2., 2.],
              [1., 1., 2., 2.],
              [3., 3., 4., 4.],
              [3., 3., 4., 4.]]]])
    """
    check_tensor(input, "input")
    height, width = as_pair(scale, "scale")
    output: Tensor = _unpool.call(input, height, width, False)
    return output


def unpool_bed_of_nails(input: Tensor, scale: int | Sequence[int] = 2) -> Tensor:
    """Put every pixel at the upper left of a rectangle of zeros.

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        float16, bfloat16, float32 or float64, of any strides.
    scale : int or (int, int)
        Height and width of the rectangle.

    Returns
    -------
    Tensor (N, C, H * scale, W * scale)
        In the dtype of ``input``, and channels_last when ``input`` is.

    Raises
    ------
    ValueError
        For a tensor of another shape, or a scale that is not positive.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable, twice and in forward mode: the gradient is every ``scale``-th pixel.

    References
    ----------
    Zeiler, Krishnan, Taylor, Fergus: Deconvolutional Networks (2010): upsampling before a convolution; the same as a
    transposed convolution of stride ``scale`` with a kernel that is 1 at its first place.

    Examples
    --------
    >>> unpool_bed_of_nails(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[1., 0., 2., 0.],
              [0., 0., 0., 0.],
              [3., 0., 4., 0.],
              [0., 0., 0., 0.]]]])
    """
    check_tensor(input, "input")
    height, width = as_pair(scale, "scale")
    output: Tensor = _unpool.call(input, height, width, True)
    return output
