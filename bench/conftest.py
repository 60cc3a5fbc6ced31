"""Options, cases and stored results of ``pytest bench``."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.harness import list_cases, thread_counts, timer_for
from bench.machine import device_name, measure_limits, package_versions
from bench.summary import Limits, higher
from bench.text import slug

RESULTS = Path(__file__).parent / "results"
LIMITS = pytest.StashKey[dict[int, Limits]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastcv benchmarks")
    group.addoption("--full", action="store_true", help="all dtypes and layouts, not only each workload's first")
    group.addoption("--repeats", type=int, default=5, help="turns that each contender takes (default: 5)")
    group.addoption("--device", choices=("cpu", "cuda"), help="default: cuda when there is a GPU")
    group.addoption("--save", metavar="NAME", help="store the results as bench/results/<device>/NAME.json")


def chosen_device(config: pytest.Config) -> str:
    """The device that this run measures."""
    chosen = config.getoption("--device")
    if chosen == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch sees no GPU here")
    return chosen or ("cuda" if torch.cuda.is_available() else "cpu")


def measured_name(config: pytest.Config) -> str:
    """The chosen device's name."""
    device = chosen_device(config)
    return device_name(device, max(thread_counts(device)))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--save"):
        folder = RESULTS / slug(measured_name(config))
        folder.mkdir(parents=True, exist_ok=True)
        # Read by pytest-benchmark later in this same hook; the file is opened at the end of the run only.
        config.option.benchmark_json = str(folder / f"{config.getoption('--save')}.json")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Rewrite stored results with one line per case: smaller, and a change of one case is a change of one line."""
    if not config.getoption("--save"):
        return
    path = Path(config.option.benchmark_json)
    if not path.exists():  # nothing was measured
        return
    document = json.loads(path.read_text())
    cases = ",\n".join(json.dumps(case, ensure_ascii=False) for case in document.pop("benchmarks"))
    head = json.dumps(document, ensure_ascii=False, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "benchmarks": [\n{cases}\n]\n}}\n', encoding="utf-8")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test item per case, in the harness's order, each with the clock that suits it."""
    if "case" not in metafunc.fixturenames:
        return
    config = metafunc.config
    device = chosen_device(config)
    cases = list_cases(
        metafunc.module.WORKLOADS,
        device=device,
        threads=thread_counts(device),
        repeats=config.getoption("--repeats"),
        full=config.getoption("--full"),
    )
    clocked = [pytest.param(case, id=case.id, marks=pytest.mark.benchmark(timer=timer_for(case))) for case in cases]
    metafunc.parametrize("case", clocked)


@pytest.fixture(scope="session", autouse=True)
def machine_limits(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure the machine before the first case and after the last; the better values count."""
    config, device = request.config, chosen_device(request.config)
    before = {threads: measure_limits(device, threads) for threads in thread_counts(device)}
    yield
    config.stash[LIMITS] = {threads: higher(one, measure_limits(device, threads)) for threads, one in before.items()}


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Keep what describes the machine's speed, and add its measured limits; names of hosts are nobody's business."""
    limits = config.stash.get(LIMITS, {})
    machine_info.clear()
    machine_info.update(
        device=measured_name(config),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages=package_versions(),
        limits={
            str(threads): {name: float(f"{value:.4g}") for name, value in one.items()}
            for threads, one in limits.items()
        },
    )


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Store the rounds and what the report needs; all other statistics follow from these."""
    commit = output_json["commit_info"]
    output_json["commit_info"] = {name: commit.get(name) for name in ("id", "dirty")}
    for bench in output_json["benchmarks"]:
        stats = bench["stats"]
        stats["data"] = [float(f"{seconds:.4g}") for seconds in stats["data"]]
        kept = {"data": stats["data"], "median": float(f"{stats['median']:.4g}"), "iterations": stats["iterations"]}
        slim = {"name": bench["name"], "group": bench["group"], "extra_info": bench["extra_info"], "stats": kept}
        bench.clear()
        bench.update(slim)
