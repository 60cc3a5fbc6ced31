"""Transposed convolution in one, two and three dimensions, with a fused bias and ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape, new_dense, new_strided
from fastcv.ops._define import _DIRECT_TYPES, Gradient, Operator, _dispatch_modes, _is_compiling, _transforms_active
from fastcv.ops._precision import may_use_tf32

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

_HALVES = frozenset({torch.float16, torch.bfloat16})
_AXES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
Sizes = Sequence[int]


# ---- the three products ----------------------------------------------------------------------------------------------
# output, input and weight are bound by a trilinear form; each kernel computes one from the other two, so the gradients
# of each are the other two, to any order.


def _new(like: Tensor, batch: int, channels: int, sizes: Sizes) -> Tensor:
    """Return an uninitialised (batch, channels, *sizes) tensor of the dtype, device and layout of ``like``."""
    if len(sizes) == 2:
        return new_dense(like, batch, channels, sizes[0], sizes[1])
    channels_last = not like.is_contiguous() and like.stride(1) == 1
    step = channels if channels_last else 1
    strides: tuple[int, ...] = ()
    for size in reversed(sizes):
        strides = (step, *strides)
        step *= size
    strides = (step, 1, *strides) if channels_last else (channels * step, step, *strides)
    return new_strided(like, (batch, channels, *sizes), strides, like.dtype)


def _dense(tensor: Tensor) -> Tensor:
    """Return a tensor that is contiguous, or has its channels innermost; a copy only when it is neither."""
    if tensor.is_contiguous() or (tensor.stride(1) == 1 and tensor.movedim(1, -1).is_contiguous()):
        return tensor
    return tensor.contiguous()


def _suits_kernels(tensor: Tensor, groups: int, tf32: bool) -> Tensor:
    """Return a dense source as its kernel wants it: tensor cores read only sources that have channels innermost."""
    if _C.has_cpu_kernels and not tensor.is_cuda:
        return tensor
    unit = 8 if tensor.element_size() == 2 else 4
    if (tf32 or unit == 8) and tensor.shape[1] % (unit * groups) == 0:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return tensor


def _output_sizes(
    shape: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, output_padding: Sizes, dilation: Sizes
) -> tuple[int, ...]:
    """Return the spatial sizes of the output; ``shape`` and ``kernel`` are the shapes of input and weight."""
    if len(stride) == 2:  # by far the most frequent; a loop takes twice as long
        return (
            (shape[2] - 1) * stride[0] - 2 * padding[0] + dilation[0] * (kernel[2] - 1) + output_padding[0] + 1,
            (shape[3] - 1) * stride[1] - 2 * padding[1] + dilation[1] * (kernel[3] - 1) + output_padding[1] + 1,
        )
    axes = zip(shape[2:], kernel[2:], stride, padding, output_padding, dilation, strict=True)
    return tuple((n - 1) * step - 2 * low + wide * (k - 1) + extra + 1 for n, k, step, low, extra, wide in axes)


def pack_weight(weight: Tensor, groups: int, forward: bool = True) -> Tensor:
    """Return a contiguous weight as the kernels read it, for the output or for the gradient of the input."""
    packed = weight.new_empty(_C.conv_transpose_packed_bytes(weight, groups, forward), dtype=torch.uint8)
    _C.conv_transpose_pack(packed, weight, groups, forward)
    return packed


def can_pack(weight: Tensor) -> bool:
    """Whether a packed weight may be kept for later calls: it has memory, a version, and nothing traces this call."""
    if _is_compiling() or _transforms_active() or _dispatch_modes():
        return False
    return type(weight) in _DIRECT_TYPES and (weight.is_cpu or weight.is_cuda) and not weight.is_inference()


def _packed(weight: Tensor, groups: int, forward: bool) -> Tensor | None:
    """None where the kernels pack the weight themselves, into memory that lives between calls."""
    if _C.has_cpu_kernels and weight.is_cpu:
        return None
    return pack_weight(weight, groups, forward)


def _allocate(
    input: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
    relu: bool,
) -> Tensor:
    shape, kernel = input.shape, weight.shape
    sizes = _output_sizes(shape, kernel, stride, padding, output_padding, dilation)
    return _new(input, shape[0], kernel[1] * groups, sizes)


def _forward(
    input: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
    relu: bool,
) -> Tensor:
    input = _dense(input)
    output = _allocate(input, weight, packed, bias, stride, padding, output_padding, groups, dilation, relu)
    tf32 = may_use_tf32(input)
    input = _suits_kernels(input, groups, tf32)
    if bias is not None:
        bias = (bias.float() if bias.dtype in _HALVES else bias).contiguous()
    geometry = (*stride, *padding, *dilation)
    weight = weight.contiguous()
    if packed is None:
        packed = _packed(weight, groups, True)
    _C.conv_transpose_forward(output, input, weight, packed, bias, geometry, groups, relu, tf32)
    return output


def _allocate_input(
    grad_output: Tensor,
    weight: Tensor,
    size: Sizes,
    stride: Sizes,
    padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    return _new(grad_output, grad_output.shape[0], weight.shape[0], size)


def _backward_input(
    grad_output: Tensor,
    weight: Tensor,
    size: Sizes,
    stride: Sizes,
    padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    grad_output = _dense(grad_output)
    grad_input = _allocate_input(grad_output, weight, size, stride, padding, groups, dilation)
    tf32 = may_use_tf32(grad_output)
    grad_output = _suits_kernels(grad_output, groups, tf32)
    geometry = (*stride, *padding, *dilation)
    weight = weight.contiguous()
    packed = _packed(weight, groups, False)
    _C.conv_transpose_backward_input(grad_input, grad_output, weight, packed, geometry, groups, tf32)
    return grad_input


def _allocate_weight(
    input: Tensor,
    grad_output: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    return input.new_empty((input.shape[1], grad_output.shape[1] // groups, *kernel_size))


def _backward_weight(
    input: Tensor,
    grad_output: Tensor,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes,
    groups: int,
    dilation: Sizes,
) -> Tensor:
    grad_weight = _allocate_weight(input, grad_output, kernel_size, stride, padding, groups, dilation)
    geometry = (*stride, *padding, *dilation)
    tf32 = may_use_tf32(input)
    input, grad_output = (_suits_kernels(_dense(t), groups, tf32) for t in (input, grad_output))
    workspace = None
    if elements := _C.conv_transpose_workspace(grad_weight, input, grad_output, geometry, groups):
        dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
        workspace = input.new_empty((elements,), dtype=dtype)
    _C.conv_transpose_backward_weight(grad_weight, input, grad_output, geometry, groups, workspace, tf32)
    return grad_weight


# ---- their derivatives -----------------------------------------------------------------------------------------------


def _like_output(input: Tensor, weight: Tensor, sizes: Sizes, options: Any) -> Tensor:
    """The output of ``sizes`` without bias, with options stride, padding, groups, dilation."""
    stride, padding, groups, dilation = options
    least = _output_sizes(input.shape, weight.shape, stride, padding, [0] * len(stride), dilation)
    extra = [size - low for size, low in zip(sizes, least, strict=True)]
    output: Tensor = _conv_transpose(input, weight, None, None, stride, padding, extra, groups, dilation, False)
    return output


def _save(arguments: Any, output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    input, weight, _, bias, stride, padding, _, groups, dilation, relu = arguments
    tensors = (input, weight, output) if relu else (input, weight)
    return tensors, ((stride, padding, groups, dilation), tuple(output.shape[2:]), bias is not None)


def _backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, *output = tensors
    options, _, _ = constants
    if output:
        grad = torch.ops.aten.threshold_backward(grad, output[0], 0)
    return (
        _input_gradient(grad, weight, tuple(input.shape[2:]), *options) if needs[0] else None,
        _weight_gradient(input, grad, tuple(weight.shape[2:]), *options) if needs[1] else None,
        grad.sum([0, *range(2, grad.dim())]) if needs[2] else None,
    )


def _jvp(tensors: Any, constants: Any, *tangents: Tensor | None) -> Tensor:
    input, weight, *output = tensors
    options, sizes, _ = constants
    of_input, of_weight, of_bias = tangents
    terms = []
    if of_input is not None:
        terms.append(_like_output(of_input, weight, sizes, options))
    if of_weight is not None:
        terms.append(_like_output(input, of_weight, sizes, options))
    if of_bias is not None:
        shape = (input.shape[0], of_bias.shape[0], *sizes)
        terms.append(of_bias.reshape(-1, *[1] * len(sizes)).expand(shape))
    tangent = sum(terms[1:], terms[0])
    return torch.ops.aten.threshold_backward(tangent, output[0], 0) if output else tangent


def _save_pair(arguments: Any, output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    first, second, size, *options = arguments
    return (first, second), (tuple(size), options)


def _backward_of_input(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, weight = tensors
    _, options = constants
    return (
        _like_output(grad, weight, grad_output.shape[2:], options) if needs[0] else None,
        _weight_gradient(grad, grad_output, tuple(weight.shape[2:]), *options) if needs[1] else None,
    )


def _backward_of_weight(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, grad_output = tensors
    _, options = constants
    return (
        _input_gradient(grad_output, grad, tuple(input.shape[2:]), *options) if needs[0] else None,
        _like_output(input, grad, grad_output.shape[2:], options) if needs[1] else None,
    )


def _jvp_of(operator: str) -> Any:
    def jvp(tensors: Any, constants: Any, *tangents: Tensor | None) -> Tensor:
        first, second = tensors
        size, options = constants
        apply = _input_gradient if operator == "input" else _weight_gradient
        terms = []
        if tangents[0] is not None:
            terms.append(apply(tangents[0], second, size, *options))
        if tangents[1] is not None:
            terms.append(apply(first, tangents[1], size, *options))
        tangent: Tensor = sum(terms[1:], terms[0])
        return tangent

    return jvp


_OPTIONS = "int[] stride, int[] padding, int groups, int[] dilation"

_conv_transpose = Operator(
    "conv_transpose(Tensor input, Tensor weight, Tensor? packed, Tensor? bias, int[] stride, int[] padding, "
    "SymInt[] output_padding, int groups, int[] dilation, bool relu) -> Tensor",
    forward=_forward,
    fake=_allocate,
    gradient=Gradient(("input", "weight", "bias"), _save, _backward, _jvp),
)

_input_gradient = Operator(
    f"conv_transpose_backward_input(Tensor grad_output, Tensor weight, SymInt[] size, {_OPTIONS}) -> Tensor",
    forward=_backward_input,
    fake=_allocate_input,
    gradient=Gradient(("grad_output", "weight"), _save_pair, _backward_of_input, _jvp_of("input")),
)

_weight_gradient = Operator(
    f"conv_transpose_backward_weight(Tensor input, Tensor grad_output, SymInt[] kernel_size, {_OPTIONS}) -> Tensor",
    forward=_backward_weight,
    fake=_allocate_weight,
    gradient=Gradient(("input", "grad_output"), _save_pair, _backward_of_weight, _jvp_of("weight")),
)


# ---- the public functions --------------------------------------------------------------------------------------------


def _sizes(value: int | Sizes, count: int, name: str, least: int) -> tuple[int, ...]:
    """Return one integer per spatial axis, each at least ``least``."""
    if type(value) is int:
        sizes: tuple[int, ...] = (value,) * count
    else:
        try:
            sizes = tuple(value)  # type: ignore[arg-type]
        except TypeError:
            sizes = ()
        if len(sizes) == 1:
            sizes *= count
        if len(sizes) != count or not all(type(size) is int for size in sizes):
            raise TypeError(f"{name} must be an int or {count} ints, got {value!r}")
    for size in sizes:
        if not least <= size < 2**31:
            raise ValueError(f"{name} must be at least {least} and less than 2^31, got {value!r}")
    return sizes


def _geometry(
    count: int, stride: int | Sizes, padding: int | Sizes, output_padding: int | Sizes, dilation: int | Sizes
) -> tuple[tuple[int, ...], ...]:
    """Return stride, padding, output padding and dilation with one integer per spatial axis."""
    if (  # the usual case
        type(stride) is type(padding) is type(output_padding) is type(dilation) is int
        and (0 < stride < 2**31 and 0 <= padding < 2**31 and output_padding == 0 and 0 < dilation < 2**31)
    ):
        return (stride,) * count, (padding,) * count, (0,) * count, (dilation,) * count
    steps = _sizes(stride, count, "stride", 1)
    margins = _sizes(padding, count, "padding", 0)
    extras = _sizes(output_padding, count, "output_padding", 0)
    spreads = _sizes(dilation, count, "dilation", 1)
    for extra, step, spread in zip(extras, steps, spreads, strict=True):
        if extra >= step and extra >= spread:
            raise ValueError(
                f"output_padding must be smaller than stride {steps} or dilation {spreads} along each axis, got "
                f"{output_padding!r}"
            )
    return steps, margins, extras, spreads


def _check(input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, dims: int) -> None:
    shape, kernel, dtype = input.shape, weight.shape, input.dtype
    if len(shape) != dims + 2:
        raise ValueError(f"input must have shape {_AXES[dims]}, with or without N, got {describe_shape(input)}")
    if len(kernel) != dims + 2:
        raise ValueError(
            f"weight must have shape (C, O / groups, *kernel size), {dims + 2} axes, got {describe_shape(weight)}"
        )
    if weight.dtype is not dtype:
        raise TypeError(f"weight must have the dtype of input ({dtype}), got {weight.dtype}")
    channels = shape[1]
    if kernel[0] != channels:
        raise ValueError(
            f"weight must have one row per channel of input ({channels}), got shape {describe_shape(weight)}"
        )
    if type(groups) is not int:
        raise TypeError(f"groups must be an int, got {groups!r}")
    if groups < 1 or channels % groups != 0:
        raise ValueError(f"groups must be positive and divide the {channels} channels of input, got {groups}")
    if min(kernel[2:]) < 1:
        raise ValueError(f"weight must have a kernel of at least one element, got shape {describe_shape(weight)}")
    if bias is not None:
        check_tensor(bias, "bias")
        if bias.shape != (kernel[1] * groups,):
            raise ValueError(f"bias must have shape ({kernel[1] * groups},), got {describe_shape(bias)}")
        if bias.dtype is not dtype:
            raise TypeError(f"bias must have the dtype of input ({dtype}), got {bias.dtype}")


def apply(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sizes,
    padding: int | Sizes,
    output_padding: int | Sizes,
    groups: int,
    dilation: int | Sizes,
    activation: str | None,
    packed: Tensor | None = None,
) -> Tensor:
    """Check and convolve, for all three functions. ``packed`` may be the weight from :func:`pack_weight`."""
    check_tensor(input, "input")
    check_tensor(weight, "weight")
    shape = input.shape
    if len(shape) == dims + 1:
        options = (stride, padding, output_padding, groups, dilation, activation, packed)
        return apply(dims, input.unsqueeze(0), weight, bias, *options).squeeze(0)
    _check(input, weight, bias, groups, dims)
    if activation is not None and activation != "relu":
        raise ValueError(f"activation must be None or 'relu', got {activation!r}")
    steps, margins, extras, spreads = _geometry(dims, stride, padding, output_padding, dilation)
    sizes = _output_sizes(shape, weight.shape, steps, margins, extras, spreads)
    if min(sizes) < 1:
        raise ValueError(
            f"padding must leave an output of at least one element along each axis, got padding {padding!r}: input "
            f"{describe_shape(input)} would give an output of size {sizes}"
        )
    relu = activation is not None
    output: Tensor = _conv_transpose.call(input, weight, packed, bias, steps, margins, extras, groups, spreads, relu)
    return output


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: int | Sizes = 0,
    output_padding: int | Sizes = 0,
    groups: int = 1,
    dilation: int | Sizes = 1,
    activation: str | None = None,
) -> Tensor:
    """Convolve (N, C, L), or (C, L), transposed, with weight (C, O / groups, k): see :func:`conv_transpose2d`."""
    return apply(1, input, weight, bias, stride, padding, output_padding, groups, dilation, activation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: int | Sizes = 0,
    output_padding: int | Sizes = 0,
    groups: int = 1,
    dilation: int | Sizes = 1,
    activation: str | None = None,
) -> Tensor:
    """Spread a kernel over the output for every input pixel (transposed convolution), with bias and ReLU fused.

    Along each axis ``output[i * stride - padding + k * dilation] += input[i] * weight[k]``.

    Parameters
    ----------
    input : Tensor (N, C, H, W) or (C, H, W)
        float16, bfloat16, float32 or float64, of any strides. Sums are kept in float32, or in float64 for float64.
    weight : Tensor (C, O / groups, kH, kW)
        In the dtype of ``input``.
    bias : Tensor (O,), optional
        In the dtype of ``input``.
    stride, dilation : int or (int, int)
        Output pixels between neighbouring input pixels, and between neighbouring elements of the kernel.
    padding : int or (int, int)
        Output pixels cut off at each border.
    output_padding : int or (int, int)
        Output pixels added at the lower and right border; smaller than stride or dilation.
    groups : int
        Blocks of channels that do not mix; divides C.
    activation : None or 'relu'
        Applied to the result, before it is rounded to the dtype of ``input``.

    Returns
    -------
    Tensor (N, O, H', W') or (O, H', W')
        ``H' = (H - 1) * stride - 2 * padding + dilation * (kH - 1) + output_padding + 1``, and W' alike. In the dtype
        of ``input``, and channels_last when ``input`` is.

    Raises
    ------
    ValueError
        For shapes or groups that do not fit, a geometry without output, an ``output_padding`` that is too large, or
        tensors on different devices.
    TypeError
        For an argument of a wrong type, or tensors of different dtypes.

    Notes
    -----
    Differentiable in input, weight and bias, to any order and in forward mode; results are the same on any number of
    threads. Values are those of ``torch.nn.functional.conv_transpose2d``. On CUDA float32 is rounded to tf32 where
    ``torch.backends.cudnn`` allows it for convolutions, which is torch's default; read at each call. On a CPU with
    AVX512-BF16 its instruction multiplies bfloat16, sums in float32 and takes subnormal numbers for zeros;
    ``FASTCV_CPU_VARIANT=avx512`` in the environment keeps all products in float32.

    References
    ----------
    Dumoulin, Visin: A guide to convolution arithmetic for deep learning (2016), chapter 4.
    Long, Shelhamer, Darrell: Fully convolutional networks for semantic segmentation (2015), section 3.3.

    Examples
    --------
    >>> features = torch.randn(8, 256, 14, 14)
    >>> conv_transpose2d(features, torch.randn(256, 64, 2, 2), stride=2, activation="relu").shape
    torch.Size([8, 64, 28, 28])
    """
    return apply(2, input, weight, bias, stride, padding, output_padding, groups, dilation, activation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: int | Sizes = 0,
    output_padding: int | Sizes = 0,
    groups: int = 1,
    dilation: int | Sizes = 1,
    activation: str | None = None,
) -> Tensor:
    """Convolve (N, C, D, H, W), or (C, D, H, W), transposed, with weight (C, O / groups, kD, kH, kW).

    Arguments, result and errors are those of :func:`conv_transpose2d`, with one more axis.
    """
    return apply(3, input, weight, bias, stride, padding, output_padding, groups, dilation, activation)
