"""The matrix of a one-dimensional transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops.conv_transpose import _sizes

__all__ = ["conv_transpose_matrix"]


def conv_transpose_matrix(weight: Tensor, stride: int, padding: int, n: int) -> Tensor:
    """Return the matrix that a one-dimensional transposed convolution multiplies its input with.

    Column i holds the kernel, moved down by ``i * stride - padding``: an ordinary convolution with that stride and
    padding is multiplication by the transpose, which is where the name comes from.

    Parameters
    ----------
    weight : Tensor (k,)
        The kernel.
    stride, padding : int
        As in :func:`conv_transpose1d`.
    n : int
        Length of the input.

    Returns
    -------
    Tensor ((n - 1) * stride - 2 * padding + k, n)
        Differentiable in ``weight``.

    Raises
    ------
    ValueError
        For a weight that is no vector, or a geometry without output.
    TypeError
        For an argument of a wrong type.

    Examples
    --------
    >>> conv_transpose_matrix(torch.tensor([1.0, 2.0, 3.0]), stride=2, padding=0, n=2)
    tensor([[1., 0.],
            [2., 0.],
            [3., 1.],
            [0., 2.],
            [0., 3.]])
    """
    check_tensor(weight, "weight")
    if weight.dim() != 1 or weight.shape[0] < 1:
        raise ValueError(f"weight must have shape (k,), got {describe_shape(weight)}")
    (step,) = _sizes(stride, 1, "stride", 1)
    (margin,) = _sizes(padding, 1, "padding", 0)
    (columns,) = _sizes(n, 1, "n", 1)
    rows = (columns - 1) * step - 2 * margin + weight.shape[0]
    if rows < 1:
        raise ValueError(f"padding must leave an output of at least one element, got {padding!r}: {rows} rows")
    row = torch.arange(rows, device=weight.device)[:, None]
    tap = row + margin - torch.arange(columns, device=weight.device) * step
    inside = (tap >= 0) & (tap < weight.shape[0])
    return torch.where(inside, weight[tap.clamp(0, weight.shape[0] - 1)], 0)
