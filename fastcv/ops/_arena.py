"""Where results of networks that run again and again have their memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastcv.ops._call import COMPILED

__all__ = ["arena"]


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
