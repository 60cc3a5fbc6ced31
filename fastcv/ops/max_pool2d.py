"""Max pooling that remembers where the largest values were, and unpooling to those places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_pair, as_result_layout, check_tensor, describe_shape, new_dense, new_strided
from fastcv.ops._define import Gradient, Operator

__all__ = ["max_pool2d_with_indices", "max_unpool2d"]


def _pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    pooled = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (pooled - 1) * stride >= size + padding:  # the last window has to begin inside
        pooled -= 1
    return pooled


def _allocate(
    input: Tensor, ky: int, kx: int, sy: int, sx: int, py: int, px: int, dy: int, dx: int, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    shape = input.shape
    if len(shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W) or (C, H, W), got {describe_shape(input)}")
    n, c, height, width = shape
    p = _pooled_size(height, ky, sy, py, dy, ceil_mode)
    q = _pooled_size(width, kx, sx, px, dx, ceil_mode)
    if p < 1 or q < 1:
        raise ValueError(
            f"input must be larger than a window: {describe_shape(input)} with kernel_size {(ky, kx)}, padding "
            f"{(py, px)} and dilation {(dy, dx)} gives {p} x {q} windows"
        )
    values = new_dense(input, n, c, p, q)
    return values, new_strided(values, (n, c, p, q), values.stride(), torch.int64)


def _forward(
    input: Tensor, ky: int, kx: int, sy: int, sx: int, py: int, px: int, dy: int, dx: int, ceil_mode: bool
) -> tuple[Tensor, Tensor]:
    values, indices = _allocate(input, ky, kx, sy, sx, py, px, dy, dx, ceil_mode)
    _C.max_pool2d_forward(values, indices, as_result_layout(input), ky, kx, sy, sx, py, px, dy, dx)
    return values, indices


def _with_strides_of(tensor: Tensor, indices: Tensor) -> Tensor:
    """Return indices laid out like a tensor of their shape."""
    if (indices.is_contiguous() and tensor.is_contiguous()) or indices.stride() == tensor.stride():
        return indices
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=indices.dtype, device=indices.device).copy_(indices)


def _allocate_gradient(grad_output: Tensor, indices: Tensor, height: int, width: int, *_: Any) -> Tensor:
    n, c = grad_output.shape[:2]
    return new_dense(grad_output, n, c, height, width)


def _forward_gradient(grad_output: Tensor, indices: Tensor, height: int, width: int, *options: Any) -> Tensor:
    grad_input = _allocate_gradient(grad_output, indices, height, width)
    grad_output = as_result_layout(grad_output)
    _C.max_pool2d_backward(grad_input, grad_output, _with_strides_of(grad_output, indices), *options)
    return grad_input


def _allocate_gathered(input: Tensor, indices: Tensor) -> Tensor:
    if input.dim() != 4 or indices.dim() != 4 or input.shape[:2] != indices.shape[:2]:
        raise ValueError(
            f"input and indices must have shapes (N, C, H, W) and (N, C, P, Q), got {describe_shape(input)} and "
            f"{describe_shape(indices)}"
        )
    return new_dense(input, *indices.shape)


def _forward_gathered(input: Tensor, indices: Tensor) -> Tensor:
    output = _allocate_gathered(input, indices)
    _C.max_pool2d_gather(output, as_result_layout(input), _with_strides_of(output, indices))
    return output


def _allocate_unpooled(values: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    shape = values.shape
    if len(shape) != 4:
        raise ValueError(f"values must have shape (N, C, P, Q) or (C, P, Q), got {describe_shape(values)}")
    if indices.shape != shape:
        raise ValueError(
            f"indices must have the shape of values {describe_shape(values)}, got {describe_shape(indices)}"
        )
    if indices.dtype is not torch.int64:
        raise TypeError(f"indices must be int64, got {indices.dtype}")
    return new_dense(values, shape[0], shape[1], height, width)


def _forward_unpooled(values: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
    output = _allocate_unpooled(values, indices, height, width)
    values = as_result_layout(values)
    size = _C.max_unpool2d_workspace(output.numel(), values.is_cuda)
    workspace = new_strided(values, (size,), (1,), torch.int32)
    _C.max_unpool2d(output, values, _with_strides_of(values, indices), workspace)
    return output


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

_max_pool2d = Operator(
    f"max_pool2d_with_indices(Tensor input, {_WINDOW}, bool ceil_mode) -> (Tensor, Tensor)",
    forward=_forward,
    fake=_allocate,
    gradient=Gradient(("input",), _save, _backward, _jvp),
)

_max_pool2d_backward = Operator(
    f"max_pool2d_backward(Tensor grad_output, Tensor indices, SymInt height, SymInt width, {_WINDOW}) -> Tensor",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    adjoint=_adjoint_gradient,
)

_gather = Operator(
    "max_pool2d_gather(Tensor input, Tensor indices) -> Tensor",
    forward=_forward_gathered,
    fake=_allocate_gathered,
    adjoint=_adjoint_gathered,
)

_max_unpool2d = Operator(
    "max_unpool2d(Tensor values, Tensor indices, SymInt height, SymInt width) -> Tensor",
    forward=_forward_unpooled,
    fake=_allocate_unpooled,
    adjoint=_adjoint_unpooled,
)


def _as_padding(padding: int | Sequence[int]) -> tuple[int, int]:
    """Return the padding of both axes, none of them negative."""
    if type(padding) is int and padding >= 0:
        return padding, padding
    pair = (padding, padding) if isinstance(padding, int) else padding
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(side, int) for side in pair):
        raise TypeError(f"padding must be an int or two ints (height, width), got {padding!r}")
    if min(pair) < 0:
        raise ValueError(f"padding must not be negative, got {padding!r}")
    return pair[0], pair[1]


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
        For an argument that is no tensor or of an unsupported dtype.

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
    py, px = _as_padding(padding)
    dy, dx = as_pair(dilation, "dilation")
    if 2 * py > ky or 2 * px > kx:
        raise ValueError(
            f"padding must be at most half of kernel_size, got padding {padding!r} with kernel_size {kernel_size!r}"
        )
    if input.dim() == 3:
        values, indices = _max_pool2d.call(input[None], ky, kx, sy, sx, py, px, dy, dx, ceil_mode)
        return values[0], indices[0]
    result: tuple[Tensor, Tensor] = _max_pool2d.call(input, ky, kx, sy, sx, py, px, dy, dx, ceil_mode)
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
        For an argument that is no tensor or of an unsupported dtype.

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
    kernel = as_pair(kernel_size, "kernel_size")
    steps = kernel if stride is None else as_pair(stride, "stride")
    paddings = _as_padding(padding)
    shape = values.shape
    if len(shape) < 3:
        raise ValueError(f"values must have shape (N, C, P, Q) or (C, P, Q), got {describe_shape(values)}")
    height = (shape[-2] - 1) * steps[0] - 2 * paddings[0] + kernel[0]
    width = (shape[-1] - 1) * steps[1] - 2 * paddings[1] + kernel[1]
    if output_size is not None:
        height, width = _chosen_size(output_size, (height, width), steps)
    if height < 0 or width < 0:
        raise ValueError(f"padding {padding!r} leaves a result of size {(height, width)}")
    if len(shape) == 3 and indices.dim() == 3:
        unbatched: Tensor = _max_unpool2d.call(values[None], indices[None], height, width)[0]
        return unbatched
    output: Tensor = _max_unpool2d.call(values, indices, height, width)
    return output


def _chosen_size(output_size: Sequence[int], default: tuple[int, ...], stride: tuple[int, int]) -> tuple[int, ...]:
    """Return the last two numbers of ``output_size``, which must be near the default."""
    sizes = tuple(output_size)
    if len(sizes) < 2:
        raise ValueError(f"output_size must end in a height and a width, got {output_size!r}")
    chosen = sizes[-2:]
    for side, usual, step in zip(chosen, default, stride, strict=True):
        if not usual - step < side < usual + step:
            raise ValueError(
                f"output_size must be less than a stride {tuple(stride)} away from {tuple(default)}, got {chosen}"
            )
    return chosen
