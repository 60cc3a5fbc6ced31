"""Bilinear interpolation of a map to another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_pair, as_result_layout, check_tensor, describe_shape, new_dense
from fastcv.ops._define import Operator

__all__ = ["upsample_bilinear2d"]


def _step(size: int, output: int, align_corners: bool, given: float) -> float:
    """Return the input's pixels per output pixel; ``given`` counts unless it is 0."""
    if align_corners:
        return (size - 1) / (output - 1) if output > 1 else 0.0
    return given if given > 0 else size / output


def _allocate(
    input: Tensor, height: int, width: int, align_corners: bool, step_height: float, step_width: float
) -> Tensor:
    shape = input.shape
    if len(shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {describe_shape(input)}")
    if shape[2] == 0 or shape[3] == 0:
        raise ValueError(f"input must have pixels, got shape {describe_shape(input)}")
    return new_dense(input, shape[0], shape[1], height, width)


def _forward(
    input: Tensor, height: int, width: int, align_corners: bool, step_height: float, step_width: float
) -> Tensor:
    output = _allocate(input, height, width, align_corners, step_height, step_width)
    _, _, input_height, input_width = input.shape
    step_y = _step(input_height, height, align_corners, step_height)
    step_x = _step(input_width, width, align_corners, step_width)
    _C.upsample_bilinear2d_forward(output, as_result_layout(input), align_corners, step_y, step_x)
    return output


def _allocate_gradient(grad_output: Tensor, height: int, width: int, *_: Any) -> Tensor:
    shape = grad_output.shape
    if len(shape) != 4 or shape[2] == 0 or shape[3] == 0:
        raise ValueError(f"grad_output must have shape (N, C, P, Q) with pixels, got {describe_shape(grad_output)}")
    return new_dense(grad_output, shape[0], shape[1], height, width)


def _forward_gradient(
    grad_output: Tensor, height: int, width: int, align_corners: bool, step_height: float, step_width: float
) -> Tensor:
    grad_input = _allocate_gradient(grad_output, height, width)
    step_y = _step(height, grad_output.shape[2], align_corners, step_height)
    step_x = _step(width, grad_output.shape[3], align_corners, step_width)
    _C.upsample_bilinear2d_backward(grad_input, as_result_layout(grad_output), align_corners, step_y, step_x)
    return grad_input


# The op is linear in its input, and each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shape: Any, height: int, width: int, *options: Any) -> Any:
    return _upsample_bilinear2d_backward(grad_output, shape[2], shape[3], *options)


def _adjoint_gradient(grad: Tensor, shape: Any, height: int, width: int, *options: Any) -> Any:
    return _upsample_bilinear2d(grad, shape[2], shape[3], *options)


_upsample_bilinear2d = Operator(
    "upsample_bilinear2d(Tensor input, SymInt height, SymInt width, bool align_corners, float step_height, "
    "float step_width) -> Tensor",
    forward=_forward,
    fake=_allocate,
    adjoint=_adjoint,
)

_upsample_bilinear2d_backward = Operator(
    "upsample_bilinear2d_backward(Tensor grad_output, SymInt height, SymInt width, bool align_corners, "
    "float step_height, float step_width) -> Tensor",
    forward=_forward_gradient,
    fake=_allocate_gradient,
    adjoint=_adjoint_gradient,
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
        For an argument that is no tensor or of an unsupported dtype.

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
    check_tensor(input, "input")
    if (output_size is None) == (scale_factor is None):
        raise ValueError(
            f"one of output_size and scale_factor must be given, got output_size {output_size!r} and scale_factor "
            f"{scale_factor!r}"
        )
    output: Tensor
    if output_size is not None:
        height, width = as_pair(output_size, "output_size")
        output = _upsample_bilinear2d.call(input, height, width, align_corners, 0.0, 0.0)
        return output
    factor_y, factor_x = _as_factors(scale_factor)
    shape = input.shape
    if len(shape) != 4:
        raise ValueError(f"input must have shape (N, C, H, W), got {describe_shape(input)}")
    height, width = math.floor(shape[2] * factor_y), math.floor(shape[3] * factor_x)
    if height <= 0 or width <= 0:
        raise ValueError(f"scale_factor {scale_factor!r} leaves nothing of an input of shape {describe_shape(input)}")
    output = _upsample_bilinear2d.call(input, height, width, align_corners, 1 / factor_y, 1 / factor_x)
    return output


def _as_factors(value: Any) -> tuple[float, float]:
    """Return the scale factor of both axes, as positive finite numbers."""
    kind = type(value)
    if (kind is float or kind is int) and 0 < value < math.inf:
        return float(value), float(value)
    pair = (value, value) if isinstance(value, int | float) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(f, int | float) for f in pair):
        raise TypeError(f"scale_factor must be a number or two numbers (height, width), got {value!r}")
    if not all(0 < factor < math.inf for factor in pair):
        raise ValueError(f"scale_factor must be positive and finite, got {value!r}")
    return float(pair[0]), float(pair[1])
