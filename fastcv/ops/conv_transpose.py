"""Transposed convolution in one, two and three dimensions, with a fused bias and ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_ints, check_tensor, new_dense
from fastcv.ops._call import COMPILED, is_plain
from fastcv.ops._define import Gradient, define
from fastcv.ops.ordered_sum import ordered_sum

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Sizes = Sequence[int]

# output, input and weight are bound by a trilinear form; each of the three operators computes one from the other two,
# so the gradients of each are the other two, to any order. All have the same options, from which
# conv_transpose_bind.cpp works out the sizes.
_OPTIONS = "int[] stride, int[] padding, SymInt[] output_padding, int groups, int[] dilation"


# ---- for tensors without memory --------------------------------------------------------------------------------------


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    groups: int,
    dilation: Sizes,
    *_: Any,
) -> Tensor:
    axes = zip(input.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation, strict=True)
    sizes = [(n - 1) * step - 2 * low + wide * (k - 1) + extra + 1 for n, k, step, low, extra, wide in axes]
    return new_dense(input, input.shape[0], weight.shape[1] * groups, *sizes)


def _fake_input(grad_output: Tensor, weight: Tensor, size: Sizes, *_: Any) -> Tensor:
    return new_dense(grad_output, grad_output.shape[0], weight.shape[0], *size)


def _fake_weight(
    input: Tensor, grad_output: Tensor, kernel_size: Sizes, stride: Any, padding: Any, extra: Any, groups: int, *_: Any
) -> Tensor:
    return input.new_empty((input.shape[1], grad_output.shape[1] // groups, *kernel_size))


# ---- derivatives -----------------------------------------------------------------------------------------------------


def _linear(input: Tensor, weight: Tensor, options: Any) -> Tensor:
    output: Tensor = _conv_transpose(input, weight, None, *options, False, None)
    return output


def _sum_of(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])


def _save(arguments: Any, output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    input, weight, _, *options, relu, _ = arguments
    return (input, weight, output) if relu else (input, weight), (options, output.shape)


def _backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, *output = tensors
    options, _ = constants
    if output:
        grad = torch.ops.aten.threshold_backward(grad, output[0], 0)
    return (
        _input_gradient(grad, weight, input.shape[2:], *options) if needs[0] else None,
        _weight_gradient(input, grad, weight.shape[2:], *options) if needs[1] else None,
        ordered_sum(grad, axis=1) if needs[2] else None,
    )


def _jvp(tensors: Any, constants: Any, *tangents: Tensor | None) -> Tensor:
    input, weight, *output = tensors
    options, shape = constants
    of_input, of_weight, of_bias = tangents
    terms = []
    if of_input is not None:
        terms.append(_linear(of_input, weight, options))
    if of_weight is not None:
        terms.append(_linear(input, of_weight, options))
    if of_bias is not None:
        terms.append(of_bias.reshape(-1, *[1] * (len(shape) - 2)).expand(shape))
    tangent = sum(terms[1:], terms[0])
    return torch.ops.aten.threshold_backward(tangent, output[0], 0) if output else tangent


def _save_pair(arguments: Any, output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    first, second, size, *options = arguments
    return (first, second), (size, options)


def _backward_of_input(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, weight = tensors
    _, options = constants
    return (
        _linear(grad, weight, options) if needs[0] else None,
        _weight_gradient(grad, grad_output, weight.shape[2:], *options) if needs[1] else None,
    )


def _backward_of_weight(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, grad_output = tensors
    _, options = constants
    return (
        _input_gradient(grad_output, grad, input.shape[2:], *options) if needs[0] else None,
        _linear(input, grad, options) if needs[1] else None,
    )


def _jvp_of_pair(of_weight: bool) -> Any:
    def jvp(tensors: Any, constants: Any, *tangents: Tensor | None) -> Tensor:
        first, second = tensors
        size, options = constants
        apply = _weight_gradient if of_weight else _input_gradient
        terms: list[Tensor] = []
        if tangents[0] is not None:
            terms.append(apply(tangents[0], second, size, *options))
        if tangents[1] is not None:
            terms.append(apply(first, tangents[1], size, *options))
        return sum(terms[1:], terms[0])

    return jvp


_conv_transpose = define(
    f"conv_transpose(Tensor input, Tensor weight, Tensor? bias, {_OPTIONS}, bool relu, Tensor? packed) -> Tensor",
    fake=_fake,
    gradient=Gradient(("input", "weight", "bias"), _save, _backward, _jvp),
    autocast={"cpu": "lower", "cuda": "lower"},
)

_input_gradient = define(
    f"conv_transpose_backward_input(Tensor grad_output, Tensor weight, SymInt[] size, {_OPTIONS}) -> Tensor",
    fake=_fake_input,
    gradient=Gradient(("grad_output", "weight"), _save_pair, _backward_of_input, _jvp_of_pair(of_weight=False)),
)

_weight_gradient = define(
    f"conv_transpose_backward_weight(Tensor input, Tensor grad_output, SymInt[] kernel_size, {_OPTIONS}) -> Tensor",
    fake=_fake_weight,
    gradient=Gradient(("input", "grad_output"), _save_pair, _backward_of_weight, _jvp_of_pair(of_weight=True)),
)


# ---- the public functions --------------------------------------------------------------------------------------------


def pack_weight(weight: Tensor, groups: int) -> Tensor | None:
    """Return a weight as the kernels read it, for calls of :func:`apply` to come.

    None where something follows the operations on it, or where it has no memory.
    """
    if not is_plain(weight):
        return None
    packed: Tensor = COMPILED["_C"].conv_transpose_pack(weight, groups)
    return packed


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
    """Convolve along ``dims`` axes, for all three functions. ``packed`` may be the weight from :func:`pack_weight`."""
    check_tensor(input, "input")
    if activation is not None and activation != "relu":
        raise ValueError(f"activation must be None or 'relu', got {activation!r}")
    unbatched = input.dim() == dims + 1
    output: Tensor = _conv_transpose(
        input.unsqueeze(0) if unbatched else input,
        weight,
        bias,
        as_ints(stride, dims, "stride", 1),
        as_ints(padding, dims, "padding", 0),
        as_ints(output_padding, dims, "output_padding", 0),
        groups,
        as_ints(dilation, dims, "dilation", 1),
        activation is not None,
        packed,
    )
    return output.squeeze(0) if unbatched else output


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
