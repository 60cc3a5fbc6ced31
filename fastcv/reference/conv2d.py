"""Convolution with an addition and an activation behind it, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

__all__ = ["conv2d"]


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    negative_slope: float = 0.01,
    exact: bool = False,
) -> Tensor:
    """Convolve, add, activate, one after the other; see :func:`fastcv.ops.conv2d`. ``exact`` changes nothing."""
    output = F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if residual is not None:
        output = output + residual
    if activation == "relu":
        return F.relu(output)
    if activation == "leaky_relu":
        return F.leaky_relu(output, negative_slope)
    return F.silu(output) if activation == "silu" else output
