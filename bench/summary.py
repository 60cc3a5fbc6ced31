"""From pytest-benchmark's JSON to rows: repeats merged, ratios, rates, shares of the machine's limits."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

Limits = dict[str, float]
Key = tuple[str, str, str, int]
"""Workload, dtype, layout, threads: what the contenders are compared within."""


@dataclass(frozen=True)
class Row:
    """One contender's result at one workload, variant and thread count."""

    workload: str
    title: str
    dtype: str
    layout: str
    threads: int
    device: str
    contender: str
    peer: str
    seconds: float
    rounds: int
    bytes: int
    flops: int
    target: Mapping[str, float]
    ratio: float | None = None
    share: float | None = None

    @property
    def key(self) -> Key:
        """What this row shares with its competitors."""
        return self.workload, self.dtype, self.layout, self.threads

    @property
    def variant(self) -> str:
        """dtype and layout, short: ``"f32"``, ``"bf16 channels_last"``."""
        dtype = self.dtype.replace("bfloat", "bf").replace("float", "f")
        return dtype if self.layout == "contiguous" else f"{dtype} {self.layout}"

    @property
    def met(self) -> bool | None:
        """Whether everything asked for is reached; None when nothing is asked or it could not be measured."""
        if not self.target or self.contender != "fastcv":
            return None
        reached: list[bool | None] = []
        if "ratio" in self.target:
            reached.append(None if self.ratio is None else self.ratio >= self.target["ratio"])
        if "share" in self.target:
            reached.append(None if self.share is None else self.share >= self.target["share"])
        if "seconds" in self.target:
            reached.append(self.seconds <= self.target["seconds"])
        if False in reached:
            return False
        return None if None in reached else True


@dataclass(frozen=True)
class Summary:
    """All results on one device."""

    device: str
    system: str
    python: str
    packages: Mapping[str, str]
    limits: Mapping[str, Mapping[str, float]]
    rows: Sequence[Row]


def load(paths: Iterable[Path]) -> list[Summary]:
    """Read result files and summarise them, one summary per device.

    Rounds are merged within a file only, for contenders are comparable only within one run. Where several files of a
    device hold the same workload, the newest counts.
    """
    documents = sorted((json.loads(path.read_text()) for path in paths), key=lambda d: str(d.get("datetime", "")))
    by_device: dict[str, Summary] = {}
    for document in documents:
        new = summarize(document)
        old = by_device.get(new.device)
        if old is not None:
            measured = {row.workload for row in new.rows}
            kept = [row for row in old.rows if row.workload not in measured]
            new = replace(new, rows=sorted([*kept, *new.rows], key=lambda row: place_of(row.workload)))
        by_device[new.device] = new
    return list(by_device.values())


def place_of(workload: str) -> list[str | int]:
    """Return a key that sorts names of workloads by their numbers: B1-5k before B1-20k."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", workload)]


def summarize(document: Mapping[str, Any]) -> Summary:
    """Summarise one run: median over the rounds of all repeats, then ratio to the peer and share of the limit.

    A contender that failed in some of its turns, because its result was wrong, has no row.
    """
    machine = document["machine_info"]
    limits = machine.get("limits", {})
    rounds: dict[tuple[Key, str], list[float]] = {}
    facts: dict[tuple[Key, str], Mapping[str, Any]] = {}
    turns: Counter[tuple[Key, str]] = Counter()
    for bench in document["benchmarks"]:
        info = bench["extra_info"]
        place = ((info["workload"], info["dtype"], info["layout"], info["threads"]), info["contender"])
        rounds.setdefault(place, []).extend(bench["stats"]["data"])
        facts[place] = info
        turns[place] += 1
    all_turns = {key: max(turns[place] for place in turns if place[0] == key) for key, _ in turns}
    facts = {place: info for place, info in facts.items() if turns[place] == all_turns[place[0]]}
    medians = {place: median(rounds[place]) for place in facts}
    rows = []
    for place, info in facts.items():
        seconds = medians[place]
        peer_seconds = medians.get((place[0], info["peer"]))
        limit = limits.get(str(info["threads"]), {})
        rows.append(
            Row(
                **{name: info[name] for name in ("workload", "title", "dtype", "layout", "threads", "device")},
                **{name: info[name] for name in ("contender", "peer", "bytes", "flops", "target")},
                seconds=seconds,
                rounds=len(rounds[place]),
                ratio=None if peer_seconds is None else peer_seconds / seconds,
                share=share_of_limit(info, seconds, limit),
            )
        )
    return Summary(
        device=machine.get("device", "unknown device"),
        system=machine.get("system", ""),
        python=machine.get("python", ""),
        packages=machine.get("packages", {}),
        limits=limits,
        rows=rows,
    )


def higher(a: Limits, b: Limits) -> Limits:
    """The better of two measurements of a machine, quantity by quantity."""
    return {name: max(a.get(name, 0.0), b.get(name, 0.0)) for name in a | b}


def share_of_limit(info: Mapping[str, Any], seconds: float, limits: Mapping[str, float]) -> float | None:
    """Shortest possible time over the time taken.

    The shortest possible time is the longer of two: moving the bytes at the machine's copy bandwidth, doing the
    arithmetic at its matrix-product rate.
    """
    least = []
    if info["bytes"] and "copy" in limits:
        least.append(info["bytes"] / limits["copy"])
    gemm = limits.get(f"gemm_{info['dtype']}")
    if info["flops"] and gemm:
        least.append(info["flops"] / gemm)
    return max(least) / seconds if least else None
