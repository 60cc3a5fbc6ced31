"""Fixed-size results: one tensor for a batch of images, of which only the first ``count`` rows of each are valid."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["can_read_values", "drop_padding", "gather_rows", "rows_needed"]


def can_read_values(tensor: Tensor) -> bool:
    """Whether sizes may depend on values: on a CPU, where reading them costs nothing, and not in a compiled graph."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def rows_needed(count: Tensor, capacity: int) -> int:
    """Return how many rows per image to keep: the largest count where it can be read, else all of them."""
    return int(count.max()) if can_read_values(count) else capacity


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return the rows (N, K, D) of (N, R, D) at ``index`` (N, K); a negative index gives an arbitrary row."""
    return rows.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, rows.shape[2]))


def drop_padding(kept: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Remove padding from the result of non-maximum suppression.

    Rows that only fill the tensor up have a score of minus infinity: they come last and suppress only each other.

    Parameters
    ----------
    kept : Tensor (N, M)
        Indices of the kept boxes by descending score, then -1.
    scores : Tensor (N, K)
        Scores that went into the suppression.

    Returns
    -------
    index : Tensor (N, M)
        ``kept`` with -1 in place of padding.
    count : Tensor (N,)
        How many are valid.
    """
    if not scores.shape[1]:
        return kept, kept.new_zeros(kept.shape[:1])
    valid = (kept >= 0) & (scores.gather(1, kept.clamp(min=0)) > -torch.inf)
    return kept.masked_fill(~valid, -1), valid.sum(1)
