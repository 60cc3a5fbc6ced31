"""Max pooling that remembers where the largest values were, and unpooling to those places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_ints, as_pair, check_tensor, describe_shape, new_dense
from fastcv.ops._define import Gradient, define

__all__ = ["max_pool2d_with_indices", "max_unpool2d"]


def _pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """What max_pool2d_bind.cpp works out, for symbols."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    pooled = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (pooled - 1) * stride >= size + padding:  # the last window has to begin inside
        pooled -= 1
    return pooled


def _fake(
    input: Tensor, ky: int, kx: int, sy: int, sx: int, py: int, px: int, dy: int, dx: int, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    n, c, height, width = input.shape
    p = _pooled_size(height, ky, sy, py, dy, ceil_mode)
    q = _pooled_size(width, kx, sx, px, dx, ceil_mode)
    values = new_dense(input, n, c, p, q)
    return values, torch.empty_like(values, dtype=torch.int64)


def _fake_large(small: Tensor, indices: Tensor, height: int, width: int, *_: Any) -> Tensor:
    return new_dense(small, small.shape[0], small.shape[1], height, width)


def _fake_gather(input: Tensor, indices: Tensor) -> Tensor:
    n, c, height, width = indices.shape
    return new_dense(input, n, c, height, width)


# Given the indices all of these are linear. Pooling gathers, and its backward adds up what was gathered; unpooling
# puts, and its transpose gathers.


def _save(arguments: tuple[Any, ...], outputs: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], Any]:
    input, *options, _ceil_mode = arguments
    return (outputs[1],), (*input.shape[2:], *options)


def _backward(tensors: Any, options: Any, needs: Any, grad_values: Tensor, _: Any) -> tuple[Tensor]:
    return (_max_pool2d_backward(grad_values, *tensors, *options),)


def _jvp(tensors: Any, options: Any, tangent: Tensor) -> Any:
    return _gather(tangent, *tensors), None


def _adjoint_gradient(grad: Tensor, shape: Any, indices: Tensor, *_: Any) -> Any:
    return _gather(grad, indices)


def _adjoint_gathered(grad_output: Tensor, shape: Any, indices: Tensor) -> Tensor:
    n, c, height, width = shape
    inside = (indices >= 0) & (indices < height * width)
    places = torch.where(inside, indices, 0).flatten(2)
    zeros = grad_output.new_zeros(n, c, height * width)
    return zeros.scatter_add(2, places, (grad_output * inside).flatten(2)).reshape(shape)


def _adjoint_unpooled(grad_output: Tensor, shape: Any, indices: Tensor, *_: Any) -> Any:
    return _gather(grad_output, indices)


_WINDOW = (
    "int kernel_height, int kernel_width, int stride_height, int stride_width, int padding_height, int padding_width, "
    "int dilation_height, int dilation_width"
)

_max_pool2d = define(
    f"max_pool2d_with_indices(Tensor input, {_WINDOW}, bool ceil_mode) -> (Tensor, Tensor)",
    fake=_fake,
    gradient=Gradient(("input",), _save, _backward, _jvp),
)

_max_pool2d_backward = define(
    f"max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt height, SymInt width, {_WINDOW}) -> Tensor",
    fake=_fake_large,
    adjoint=_adjoint_gradient,
)

_gather = define(
    "max_pool2d_gather(Tensor input, Tensor indices) -> Tensor", fake=_fake_gather, adjoint=_adjoint_gathered
)

_max_unpool2d = define(
    "max_unpool2d(Tensor values, Tensor indices, SymInt height, SymInt width) -> Tensor",
    fake=_fake_large,
    adjoint=_adjoint_unpooled,
    autocast={"cpu": "float32"},
)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Take the largest value of each window, and remember where it was.

    Parameters
    ----------
    input : Tensor (N, C, H, W) or (C, H, W)
        float16, bfloat16, float32 or float64, of any strides; fewer than 2^31 pixels an image.
    kernel_size : int or (int, int)
        Height and width of a window.
    stride : int or (int, int), optional
        Pixels from one window to the next; ``kernel_size`` if not given.
    padding : int or (int, int)
        Pixels by which the first window reaches beyond the border, at most half of ``kernel_size``. They never are the
        largest.
    dilation : int or (int, int)
        Pixels from one place of a window to the next.
    ceil_mode : bool
        Take in a last window that is not whole, if it begins inside the map or its left or upper padding.

    Returns
    -------
    values : Tensor (N, C, P, Q)
        In the dtype of ``input``, and channels_last when ``input`` is. NaN propagates.
    indices : Tensor (N, C, P, Q)
        int64: ``y * W + x`` of each value in its plane. Of equal values the first has it, of several NaN the last.

    Raises
    ------
    ValueError
        For a tensor of another shape, sizes that are out of range, or an input smaller than a window.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable, twice and in forward mode; the gradient is deterministic. Values and indices are those of
    ``torch.nn.functional.max_pool2d(..., return_indices=True)``.

    Examples
    --------
    >>> image = torch.tensor([[[[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]]])
    >>> max_pool2d_with_indices(image, 2)
    (tensor([[[[5., 6.],
              [7., 8.]]]]), tensor([[[[ 5,  2],
              [12, 15]]]]))
    """
    check_tensor(input, "input")
    ky, kx = as_pair(kernel_size, "kernel_size")
    sy, sx = (ky, kx) if stride is None else as_pair(stride, "stride")
    py, px = as_ints(padding, 2, "padding", 0, "(height, width)")
    dy, dx = as_pair(dilation, "dilation")
    if input.dim() == 3:
        values, indices = _max_pool2d(input[None], ky, kx, sy, sx, py, px, dy, dx, ceil_mode)
        return values[0], indices[0]
    result: tuple[Tensor, Tensor] = _max_pool2d(input, ky, kx, sy, sx, py, px, dy, dx, ceil_mode)
    return result


def max_unpool2d(
    values: Tensor,
    indices: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Put values at the places that :func:`max_pool2d_with_indices` has remembered, among zeros.

    Parameters
    ----------
    values : Tensor (N, C, P, Q) or (C, P, Q)
        float16, bfloat16, float32 or float64, of any strides.
    indices : Tensor
        int64, of the shape of ``values``: ``y * W + x`` in a plane of the result. Where two values have the same place,
        the last one stays.
    kernel_size, stride, padding : int or (int, int)
        Those of the pooling; from them follows the size of the result.
    output_size : sequence of ints, optional
        Size of the result, its last two numbers H and W: where the pooling has left pixels over. Less than a stride
        away from the size that would be taken without it.

    Returns
    -------
    Tensor (N, C, H, W) or (C, H, W)
        In the dtype of ``values``, and channels_last when ``values`` are.

    Raises
    ------
    ValueError
        For tensors of other shapes or on different devices, sizes out of range, or an index outside [0, H * W). On
        CUDA, where looking at the indices would cost a synchronisation, such a value is dropped.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``values``, twice and in forward mode: the gradient is what lies at the places. (So it is torch's
    also where places repeat.) Deterministic. Values are those of ``torch.nn.functional.max_unpool2d``.

    References
    ----------
    Badrinarayanan, Kendall, Cipolla: SegNet (2017), section III. Zeiler, Fergus: Visualizing and Understanding
    Convolutional Networks (2014), section 2.1, "Unpooling".

    Examples
    --------
    >>> max_unpool2d(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[5, 2], [12, 15]]]]), 2)
    tensor([[[[0., 0., 2., 0.],
              [0., 1., 0., 0.],
              [0., 0., 0., 0.],
              [3., 0., 0., 4.]]]])
    """
    check_tensor(values, "values")
    check_tensor(indices, "indices")
    ky, kx = as_pair(kernel_size, "kernel_size")
    sy, sx = (ky, kx) if stride is None else as_pair(stride, "stride")
    py, px = as_ints(padding, 2, "padding", 0, "(height, width)")
    shape = values.shape
    if len(shape) < 3:
        raise ValueError(f"values must have shape (N, C, P, Q) or (C, P, Q), got {describe_shape(values)}")
    height, width = (shape[-2] - 1) * sy - 2 * py + ky, (shape[-1] - 1) * sx - 2 * px + kx
    if output_size is not None:
        height, width = _chosen_size(output_size, (height, width), (sy, sx))
    if height < 0 or width < 0:
        raise ValueError(f"padding must leave a result, got {padding!r}: a size of {(height, width)}")
    if len(shape) == 3 and indices.dim() == 3:
        unbatched: Tensor = _max_unpool2d(values[None], indices[None], height, width)[0]
        return unbatched
    output: Tensor = _max_unpool2d(values, indices, height, width)
    return output


def _chosen_size(output_size: Any, default: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """Return the last two numbers of ``output_size``, which must be near the default."""
    try:
        sizes = tuple(output_size)
    except TypeError:
        sizes = ()
    if len(sizes) < 2:
        raise ValueError(f"output_size must end in a height and a width, got {output_size!r}")
    height, width = as_ints(sizes[-2:], 2, "output_size", 0, "(height, width)")
    for side, usual, step in zip((height, width), default, stride, strict=True):
        if not usual - step < side < usual + step:
            raise ValueError(
                f"output_size must be less than a stride {stride} away from {default}, got {(height, width)}"
            )
    return height, width
