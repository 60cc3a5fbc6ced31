"""Focal loss of logits, for dense detection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import check_reduction
from fastcv.ops._gradient_pair import define_with_gradient_pair
from fastcv.ops.ordered_sum import reduce_loss

__all__ = ["sigmoid_focal_loss"]


def _fake(inputs: Tensor, targets: Tensor, *_: Any) -> Tensor:
    return inputs.new_empty(inputs.shape, dtype=torch.promote_types(inputs.dtype, targets.dtype))


_sigmoid_focal_loss = define_with_gradient_pair(
    "sigmoid_focal_loss",
    "inputs",
    "targets",
    "float alpha, float gamma",
    _fake,
    autocast={"cpu": "float32", "cuda": "float32"},
)


def sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    """Cross entropy of logits, weighted down where the prediction is right already.

    Parameters
    ----------
    inputs : Tensor (...)
        Logits: float16, bfloat16, float32 or float64. Half types are computed in float32 and rounded once.
    targets : Tensor (...)
        Labels, 0 to 1, of the shape of ``inputs`` and of any of these dtypes.
    alpha : float
        Weight of positives, in [0, 1]; negatives have 1 - alpha. -1 for no weights.
    gamma : float
        Exponent of the modulating factor, not negative.
    reduction : str
        ``"none"``, ``"mean"`` or ``"sum"``.

    Returns
    -------
    Tensor (...), or () when reduced
        In the dtype that torch promotes both to; under ``torch.autocast`` float32. The mean of nothing is NaN.

    Raises
    ------
    ValueError
        For targets of another shape or on another device, an ``alpha`` or a ``gamma`` outside its range, or another
        ``reduction``.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Values and gradients, to inputs and to targets, are those of ``torchvision.ops.sigmoid_focal_loss``, without its
    loss of digits for confident predictions. A sum and a mean have the same bits for every number of threads.
    Differentiable once.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár: Focal Loss for Dense Object Detection (2017), equation 5.
    """
    check_reduction(reduction)
    return reduce_loss(_sigmoid_focal_loss(inputs, targets, alpha, gamma), reduction)
