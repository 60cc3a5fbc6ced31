"""The learning rate as a function of the step: there is no state to save."""

from __future__ import annotations

import math

__all__ = ["SCHEDULES", "rate_factor"]

SCHEDULES = ("cosine", "step", "one-cycle", "constant")
_LAST = 0.01  # of cosine, of the largest rate
_DROPS = (2 / 3, 8 / 9)  # of step, of all steps
_RISE, _FIRST, _END = 0.25, 1 / 25, 1 / 250_000  # of one-cycle: the rising part; the rates at its ends


def rate_factor(step: int, total: int, schedule: str = "cosine", warmup: float = 0.0) -> float:
    """Return what the learning rate is multiplied by at a step, counted from 0.

    Parameters
    ----------
    step, total : int
        The step, and how many there are.
    schedule : str
        "cosine": half a wave from 1 to 0.01. "step": a tenth from 2/3 of the steps on, a hundredth from 8/9.
        "one-cycle": half a wave from 1/25 to 1 in the first quarter, and one to nearly 0 in the rest; momentum stays
        as it is. "constant": 1.
    warmup : float
        Fraction of the steps in which the rate rises linearly, before the schedule starts. One-cycle has none.
    """
    if schedule == "one-cycle":
        rising = max(1.0, _RISE * total - 1)
        if step < rising:
            return _wave(_FIRST, 1.0, step / rising)
        return _wave(1.0, _END, (step - rising) / max(1.0, total - 1 - rising))
    warm = round(warmup * total)
    if step < warm:
        return (step + 1) / (warm + 1)
    part = (step - warm) / max(1, total - warm)
    if schedule == "cosine":
        return _wave(1.0, _LAST, part)
    if schedule == "step":
        return float(0.1 ** sum(part >= drop for drop in _DROPS))
    return 1.0


def _wave(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * min(part, 1.0))) / 2
