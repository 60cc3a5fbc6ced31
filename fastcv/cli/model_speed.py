"""Times of a whole network by all contenders, taking turns in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from torch import Tensor

from fastcv._threads import threads_set_to
from fastcv.cli.contenders import CONTENDERS, Network

__all__ = ["Comparison", "compare"]

TOLERANCE = 1e-2  # of the largest number: how far answers may lie apart


@dataclass
class Comparison:
    """What was measured.

    Attributes
    ----------
    title : str
        Of the network.
    threads : list of int
        Numbers of threads.
    seconds : dict
        Median of each contender, by number of threads.
    missing : dict
        Contenders that are left out, and why.
    """

    title: str
    threads: list[int]
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def ratio(self, contender: str, threads: int) -> float:
        """How many times faster fastcv is than a contender."""
        return self.seconds[contender][threads] / self.seconds["fastcv"][threads]


def compare(
    network: Network, threads: Sequence[int], rounds: int, progress: Callable[[str], None] = lambda _: None
) -> Comparison:
    """Run a network by all contenders in turn, so that a slow moment of the machine falls on all of them.

    Parameters
    ----------
    network : Network
        From :data:`fastcv.cli.contenders.MODELS`.
    threads : sequence of int
        One comparison for each.
    rounds : int
        Turns that count; there is one more before, to warm up.
    progress : callable
        Is told what happens next.
    """
    result = Comparison(network.title, list(threads))
    for count in threads:
        with threads_set_to(count):
            calls = _prepare(network, count, result, progress)
            times: dict[str, list[float]] = {name: [] for name in calls}
            for turn in range(rounds + 1):
                progress(f"{count} thread{'s' if count > 1 else ''}, round {turn} of {rounds}")
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    if turn > 0:
                        times[name].append(time.perf_counter() - start)
        for name, taken in times.items():
            result.seconds.setdefault(name, {})[count] = median(taken)
    return result


def _prepare(
    network: Network, threads: int, result: Comparison, progress: Callable[[str], None]
) -> dict[str, Callable[[], list[Tensor]]]:
    """The contenders that are there and give the same answer as PyTorch."""
    expected = network.run(network.plain)
    calls = {}
    for name, make in CONTENDERS.items():
        if name in result.missing:
            continue
        progress(f"preparing {name}")
        try:
            call = make(network, threads)
            answer = call()
        except ImportError as error:
            result.missing[name] = str(error)
        except Exception as error:  # of another project, in whose code anything can happen
            if name in ("fastcv", "PyTorch"):
                raise
            result.missing[name] = (str(error).strip().splitlines() or [type(error).__name__])[0]
        else:
            if not _agree(answer, expected):
                result.missing[name] = "its answer is another"
                continue
            calls[name] = call
    return calls


def _agree(answer: list[Tensor], expected: list[Tensor]) -> bool:
    """Of detections the scores: boxes whose scores nearly tie may change places."""
    if len(expected) > 2:  # boxes, labels, scores, masks
        answer, expected = answer[2:3], expected[2:3]
    return len(answer) == len(expected) and all(
        a.shape == b.shape and bool((a - b).abs().amax() <= TOLERANCE * b.abs().amax()) if b.numel() else True
        for a, b in zip(answer, expected, strict=True)
    )
