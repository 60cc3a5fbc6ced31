"""Deformable convolution: a convolution whose kernel elements read where an offset sends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from torch import Tensor

from fastcv.ops._arguments import as_ints, new_dense
from fastcv.ops._define import Gradient, define
from fastcv.ops.ordered_sum import ordered_sum

__all__ = ["deform_conv2d"]

Sizes = Sequence[int]


def _fake(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    mask: Tensor | None,
) -> Tensor:
    return new_dense(input, input.shape[0], weight.shape[0], *offset.shape[2:])


def _save(arguments: Any, output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    input, offset, weight, _, *options, mask = arguments
    return (input, offset, weight) if mask is None else (input, offset, weight, mask), options


def _backward(tensors: Any, options: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, offset, weight, *masks = tensors
    needs_input, needs_offset, needs_weight, needs_bias, needs_mask = needs
    gradients: list[Tensor | None] = [None] * 4
    wanted = [needs_input, needs_offset, needs_weight, needs_mask]
    if any(wanted):
        made = _deform_conv2d_backward(grad, input, offset, weight, masks[0] if masks else None, *options, *wanted)
        gradients = [gradient if needed else None for gradient, needed in zip(made, wanted, strict=True)]
    *first, of_mask = gradients
    return *first, ordered_sum(grad, axis=1) if needs_bias else None, of_mask


_deform_conv2d = define(
    "deform_conv2d(Tensor input, Tensor offset, Tensor weight, Tensor? bias, int[] stride, int[] padding, "
    "int[] dilation, Tensor? mask) -> Tensor",
    fake=_fake,
    gradient=Gradient(("input", "offset", "weight", "bias", "mask"), _save, _backward),
    autocast={"cpu": "float32", "cuda": "float32"},
)


def _fake_backward(
    grad: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, *options: Any
) -> tuple[Tensor, ...]:
    _, _, _, needs_input, needs_offset, needs_weight, needs_mask = options
    return (
        new_dense(input, *input.shape) if needs_input else input.new_empty(0),
        offset.new_empty(offset.shape if needs_offset else (0,)),
        weight.new_empty(weight.shape if needs_weight else (0,)),
        input.new_empty(mask.shape if needs_mask and mask is not None else (0,)),
    )


def _save_nothing(arguments: Any, outputs: Any) -> tuple[tuple[Tensor, ...], Any]:
    return (), None


def _refuse(*_: Any) -> NoReturn:
    raise NotImplementedError("deform_conv2d can be differentiated once, not twice")


_deform_conv2d_backward = define(
    "deform_conv2d_backward(Tensor grad_output, Tensor input, Tensor offset, Tensor weight, Tensor? mask, "
    "int[] stride, int[] padding, int[] dilation, bool needs_input, bool needs_offset, bool needs_weight, "
    "bool needs_mask) -> (Tensor, Tensor, Tensor, Tensor)",
    fake=_fake_backward,
    gradient=Gradient(("grad_output", "input", "offset", "weight", "mask"), _save_nothing, _refuse),
)


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sizes = (1, 1),
    padding: int | Sizes = (0, 0),
    dilation: int | Sizes = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Convolve with a kernel whose elements read the input where ``offset`` sends them (deformable convolution).

    Kernel element k of output position p reads input at ``p * stride - padding + k * dilation + offset``, by bilinear
    interpolation between the four pixels around; outside of the map there are zeros. With ``mask`` (v2) what it reads
    is multiplied by a number of its own.

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        float16, bfloat16, float32 or float64, of any strides. Halves are computed in float32, places too.
    offset : Tensor (N, 2 * D * kH * kW, H', W')
        In pixels, for each of D offset groups and each kernel element y, then x. D divides C: channels of one offset
        group share their places. In the dtype of ``input``.
    weight : Tensor (O, C / groups, kH, kW)
        In the dtype of ``input``. Its shape says how many groups of channels there are.
    bias : Tensor (O,), optional
        In the dtype of ``input``.
    stride, dilation : int or (int, int)
        Input pixels between neighbouring output positions, and between neighbouring elements of the kernel.
    padding : int or (int, int)
        Pixels by which the kernel may stand out at each border.
    mask : Tensor (N, D * kH * kW, H', W'), optional
        In the dtype of ``input``.

    Returns
    -------
    Tensor (N, O, H', W')
        ``H' = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1``, and W' alike. In the dtype of ``input``, and
        channels_last when ``input`` is.

    Raises
    ------
    ValueError
        For shapes that do not fit, an input smaller than the kernel, or tensors on different devices.
    TypeError
        For an argument of a wrong type, or tensors of different dtypes.

    Notes
    -----
    Values are those of ``torchvision.ops.deform_conv2d``, and so are the gradients of input, offset, weight, bias and
    mask: an offset's is that towards larger values where it has two. A place y counts where -1 < y < H. An offset that
    is not finite reads zeros and has no gradient. Differentiable once. All results are the same in every run and for
    every number of threads. ``torch.autocast`` lets it compute in float32, as it does torchvision's on CUDA.

    References
    ----------
    Dai et al.: Deformable Convolutional Networks (2017), section 2.1.
    Zhu et al.: Deformable ConvNets v2: More Deformable, Better Results (2019), section 3.2.

    Examples
    --------
    >>> input = torch.rand(4, 3, 10, 10)
    >>> offset, mask = torch.rand(4, 2 * 3 * 3, 8, 8), torch.rand(4, 3 * 3, 8, 8)
    >>> deform_conv2d(input, offset, torch.rand(5, 3, 3, 3), mask=mask).shape
    torch.Size([4, 5, 8, 8])
    """
    output: Tensor = _deform_conv2d(
        input,
        offset,
        weight,
        bias,
        as_ints(stride, 2, "stride", 1, "(height, width)"),
        as_ints(padding, 2, "padding", 0, "(height, width)"),
        as_ints(dilation, 2, "dilation", 1, "(height, width)"),
        mask,
    )
    return output if output.dtype is input.dtype else output.to(input.dtype)  # autocast gives float32
