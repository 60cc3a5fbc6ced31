"""Bilinear interpolation of a map to another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import as_float, as_pair, check_tensor, describe_shape, new_dense
from fastcv.ops._define import define

__all__ = ["upsample_bilinear2d"]


def _fake(images: Tensor, height: int, width: int, *_: Any) -> Tensor:
    return new_dense(images, images.shape[0], images.shape[1], height, width)


# The op is linear in its input, and each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shape: Any, height: int, width: int, *options: Any) -> Any:
    return _upsample_bilinear2d_backward(grad_output, shape[2], shape[3], *options)


def _adjoint_gradient(grad: Tensor, shape: Any, height: int, width: int, *options: Any) -> Any:
    return _upsample_bilinear2d(grad, shape[2], shape[3], *options)


_OPTIONS = "SymInt height, SymInt width, bool align_corners, float step_height, float step_width"

_upsample_bilinear2d = define(
    f"upsample_bilinear2d(Tensor input, {_OPTIONS}) -> Tensor",
    fake=_fake,
    adjoint=_adjoint,
    autocast={"cuda": "float32"},
)

_upsample_bilinear2d_backward = define(
    f"upsample_bilinear2d_backward(Tensor grad_output, {_OPTIONS}) -> Tensor", fake=_fake, adjoint=_adjoint_gradient
)


def upsample_bilinear2d(
    input: Tensor,
    output_size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Interpolate a map bilinearly to another size.

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        float16, bfloat16, float32 or float64, of any strides; with at least one pixel. Positions, weights and sums are
        float32, or float64 for float64.
    output_size : int or (int, int), optional
        Height and width of the result, P and Q.
    scale_factor : float or (float, float), optional
        In place of ``output_size``: P = floor(H * scale_factor), and 1 / ``scale_factor`` is the step of the input.
    align_corners : bool
        Let the centres of the corner pixels of input and output coincide; otherwise the corners of the images do.

    Returns
    -------
    Tensor (N, C, P, Q)
        In the dtype of ``input``, and channels_last when ``input`` is.

    Raises
    ------
    ValueError
        For a tensor of another shape, for sizes or factors that are not positive, or unless just one of ``output_size``
        and ``scale_factor`` is given.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable, twice and in forward mode; the gradient is deterministic. Values are those of
    ``torch.nn.functional.interpolate(..., mode="bilinear")``, without antialiasing.

    Examples
    --------
    >>> upsample_bilinear2d(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), scale_factor=2)
    tensor([[[[1.0000, 1.2500, 1.7500, 2.0000],
              [1.5000, 1.7500, 2.2500, 2.5000],
              [2.5000, 2.7500, 3.2500, 3.5000],
              [3.0000, 3.2500, 3.7500, 4.0000]]]])
    """
    if (output_size is None) == (scale_factor is None):
        raise ValueError(
            f"one of output_size and scale_factor must be given, got output_size {output_size!r} and scale_factor "
            f"{scale_factor!r}"
        )
    output: Tensor
    if output_size is not None:
        height, width = as_pair(output_size, "output_size")
        output = _upsample_bilinear2d(input, height, width, align_corners, 0.0, 0.0)
        return output
    check_tensor(input, "input")
    factor_y, factor_x = _as_factors(scale_factor)
    shape = input.shape
    if len(shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {describe_shape(input)}")
    height, width = math.floor(shape[2] * factor_y), math.floor(shape[3] * factor_x)
    if not (0 < height < 2**63 and 0 < width < 2**63):
        raise ValueError(
            f"scale_factor must leave a size from 1 to 2^63 of an input of shape {describe_shape(input)}, got "
            f"{scale_factor!r}"
        )
    output = _upsample_bilinear2d(input, height, width, align_corners, 1 / factor_y, 1 / factor_x)
    return output


def _as_factors(value: Any) -> tuple[float, float]:
    """Return the scale factor of both axes, as positive finite numbers."""
    if type(value) in (float, int) and 0 < value < math.inf:
        return float(value), float(value)
    try:
        given = tuple(value)
    except TypeError:
        given = (value, value)
    try:
        factors = [as_float(factor, "scale_factor") for factor in given]
    except TypeError:
        factors = []
    if len(factors) != 2:
        raise TypeError(f"scale_factor must be a number or two numbers (height, width), got {value!r}")
    for factor in factors:
        if not 0 < factor < math.inf:
            raise ValueError(f"scale_factor must be positive and finite, got {value!r}")
    return factors[0], factors[1]
