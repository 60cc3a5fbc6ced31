"""Results of fixed size: so many rows per image, of which the first ``count`` are meant."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["decide", "gather_rows", "is_dynamic", "narrowest"]


def is_dynamic(tensor: Tensor) -> bool:
    """Whether sizes may follow from values: on a CPU, where looking costs nothing, and not in a compiled graph."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def narrowest(count: Tensor, capacity: int) -> int:
    """Return how many rows have to be carried on: what is needed where that may be looked at, else all."""
    return int(count.max()) if is_dynamic(count) else capacity


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return the rows (N, K, D) of (N, R, D) at ``index`` (N, K); a negative index gives any row."""
    return rows.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, rows.shape[2]))


def decide(kept: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Take from the result of a suppression the boxes that were no candidates.

    Candidates that are none have a score of minus infinity. They come last and suppress only each other.

    Parameters
    ----------
    kept : Tensor (N, M)
        Indices by descending score, then -1.
    scores : Tensor (N, K)
        What was suppressed by.

    Returns
    -------
    index : Tensor (N, M)
        With -1 in place of those.
    count : Tensor (N,)
        How many are left.
    """
    if not scores.shape[1]:
        return kept, kept.new_zeros(kept.shape[:1])
    real = (kept >= 0) & (scores.gather(1, kept.clamp(min=0)) > -torch.inf)
    return kept.masked_fill(~real, -1), real.sum(1)
