"""How numbers are written in tables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bench.summary import Row


def slug(name: str) -> str:
    """A folder's name made of a device's name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def digits(value: float) -> str:
    """Three significant digits, never in exponents: ``0.123``, ``4.56``, ``78.9``, ``1234``."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def duration(seconds: float) -> str:
    """Seconds as µs or ms."""
    return f"{digits(seconds * 1e6)} µs" if seconds < 1e-3 else f"{digits(seconds * 1e3)} ms"


def factor(ratio: float | None) -> str:
    """How many times faster than the peer."""
    return "–" if ratio is None else f"{digits(ratio)}×"


def percent(share: float | None) -> str:
    """A share in per cent."""
    if share is None:
        return "–"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %" if share >= 1e-4 else "< 0.01 %"


def rate(row: Row) -> str:
    """Throughput: arithmetic where the workload declares it, otherwise bytes moved."""
    if row.flops:
        return f"{digits(row.flops / row.seconds / 1e9)} GFLOP/s"
    return f"{digits(row.bytes / row.seconds / 1e9)} GB/s" if row.bytes else "–"


def target(asked: Mapping[str, float]) -> str:
    """What is asked for, in words."""
    parts = []
    if "ratio" in asked:
        parts.append(f"≥ {digits(asked['ratio'])}×")
    if "share" in asked:
        parts.append(f"≥ {percent(asked['share'])}")
    if "seconds" in asked:
        parts.append(f"≤ {duration(asked['seconds'])}")
    return ", ".join(parts) or "–"


def verdict(met: bool | None) -> str:
    """Whether the target is met."""
    return "–" if met is None else "yes" if met else "no"


def limit_lines(limits: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The machine's limits, one line per thread count."""
    names = {"copy": "copy", "write": "write into touched memory", "write_fresh": "write into fresh memory"}
    lines = []
    for threads, measured in limits.items():
        parts = [f"{names[key]} {digits(value / 1e9)} GB/s" for key, value in measured.items() if key in names]
        for key, value in measured.items():
            if key.startswith("gemm_"):
                parts.append(f"{key.removeprefix('gemm_')} matrix product {digits(value / 1e9)} GFLOP/s")
        lines.append(f"{threads} thread{'' if threads == '1' else 's'}: " + ", ".join(parts))
    return lines
