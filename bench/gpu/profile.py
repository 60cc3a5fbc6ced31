"""``python -m bench.gpu.profile WORKLOAD DTYPE LAYOUT``: one call of fastcv between the marks that ncu waits for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from bench.harness import Case, build_problem, load_contender
from bench.workloads import Variant, Workload

FOLDER = Path(__file__).resolve().parents[1]


def all_workloads() -> Iterator[Workload]:
    """Those of every bench file."""
    for path in sorted(FOLDER.glob("*/bench_*.py")):
        yield from importlib.import_module(f"bench.{path.parent.name}.{path.stem}").WORKLOADS


def main(arguments: Sequence[str], device: str = "cuda") -> int:
    """Call once to warm up, then once between the marks."""
    name, dtype, layout = arguments
    workload = next(workload for workload in all_workloads() if workload.id == name)
    case = Case(workload, Variant(dtype, layout, device), 1, 0, next(iter(workload.contenders)))
    contender, problem = load_contender(workload.contenders[case.contender]), build_problem(workload, case.variant)
    workload.call(contender, *problem.args)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStart()
        workload.call(contender, *problem.args)
        torch.cuda.synchronize()
        torch.cuda.cudart().cudaProfilerStop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
