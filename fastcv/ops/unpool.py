"""Upsampling without weights: nearest neighbour, and bed of nails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import as_pair, new_dense
from fastcv.ops._define import define

__all__ = ["unpool_bed_of_nails", "unpool_nearest"]


def _fake(input: Tensor, scale_height: int, scale_width: int, *_: Any) -> Tensor:
    n, c, height, width = input.shape
    return new_dense(input, n, c, height * scale_height, width * scale_width)


def _fake_backward(grad_output: Tensor, scale_height: int, scale_width: int, *_: Any) -> Tensor:
    n, c, height, width = grad_output.shape
    return new_dense(grad_output, n, c, height // scale_height, width // scale_width)


# Each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shape: Any, *options: Any) -> Any:
    return _unpool_backward(grad_output, *options)


def _adjoint_backward(grad: Tensor, shape: Any, *options: Any) -> Any:
    return _unpool(grad, *options)


_unpool = define(
    "unpool(Tensor input, int scale_height, int scale_width, bool nails) -> Tensor",
    fake=_fake,
    adjoint=_adjoint,
    autocast={"cuda": "float32"},
)

_unpool_backward = define(
    "unpool_backward(Tensor grad_output, int scale_height, int scale_width, bool nails) -> Tensor",
    fake=_fake_backward,
    adjoint=_adjoint_backward,
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
        For a tensor of another shape, or a scale that is not positive or gives more pixels than can be counted.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

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
    height, width = as_pair(scale, "scale")
    output: Tensor = _unpool(input, height, width, False)
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
        For a tensor of another shape, or a scale that is not positive or gives more pixels than can be counted.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

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
    height, width = as_pair(scale, "scale")
    output: Tensor = _unpool(input, height, width, True)
    return output
