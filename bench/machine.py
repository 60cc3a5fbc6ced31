"""What the machine itself can do, measured in the same run as the contenders.

A share of a limit means something only when the limit was measured minutes earlier on the same machine. Limits are
the best of several tries: noise can only make a machine look slower than it is.
"""

from __future__ import annotations

import platform
import re
import subprocess
import time
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.harness import CudaTick
from bench.summary import Limits
from fastcv._threads import threads_set_to

TRIES = 7
RESULT_BYTES = 50_000_000  # size of workload A1's result
COPY_BYTES = 200_000_000  # beyond any cache
PACKAGES = ("fastcv", "torch", "torchvision", "spconv", "numpy")


def best_seconds(action: Callable[[], object], device: str) -> float:
    """Shortest time of several tries, after one that does not count."""
    action()
    times = []
    for _ in range(TRIES):
        if device == "cuda":
            tick = CudaTick()
            action()
            times.append(CudaTick() - tick)
        else:
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
    return min(times)


def measure_limits(device: str, threads: int) -> Limits:
    """Measure memory and arithmetic limits.

    Returns
    -------
    dict
        ``write``, ``write_fresh`` (memory that the operating system has yet to hand over, which is what a large
        new result lies in) and ``copy`` (bytes read plus bytes written) in bytes/s; ``gemm_<dtype>`` in FLOP/s.
    """
    limits: Limits = {}
    with threads_set_to(threads):
        touched = torch.zeros(RESULT_BYTES, dtype=torch.uint8, device=device)
        limits["write"] = RESULT_BYTES / best_seconds(lambda: touched.fill_(1), device)
        if device == "cpu":
            fresh = best_seconds(lambda: torch.empty(RESULT_BYTES, dtype=torch.uint8).fill_(1), device)
            limits["write_fresh"] = RESULT_BYTES / fresh
        size = COPY_BYTES * (5 if device == "cuda" else 1)
        source = torch.zeros(size, dtype=torch.uint8, device=device)
        sink = torch.zeros_like(source)
        limits["copy"] = 2 * size / best_seconds(lambda: sink.copy_(source), device)
        side = 8192 if device == "cuda" else 1024
        for name in ("float32", "bfloat16", *(("float16",) if device == "cuda" else ())):
            a, b = (torch.ones(side, side, dtype=getattr(torch, name), device=device) for _ in range(2))
            c = torch.empty_like(a)
            limits[f"gemm_{name}"] = 2 * side**3 / best_seconds(partial(torch.mm, a, b, out=c), device)
    return limits


@lru_cache
def cpu_name() -> str:
    """The processor as people know it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def device_name(device: str, cores: int) -> str:
    """Name of what is measured, such as ``"Intel Xeon Processor @ 2.80GHz, 2 cores"`` or ``"NVIDIA H200"``."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    name = re.sub(r"\s*\((R|TM|tm)\)", "", cpu_name())
    return f"{name}, {cores} cores" if cores > 1 else f"{name}, 1 core"


def package_versions() -> dict[str, str]:
    """Versions of fastcv, torch and the peers, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
