"""Runs the plan within its time, keeps what is done, and writes the results: see bench/gpu.sh."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.gpu import plan, results
from bench.gpu.plan import ROOT, SITE, WORK, Part
from bench.text import slug

GRACE_SECONDS = 5  # for a part that has been told to stop
LEAST_SECONDS = 5  # with less left a part is not begun
FACTS = """
import json, torch
found = torch.cuda.is_available()
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "found": found,
    "name": torch.cuda.get_device_name() if found else None,
    "architecture": "".join(map(str, torch.cuda.get_device_capability())) if found else None}))
"""


def source_hash() -> str:
    """Of everything that is built or run; parts that were done with other sources are done again."""
    digest = hashlib.sha256()
    for folder in ("csrc", "fastcv", "tests", "bench"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".h", ".cpp", ".cu", ".cuh") and path.is_file():
                digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class State:
    """What has been done, kept in a file from call to call."""

    def __init__(self, path: Path, sources: str) -> None:
        self.path = path
        self.parts: dict[str, dict[str, Any]] = {}
        if path.exists():
            kept = json.loads(path.read_text())
            self.parts = kept["parts"] if kept["sources"] == sources else {}
        self.sources = sources

    def is_done(self, part: Part) -> bool:
        return self.parts.get(part.name, {}).get("outcome") in ("passed", "failed")

    def note(self, part: Part, outcome: str, seconds: float = 0.0) -> None:
        self.parts[part.name] = {"outcome": outcome, "seconds": round(seconds, 1)}
        self.path.write_text(json.dumps({"sources": self.sources, "parts": self.parts}, indent=1) + "\n")
        print(f"{part.name:<18} {outcome:<10} {seconds:6.1f} s", flush=True)


def environment() -> dict[str, str]:
    """That of every part: the package just built before the checkout's folder, and memory as the sanitizers want it."""
    path = os.pathsep.join([str(SITE), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def run(part: Part, state: State, deadline: float) -> None:
    """Run one part, or say why not. Past its limit its whole process group is stopped."""
    limit = min(part.seconds, deadline - time.monotonic() - GRACE_SECONDS)
    if part.tool is not None and shutil.which(part.tool) is None:
        state.note(part, f"no {part.tool}")
        return
    if limit < LEAST_SECONDS:
        state.note(part, "no time")
        return
    variables = environment()
    if part.beside == "sanitizers":
        variables["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # so that each tensor has bounds of its own
    start = time.monotonic()
    with (WORK / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            part.command, cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            outcome = "passed" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            outcome = "timed out"
            os.killpg(process.pid, signal.SIGINT)  # pytest then writes what it has
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        finally:  # an interrupted run leaves nothing behind either
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    state.note(part, outcome, time.monotonic() - start)


def run_all(todo: Sequence[Part], state: State, deadline: float) -> None:
    """Run parts in order; neighbours that may be beside each other run together."""
    for beside, group in groupby(todo, key=lambda part: part.beside):
        together = [part for part in group if not state.is_done(part)]
        if not beside:
            for part in together:
                run(part, state, deadline)
                if part.name == "build" and state.parts["build"]["outcome"] != "passed":
                    return
        elif together:
            with ThreadPoolExecutor(len(together)) as pool:
                list(pool.map(lambda part: run(part, state, deadline), together))


def profiles(python: str) -> Iterator[Part]:
    """The parts of ncu: those workloads that are furthest from what is asked of them."""
    for place, row in enumerate(results.slowest(WORK, plan.PROFILED), 1):
        yield plan.profile(python, place, row.workload, row.dtype, row.layout)


def facts(python: str) -> dict[str, Any]:
    """Versions, and the GPU."""
    answer = subprocess.run([python, "-c", FACTS], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        sys.exit(f"{python} has no torch that works:\n{answer.stderr}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code: 0 when all parts are done, 1 when one failed, 3 when time ran out."""
    parser = argparse.ArgumentParser(prog="bash bench/gpu.sh", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="show the parts, run nothing")
    parser.add_argument("--minutes", type=float, default=9.0, help="for this call (default: 9)")
    parser.add_argument("--again", nargs="*", default=[], metavar="PART", help="do these again though they are done")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="these parts alone, by their beginnings")
    parser.add_argument("--output", type=Path, help="folder of gpu.json and gpu.md (default: bench/results/<GPU>)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has torch (default: this one)")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    if options.dry_run:
        last = [plan.profile(options.python, n, "WORKLOAD", "DTYPE", "LAYOUT") for n in range(1, plan.PROFILED + 1)]
        for part in [*plan.parts(options.python), *last]:
            print(f"{part.name:<18} ≤ {part.seconds} s  {shlex.join(part.command)}")
        return 0
    machine = facts(options.python)
    if not machine["found"]:
        sys.exit("torch sees no GPU here; --dry-run shows what would be done")
    WORK.mkdir(parents=True, exist_ok=True)
    state = State(WORK / "state.json", source_hash())
    for name in options.again:
        state.parts.pop(name, None)

    def chosen(found: Sequence[Part]) -> list[Part]:
        return [part for part in found if not options.only or part.name.startswith(tuple(options.only))]

    todo = chosen(plan.parts(options.python, machine["architecture"]))
    run_all(todo, state, deadline)
    last = chosen(list(profiles(options.python)))
    run_all(last, state, deadline)
    folder = options.output or ROOT / "bench" / "results" / slug(machine["name"])
    results.write(folder, WORK, machine, state.parts)
    print(f"written: {folder / 'gpu.json'} and {folder / 'gpu.md'}")
    outcomes = {state.parts.get(part.name, {}).get("outcome") for part in (*todo, *last)}
    return 1 if "failed" in outcomes else 3 if outcomes & {"no time", "timed out", None} else 0


if __name__ == "__main__":
    sys.exit(main())
