"""From the logs of the parts to one JSON, which ``python -m bench.report`` reads too, and one table."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench import text
from bench.gpu.plan import SANITIZERS
from bench.summary import Limits, Row, higher, summarize

METRICS = {
    "gpu__time_duration.sum": "µs",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "SM %",
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %",
    "lts__t_sector_hit_rate.pct": "L2 hits %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps %",
    "smsp__inst_executed.sum": "instructions",
    "launch__registers_per_thread": "registers",
}
PREDICTED = Path(__file__).with_name("predicted.txt")
MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3, "s": 1e6}


def documents(work: Path) -> list[dict[str, Any]]:
    """What pytest-benchmark has written, the groups in alphabetical order."""
    return [json.loads(path.read_text()) for path in sorted(work.glob("bench-*.json")) if path.stat().st_size]


def merge(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One document of several runs on one machine. Their workloads differ, so nothing is compared across runs."""
    if not found:
        return {"machine_info": {}, "benchmarks": []}
    limits: dict[str, Limits] = {}
    for document in found:
        for threads, one in document["machine_info"].get("limits", {}).items():
            limits[threads] = higher(limits.get(threads, {}), one)
    return {
        "machine_info": {**found[0]["machine_info"], "limits": limits},
        "commit_info": found[0].get("commit_info", {}),
        "datetime": max(str(document.get("datetime", "")) for document in found),
        "benchmarks": [bench for document in found for bench in document["benchmarks"]],
    }


def attainment(row: Row) -> float:
    """The worst of what is reached over what is asked; without a target, twice the peer's speed would be 1."""
    parts = []
    if row.ratio is not None:
        parts.append(row.ratio / row.target.get("ratio", 2.0))
    if row.share is not None and "share" in row.target:
        parts.append(row.share / row.target["share"])
    if "seconds" in row.target:
        parts.append(row.target["seconds"] / row.seconds)
    return min(parts, default=float("inf"))


def ours(document: Mapping[str, Any]) -> list[Row]:
    """fastcv's rows, the furthest from their targets first."""
    rows = [row for row in summarize(document).rows if row.contender.startswith("fastcv")]
    return sorted(rows, key=lambda row: (attainment(row), row.key))


def slowest(work: Path, count: int) -> list[Row]:
    """The rows worth a look with the profiler, no two of one workload."""
    by_workload: dict[str, Row] = {}
    for row in ours(merge(documents(work))):
        if attainment(row) != float("inf"):
            by_workload.setdefault(row.workload, row)
    return list(by_workload.values())[:count]


def test_counts(path: Path) -> dict[str, int]:
    """Of a JUnit file: tests, failures, errors, skipped."""
    if not path.exists():
        return {}
    suites = list(ElementTree.parse(path).iter("testsuite"))
    return {name: sum(int(s.get(name, 0)) for s in suites) for name in ("tests", "failures", "errors", "skipped")}


def sanitizer_report(log: Path) -> dict[str, Any]:
    """What a tool of compute-sanitizer has found, and which kernels of fastcv it names."""
    if not log.exists():
        return {}
    said = log.read_text(errors="replace")
    summary = re.findall(r"=+ (?:ERROR|RACECHECK) SUMMARY: (.*)", said)
    places = re.findall(r"=+ +at (?:.*?::)*(\w+(?:<[^(]*>)?\([^)]*\)\S*).*", said)
    named = [place for place in places if "kernel" in place]
    return {"summary": summary[-1] if summary else "no summary", "kernels": sorted(set(named))}


def kernel_profiles(log: Path) -> list[dict[str, Any]]:
    """ncu's raw page: per kernel the launches, the sum of their times, and the means of the rest."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        return []
    units, *launches = csv.DictReader(lines[start:])
    kernels: dict[str, list[dict[str, float]]] = {}
    for launch in launches:
        numbers = {name: number(launch.get(metric)) for metric, name in METRICS.items()}
        numbers["µs"] *= MICROSECONDS.get(units.get("gpu__time_duration.sum") or "ns", 1e-3)
        kernels.setdefault(short_name(launch["Kernel Name"]), []).append(numbers)
    found = [
        {"kernel": name, "launches": len(all_of), "µs": round(sum(one["µs"] for one in all_of), 2)}
        | {key: round(sum(one[key] for one in all_of) / len(all_of), 1) for key in METRICS.values() if key != "µs"}
        for name, all_of in kernels.items()
    ]
    return sorted(found, key=lambda kernel: -float(str(kernel["µs"])))


def number(value: str | None) -> float:
    """A number as ncu writes it, NaN where there is none."""
    try:
        return float((value or "").replace(",", ""))
    except ValueError:
        return float("nan")


def short_name(name: str) -> str:
    """A kernel's name without namespaces and parameters."""
    return re.sub(r"\(anonymous namespace\)|\w+::|<unnamed>::|\bvoid\b|\(.*", "", name).strip() or name


def predictions() -> dict[tuple[str, str, str], float]:
    """Predicted milliseconds by workload, dtype and layout, from the napkin maths beside the kernels."""
    rows = (line.split() for line in PREDICTED.read_text().splitlines() if line and not line.startswith("#"))
    return {(workload, dtype, layout): float(ms) for workload, dtype, layout, ms in rows}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)]


def page(document: Mapping[str, Any]) -> str:
    """The table, misses first, under it what the tools found."""
    about = document["gpu"]
    parts = [f"{name} {part['outcome']} ({part['seconds']} s)" for name, part in about["parts"].items()]
    counts = ", ".join(f"{count} {name}" for name, count in about["tests"].items()) or "not run"
    lines = [f"# {about['machine']['name']}", "", "Parts: " + "; ".join(parts) + ".", "", f"Tests: {counts}.", ""]
    for tool in SANITIZERS:
        found = about["sanitizers"].get(tool) or {"summary": "not run", "kernels": []}
        lines.append(f"- {tool}: {found['summary']}" + "".join(f"; {kernel}" for kernel in found["kernels"]))
    known = predictions()
    rows = []
    for row in ours(document):
        predicted = known.get((row.workload, row.dtype, row.layout))
        peer = None if row.ratio is None else row.seconds * row.ratio
        rows.append([
            row.workload, row.variant, row.contender, text.duration(row.seconds),
            "–" if predicted is None else text.duration(predicted / 1e3),
            row.peer, "–" if peer is None else text.duration(peer), text.factor(row.ratio),
            text.percent(row.share), text.target(row.target), text.verdict(row.met),
        ])  # fmt: skip
    header = ("workload", "data", "contender", "time", "predicted", "peer", "peer's time", "ratio", "of limit")
    lines += ["", *table((*header, "target", "met"), rows)]
    for workload, kernels in about["profiles"].items():
        cells = [[str(kernel[key]) for key in ("kernel", "launches", *METRICS.values())] for kernel in kernels]
        lines += ["", f"## {workload}", "", *table(("kernel", "launches", *METRICS.values()), cells)]
    return "\n".join(lines) + "\n"


def write(folder: Path, work: Path, machine: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write gpu.json and gpu.md of all that has been done so far."""
    document = merge(documents(work))
    document["machine_info"].setdefault("device", machine["name"])
    profiles = {}
    for place, row in enumerate(slowest(work, 99), 1):
        if kernels := kernel_profiles(work / f"ncu-{place}.csv"):
            profiles[f"{row.workload} {row.variant}"] = kernels
    document["gpu"] = {
        "machine": dict(machine),
        "parts": dict(parts),
        "tests": test_counts(work / "tests.xml"),
        "sanitizers": {tool: sanitizer_report(work / f"{tool}.log") for tool in SANITIZERS},
        "profiles": profiles,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.md").write_text(page(document), encoding="utf-8")
