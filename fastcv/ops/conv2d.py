"""Convolution in two dimensions for inference, with bias, an addition and an activation on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import as_ints, check_tensor, new_dense
from fastcv.ops._call import COMPILED, is_plain
from fastcv.ops._define import Gradient, define

__all__ = ["conv2d"]

Sizes = Sequence[int]


# ---- for tensors without memory --------------------------------------------------------------------------------------


def _fake(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes, *_: Any
) -> Tensor:
    sizes = [
        (input.shape[2 + i] + padding[i] + padding[2 + i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i]
        + 1
        for i in range(2)
    ]
    return new_dense(input, input.shape[0], weight.shape[0], *sizes)


# ---- no derivatives --------------------------------------------------------------------------------------------------


def _save(arguments: Any, output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
    return (), None


def _backward(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "fastcv.ops.conv2d is for inference and has no gradient: train with torch.nn.functional.conv2d"
    )


_conv2d = define(
    "conv2d(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups, "
    "Tensor? residual, str? activation, float negative_slope, bool exact, Tensor? packed) -> Tensor",
    fake=_fake,
    gradient=Gradient(("input", "weight", "bias", "residual"), _save, _backward),
    autocast={"cpu": "lower", "cuda": "lower"},
)


# ---- the public functions --------------------------------------------------------------------------------------------


def _around(padding: int | Sizes | str, weight: Tensor, stride: Sizes, dilation: Sizes) -> tuple[int, ...]:
    """Return the padding before y, before x, after y and after x."""
    if padding == "same":
        if tuple(stride) != (1, 1):
            raise ValueError(f"padding must be numbers where stride is not 1, got 'same' and stride {tuple(stride)}")
        check_tensor(weight, "weight")
        if weight.dim() == 4:
            both = [dilation[i] * (weight.shape[2 + i] - 1) for i in range(2)]
            return (*(total // 2 for total in both), *(total - total // 2 for total in both))
        padding = 0  # the compiled function refuses the weight
    if padding == "valid":
        padding = 0
    elif isinstance(padding, str):
        raise ValueError(f"padding must be 'same', 'valid', an int or two ints, got {padding!r}")
    return as_ints(padding, 2, "padding", 0) * 2


def apply(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int | Sizes,
    padding: int | Sizes | str,
    dilation: int | Sizes,
    groups: int,
    residual: Tensor | None,
    activation: str | None,
    negative_slope: float,
    exact: bool,
    packed: dict[int, Tensor] | None = None,
    takes_over: bool = False,
) -> Tensor:
    """Convolve. ``packed`` is what earlier calls with this weight have packed, by tile; this one adds what it lacks.

    With ``takes_over``, of plain tensors without gradients, the result may be written over ``residual``; of one that is
    smaller the nearest pixels are added.
    """
    check_tensor(input, "input")
    if not isinstance(activation, str) and activation is not None:
        raise TypeError(f"activation must be None or a str, got {type(activation).__name__}")
    unbatched = input.dim() == 3
    if unbatched:
        input = input.unsqueeze(0)
        residual = residual.unsqueeze(0) if isinstance(residual, Tensor) else residual
    steps, gaps = as_ints(stride, 2, "stride", 1), as_ints(dilation, 2, "dilation", 1)
    around = _around(padding, weight, steps, gaps)
    made = None
    if packed is not None and input.is_cpu and is_plain(input) and is_plain(weight):
        tile = COMPILED["_C"].conv2d_tile(input, weight, steps, around, gaps, groups, exact)
        made = packed.get(tile)
        if made is None:
            made = packed[tile] = COMPILED["_C"].conv2d_pack(weight, groups, tile)
    options = (groups, residual, activation, negative_slope, exact, made)
    call = COMPILED["_C"].conv2d_taking_over if takes_over and residual is not None else _conv2d
    output: Tensor = call(input, weight, bias, steps, around, gaps, *options)
    return output.squeeze(0) if unbatched else output


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sizes = 1,
    padding: int | Sizes | str = 0,
    dilation: int | Sizes = 1,
    groups: int = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
    exact: bool = False,
) -> Tensor:
    """Convolve in two dimensions, for inference, and add and activate on the way out.

    ``activation(conv2d(input, weight, bias) + residual)`` in one pass. Along each axis the sum is
    ``output[i] = sum over k of input[i * stride - padding + k * dilation] * weight[k]``, as in
    ``torch.nn.functional.conv2d``.

    Parameters
    ----------
    input : Tensor (N, C, H, W) or (C, H, W)
        float16, bfloat16, float32 or float64, of any strides; on the CPU channels_last is what the kernels work in, and
        other layouts are converted on the way in and out. Sums are kept in float32, or in float64 for float64.
    weight : Tensor (O, C / groups, kH, kW)
        In the dtype of ``input``.
    bias : Tensor (O,), optional
        In the dtype of ``input``.
    stride, dilation : int or (int, int)
        Input pixels between neighbouring outputs, and between neighbouring elements of the kernel.
    padding : int, (int, int), 'same' or 'valid'
        Zeros at each border. 'same' keeps the size (stride 1 only), 'valid' is 0.
    groups : int
        Blocks of channels that do not mix; divides C and O. As many groups as channels is a depthwise convolution.
    residual : Tensor (N, O, H', W') or (O, H', W'), optional
        Added before the activation; in the dtype of ``input``.
    activation : None, 'relu', 'leaky_relu' or 'silu'
        Applied to the result, before it is rounded to the dtype of ``input``.
    negative_slope : float
        Of 'leaky_relu'.
    exact : bool
        Whether to do without Winograd's minimal filtering; see the notes.

    Returns
    -------
    Tensor (N, O, H', W') or (O, H', W')
        ``H' = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1``, and W' alike. In the dtype of ``input``, and
        channels_last when ``input`` is.

    Raises
    ------
    ValueError
        For shapes or groups that do not fit, a geometry without output, an unknown activation, or tensors on different
        devices.
    TypeError
        For an argument of a wrong type, or tensors of different dtypes.
    NotImplementedError
        When a gradient of the result is asked for.

    Notes
    -----
    On the CPU kernels of 3 x 3 elements with stride 1 or 2, in one group and not in float64, are computed by Winograd's
    minimal filtering where a model of costs (csrc/ops/conv2d/conv2d.h) finds it faster: tiles of 6 x 6 results from
    8 x 8 inputs need 64 products where a direct sum needs 324, tiles of 4 x 4 need 36 of 144, tiles of 2 x 2 need 16 of
    36, with stride 2 (not in bfloat16) from 5 x 5 inputs 25 of 36. The rounding error grows from 1e-6 to about 1e-5 of
    the largest output, 2e-5 with tiles of 6 x 6; with stride 2 it does not. An infinity or NaN in the input, which a
    direct sum spreads to the outputs whose kernel covers it, spreads to all outputs of the tiles that read it, at most
    8 x 8 inputs each. ``exact=True`` sums directly.

    Each call transforms and packs the weight; :class:`fastcv.nn.Conv2d` keeps what it has packed. Results are the same
    on any number of threads.

    Halves are converted to float32 on the way in and rounded once on the way out. On a CPU with AVX512-BF16 its
    instruction multiplies bfloat16 in direct sums over an even number of channels, sums in float32 and takes subnormal
    numbers for zeros; ``FASTCV_CPU_VARIANT=avx512`` in the environment keeps all products in float32.

    On CUDA this is torch's own convolution (cuDNN) followed by the addition and the activation.

    References
    ----------
    Winograd: Arithmetic complexity of computations (1980).
    Lavin, Gray: Fast algorithms for convolutional neural networks (2016).

    Examples
    --------
    >>> features = torch.randn(1, 64, 56, 56).contiguous(memory_format=torch.channels_last)
    >>> conv2d(features, torch.randn(64, 64, 3, 3), padding=1, residual=features, activation="relu").shape
    torch.Size([1, 64, 56, 56])
    """
    return apply(input, weight, bias, stride, padding, dilation, groups, residual, activation, negative_slope, exact)
