"""Peak of memory and page faults of a detector: ``python -m bench.models.memory_rcnn [MODEL] [PACKAGE] [optimize]``.

A process of its own for each figure; what making the weights took is gone before the first call.
"""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

from bench.models.bench_rcnn import detector, image, weights
from fastcv.ops._call import COMPILED


def resident(key: str) -> int:
    """Megabytes of this process: VmRSS now, or VmHWM at most since :func:`forget_peak`."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) // 1024


def forget_peak() -> None:
    """Start the peak anew, where the system allows it."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Print a line per call."""
    name, package, how = [*sys.argv[1:], *("maskrcnn_resnet50_fpn", "fastcv", "")[len(sys.argv) - 1 :]][:3]
    detect = detector(package, name, "float32" if how else "")
    weights.cache_clear()
    gc.collect()
    forget_peak()
    print(f"ready       {resident('VmRSS')} MB")
    for call in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        detect([image()])
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        used, free = (size >> 20 for size in COMPILED["_C"].arena_use())
        print(
            f"call {call}: peak {resident('VmHWM')} MB, {faults} page faults; the arena keeps {free} MB, {used} in use"
        )


if __name__ == "__main__":
    main()
