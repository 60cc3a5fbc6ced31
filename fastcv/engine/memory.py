"""Memory that the C library keeps between the steps of a training."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the rest of the process; elsewhere nothing happens.

    Otherwise each step asks the system for its large maps anew, and the system fills them with zeros: a quarter of the
    time of a step of YOLO on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        for option, value in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20)):
            mallopt(option, value)
