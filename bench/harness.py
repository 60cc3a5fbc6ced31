"""Runs workloads: which cases there are, in which order, and how one is timed."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch

from bench.workloads import Contender, Problem, Variant, Workload
from fastcv._threads import threads_set_to, usable_cores

SECONDS_PER_TURN = 0.2  # short turns, many of them: bursts of noise then fall on all contenders alike
FEWEST_ROUNDS, MOST_ROUNDS = 2, 10
HALF_SCALE = 50  # by how much half types may deviate more: torchvision computes coordinates in them, 2 % off
FLUSH_BYTES = 256 << 20  # several times the second-level cache of the largest GPU


@dataclass(frozen=True)
class Case:
    """One contender's turn at one workload."""

    workload: Workload
    variant: Variant
    threads: int
    repeat: int
    contender: str

    @property
    def id(self) -> str:
        """Readable name of the test item, good for ``-k``."""
        variant = self.variant
        parts = (self.workload.id, variant.device, variant.dtype, variant.layout)
        return "-".join((*parts, f"{self.threads}t", str(self.repeat), self.contender))


def list_cases(
    workloads: Sequence[Workload], device: str, threads: Sequence[int], repeats: int, full: bool
) -> Iterator[Case]:
    """All turns in the order in which they are taken.

    Within one workload, variant and thread count the contenders take turns, ``repeats`` times over: on a machine
    whose speed drifts, a slow minute then falls on all of them alike.
    """
    for workload in workloads:
        if device not in workload.devices:
            continue
        for dtype, layout in workload.variants if full else workload.variants[:1]:
            variant = Variant(dtype, layout, device)
            for count in threads:
                for repeat in range(repeats):
                    for contender in workload.contenders:
                        yield Case(workload, variant, count, repeat, contender)


def thread_counts(device: str) -> tuple[int, ...]:
    """One thread and all cores; on a GPU the number of CPU threads says nothing, so it stays as it is."""
    if device == "cuda":
        return (torch.get_num_threads(),)
    return tuple(sorted({1, usable_cores()}))


@lru_cache(maxsize=1)
def build_problem(workload: Workload, variant: Variant) -> Problem:
    """The inputs of the workload at hand; only one set is kept alive, they can be large."""
    return workload.problem(variant)


@lru_cache(maxsize=1)
def first_answer(workload: Workload, variant: Variant) -> list[Any]:
    """An empty list per workload and variant, where the first contender leaves its result for the others."""
    return []


def load_contender(where: Contender) -> Callable[..., Any]:
    """Import a contender, or skip the case and say why that is not possible here."""
    try:
        if callable(where):
            return where()
        module, _, name = where.partition(":")
        loaded = getattr(importlib.import_module(module), name)
        if module.startswith("torchvision.ops") and not hasattr(torch.ops.torchvision, "nms"):
            # torchvision imports even where its extension does not fit the installed torch; calls then fail.
            raise ImportError("torchvision's compiled ops do not load with this torch")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        pytest.skip(f"contender {where} is not available: {error}")
    assert callable(loaded)
    return loaded  # type: ignore[no-any-return]


class CudaTick:
    """A moment on the GPU's own clock. The difference of two ticks waits for the GPU and gives seconds."""

    def __init__(self) -> None:
        self.event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: CudaTick) -> float:
        torch.cuda.synchronize()
        milliseconds: float = earlier.event.elapsed_time(self.event)
        return milliseconds / 1e3


def synchronized_clock() -> float:
    """Wall clock after the GPU has finished: for the cost of calls, which is spent on the CPU."""
    torch.cuda.synchronize()
    return time.perf_counter()


def timer_for(case: Case) -> Callable[[], Any]:
    """The clock that suits a case: GPU events around one call, otherwise the wall clock."""
    if case.variant.device != "cuda":
        return time.perf_counter
    return synchronized_clock if case.workload.iterations > 1 else CudaTick


@lru_cache(maxsize=1)
def flush_buffer() -> torch.Tensor:
    """Memory that displaces everything else from the GPU's cache when it is written."""
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")


def flush_gpu_cache() -> None:
    """Empty the GPU's cache. Not awaited: while the GPU writes, the CPU gets ahead with launching what is timed."""
    flush_buffer().zero_()


def run_case(case: Case, benchmark: Any) -> None:
    """Time one case; bound to a name ``test_<op>`` in each bench file."""
    workload, variant = case.workload, case.variant
    contender = load_contender(workload.contenders[case.contender])
    problem = build_problem(workload, variant)
    benchmark.group = f"{workload.id} {variant.device} {variant.dtype} {variant.layout}, {case.threads} thread(s)"
    benchmark.extra_info.update(describe(case, problem))
    args = (contender, *problem.args)
    on_gpu = variant.device == "cuda"
    with threads_set_to(case.threads):
        seconds = check_and_time_once(case, args)
        rounds = math.floor(SECONDS_PER_TURN / max(seconds * workload.iterations, 1e-6))
        benchmark.pedantic(
            workload.call,
            args=args,
            setup=flush_gpu_cache if on_gpu and workload.iterations == 1 else None,
            rounds=min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS),
            warmup_rounds=1,
            iterations=workload.iterations,
        )


def check_and_time_once(case: Case, args: tuple[Any, ...]) -> float:
    """Call once, compare the result with the first contender's, and return the seconds of the call."""
    workload, variant = case.workload, case.variant
    clock = synchronized_clock if variant.device == "cuda" else time.perf_counter
    start = clock()
    try:
        answer = workload.call(*args)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or "not implemented for" in str(error):
            pytest.skip(f"{case.contender} has no {variant.dtype} on {variant.device}: {error}")
        raise
    seconds = clock() - start
    if workload.tolerance is not None:
        earlier = first_answer(workload, variant)
        if not earlier:
            earlier.append(answer)
        allowed = workload.tolerance * (1 if variant.dtype in ("float32", "float64") else HALF_SCALE)
        apart = deviation(answer, earlier[0])
        if not apart <= allowed:  # written so that NaN fails
            pytest.fail(f"{case.contender} deviates by {apart:.2g} from the first contender, {allowed:.2g} is allowed")
    return seconds


def deviation(answer: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what is expected; the largest where there are several tensors."""
    if isinstance(expected, (tuple, list)):
        return max((deviation(a, e) for a, e in zip(answer, expected, strict=True)), default=0.0)
    a, e = torch.as_tensor(answer).double(), torch.as_tensor(expected).double()
    if a.shape != e.shape:
        pytest.fail(f"results of shapes {tuple(a.shape)} and {tuple(e.shape)} cannot be compared")
    difference = (a - e).norm().item()
    return difference / max(e.norm().item(), 1e-30) if difference else 0.0


def describe(case: Case, problem: Problem) -> dict[str, Any]:
    """All that the report has to know of a case; stored beside its timings."""
    workload, variant = case.workload, case.variant
    target = workload.target(variant, case.threads)
    return {
        "workload": workload.id,
        "title": workload.title,
        "contender": case.contender,
        "peer": workload.peer,
        "threads": case.threads,
        "device": variant.device,
        "dtype": variant.dtype,
        "layout": variant.layout,
        "bytes": problem.bytes,
        "flops": problem.flops,
        "target": {name: value for name, value in asdict(target).items() if value is not None},
    }
