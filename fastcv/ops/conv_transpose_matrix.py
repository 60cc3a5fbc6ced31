"""The matrix of a one-dimensional transposed convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv.ops._arguments import as_ints, check_tensor, describe_shape
from fastcv.ops.conv_transpose import conv_transpose1d

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
        Differentiable in ``weight``; the gradient is the same on any number of threads.

    Raises
    ------
    ValueError
        For a weight that is no vector, or a geometry without output.
    TypeError
        For an argument of a wrong type.
    MemoryError
        Where there is not so much memory.

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
    if weight.is_complex():
        raise TypeError(f"weight must be of a real dtype, got {str(weight.dtype)[6:]}")
    (step,) = as_ints(stride, 1, "stride", 1)
    (margin,) = as_ints(padding, 1, "padding", 0)
    (columns,) = as_ints(n, 1, "n", 1)
    whole = (columns - 1) * step + weight.shape[0]
    if whole <= 2 * margin:
        raise ValueError(
            f"padding must leave an output of at least one element, got {padding!r}: {whole - 2 * margin} rows"
        )
    if whole + step >= 2**31:
        raise ValueError(f"n and stride must give fewer than 2^31 rows, got {n!r} and {stride!r}")
    # Row after row, the transpose holds a kernel every `whole + step` elements, the last at its very end. In float64
    # every weight is exact, integers up to 2^53, and autocast leaves it alone.
    try:
        ones = weight.new_ones(1, 1, columns, dtype=torch.float64)
        spread = conv_transpose1d(ones, weight.double()[None, None], stride=whole + step).to(weight.dtype)
    except RuntimeError as error:
        if "you tried to allocate" not in str(error):
            raise
        raise MemoryError(f"a matrix of shape ({whole - 2 * margin}, {columns}) could not be allocated") from None
    return spread.view(columns, whole).T[margin : whole - margin]
