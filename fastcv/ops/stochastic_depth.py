"""Stochastic depth: branches of a network that are dropped at random in training. torch's operations, no kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._layers import found_in_nn

__all__ = ["stochastic_depth"]


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """Replace the whole input, or some of its rows, by zeros, and scale the rest up by ``1 / (1 - p)``.

    Parameters
    ----------
    input : Tensor (N, ...)
        Of a floating dtype.
    p : float
        Probability of a zero, in [0, 1].
    mode : str
        ``"batch"`` to drop all or nothing, ``"row"`` to draw for each row.
    training : bool
        Without it the input is returned.

    Returns
    -------
    Tensor (N, ...)
        The same numbers are drawn as by ``torchvision.ops.stochastic_depth`` from the same seed.

    Raises
    ------
    ValueError
        For a ``p`` outside [0, 1] or another ``mode``.

    References
    ----------
    Huang et al.: Deep Networks with Stochastic Depth (2016).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}")
    if mode not in ("batch", "row"):
        raise ValueError(f"mode must be 'batch' or 'row', got {mode!r}")
    if not training or p == 0:
        return input
    rows = input.shape[0] if mode == "row" else 1
    kept = torch.empty([rows] + [1] * (input.dim() - 1) if input.dim() else [], dtype=input.dtype, device=input.device)
    kept.bernoulli_(1.0 - p)
    if p < 1:
        kept.div_(1.0 - p)
    return input * kept


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("StochasticDepth",))
