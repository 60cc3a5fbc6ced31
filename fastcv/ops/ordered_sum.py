"""Sums that do not depend on the number of threads; other operators are made with them."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fastcv.ops._define import define

__all__ = ["ordered_sum", "reduce_loss"]


def _fake(input: Tensor, axis: int | None, mean: bool) -> Tensor:
    return input.new_empty(() if axis is None else (input.shape[axis],))


def _adjoint(grad: Tensor, shape: Any, axis: int | None, mean: bool) -> Tensor:
    count = math.prod(size for i, size in enumerate(shape) if i != axis)
    if axis is not None:
        grad = grad.reshape([size if i == axis else 1 for i, size in enumerate(shape)])
    return (grad / count if mean else grad).expand(shape)


_ordered_sum = define("ordered_sum(Tensor input, int? axis, bool mean) -> Tensor", fake=_fake, adjoint=_adjoint)


def ordered_sum(input: Tensor, axis: int | None = None, mean: bool = False) -> Tensor:
    """Sum over all axes but one, with the same bits in every run and for every number of threads.

    Parameters
    ----------
    input : Tensor (...)
        float16, bfloat16, float32 or float64, of any strides.
    axis : int or None
        The axis that is kept, not negative; None to sum over all.
    mean : bool
        Divide by the number of elements that were summed.

    Returns
    -------
    Tensor (size of the axis,), or () without one
        In the dtype of ``input``. The sum of nothing is 0, its mean NaN.

    Raises
    ------
    ValueError
        For an axis that ``input`` does not have.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Pieces of a fixed size are summed in parallel, then the pieces in order. Sums of more than four elements are kept in
    float64, and the result is rounded once: it is at least as exact as that of ``torch.sum``, which splits a sum by the
    number of threads. Differentiable any number of times and in forward mode.

    Examples
    --------
    >>> ordered_sum(torch.ones(2, 3, 4), axis=1)
    tensor([8., 8., 8.])
    """
    total: Tensor = _ordered_sum(input, axis, mean)
    return total


def reduce_loss(loss: Tensor, reduction: str) -> Tensor:
    """Return the loss, its mean or its sum: ``reduction`` is ``"none"``, ``"mean"`` or ``"sum"``."""
    return loss if reduction == "none" else ordered_sum(loss, None, reduction == "mean")
