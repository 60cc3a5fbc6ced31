"""Where results of networks that run again and again have their memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fastcv.ops._call import COMPILED, is_plain

__all__ = ["arena", "give_back", "joined_channels"]


@contextmanager
def arena(on: bool) -> Iterator[None]:
    """Results of operators on the CPU come from memory that the process keeps, where ``on``; see csrc/core/arena.h.

    So a second run costs no page faults. What it keeps is at most what was in use at once, and at most 512 MB.
    """
    if not on or torch.compiler.is_compiling():
        yield
        return
    compiled = COMPILED["_C"]
    before = compiled.set_arena(True)
    try:
        yield
    finally:
        compiled.set_arena(before)


def give_back() -> None:
    """Give memory that nobody uses back to the system, such as that of weights before they were folded."""
    COMPILED["_C"].release_arena()


def joined_channels(maps: Sequence[Tensor], on: bool) -> Tensor:
    """Return maps (N, C_i, H, W) side by side, (N, C, H, W), in memory of the :func:`arena` where ``on``."""
    first = maps[0]
    dtypes = {each.dtype for each in maps}
    if not on or len(dtypes) > 1 or not all(is_plain(each) and each.is_cpu for each in maps):
        return torch.cat(list(maps), 1)
    if torch.is_grad_enabled() and any(each.requires_grad for each in maps):
        return torch.cat(list(maps), 1)
    output: Tensor = COMPILED["_C"].empty_in_arena(first, sum(each.shape[1] for each in maps))
    return torch.cat(list(maps), 1, out=output)
