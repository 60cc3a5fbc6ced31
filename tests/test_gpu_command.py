"""`bash bench/gpu.sh` with stand-ins for the GPU's tools: order, limits, what is kept, results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from once_each import placed, results
from op_case import all_cases

ROOT = Path(__file__).parents[1]
if not (ROOT / "bench").is_dir():
    pytest.skip("the benchmarks are not part of an installed package", allow_module_level=True)

# Plays python, compute-sanitizer and ncu; each call is noted. What BROKEN names fails, what SLOW names does not end.
STAND_IN = """
import json, os, sys, time
from pathlib import Path

tool, *words = sys.argv[1:]
folder = Path(os.environ["FASTCV_GPU_WORK"])
line = " ".join([tool, *words])
if tool == "python" and words[0] == "-c":
    found = os.environ.get("GPU", "NVIDIA H200") or None
    print(json.dumps({"torch": "2.11.0", "cuda": "13.0", "found": bool(found), "name": found, "architecture": "90"}))
    sys.exit()
with (folder / "calls").open("a") as calls:
    print(line, file=calls)
after = lambda flag: next(Path(word.removeprefix(flag)) for word in words if word.startswith(flag))
if os.environ.get("SLOW") and os.environ["SLOW"] in line:
    time.sleep(600)
if "-m cuda" in line:
    after("--junitxml=").write_text('<all><testsuite tests="7" failures="1" errors="0" skipped="2"/></all>')
elif "--benchmark-json" in line:
    info = {"threads": 1, "device": "cuda", "dtype": "float32", "layout": "contiguous", "peer": "torchvision",
            "bytes": 4_000_000, "flops": 0, "target": {"ratio": 5}}
    path = after("--benchmark-json=")
    benches = [
        {"extra_info": {**info, "workload": path.stem, "title": "", "contender": who}, "stats": {"data": [seconds]}}
        for who, seconds in (("fastcv", 2e-6), ("torchvision", 4e-6 + 1e-6 * len(path.stem)))
    ]
    machine = {"device": "NVIDIA H200", "system": "Linux", "limits": {"1": {"copy": 4e12}}}
    path.write_text(json.dumps({"machine_info": machine, "datetime": "2026", "benchmarks": benches}))
elif tool == "compute-sanitizer":
    print("========= COMPUTE-SANITIZER")
    if "initcheck" in line:
        print("=========     at void fastcv::cuda::(anonymous namespace)::nms_tile_kernel<float>(Places<T1>)+0x80")
    print("========= ERROR SUMMARY: 0 errors")
elif tool == "ncu":
    metrics = words[words.index("--metrics") + 1].split(",")
    names = ["ID", "Kernel Name", *metrics]
    rows = [names, ["", "", "nsecond", *["%"] * (len(metrics) - 1)]]
    rows += [[str(i), "void fastcv::cuda::<unnamed>::nms_tile_kernel<float>(Places<T1>, int)", "1,500", *["50.5"] * 6]
             for i in range(2)]
    text = "\\n".join(",".join(f'"{cell}"' for cell in row) for row in rows)
    Path(words[words.index("--log-file") + 1]).write_text("==PROF== Connected\\n" + text + "\\n")
sys.exit(1 if os.environ.get("BROKEN") and os.environ["BROKEN"] in line else 0)
"""


class Machine:
    """A folder of stand-ins and of results."""

    def __init__(self, folder: Path) -> None:
        self.tools, self.work, self.output = folder / "bin", folder / "work", folder / "results"
        self.tools.mkdir()
        self.work.mkdir()
        script = folder / "stand_in.py"
        script.write_text(STAND_IN)
        for tool in ("python", "nvcc", "compute-sanitizer", "ncu"):
            path = self.tools / tool
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} {tool} "$@"\n')
            path.chmod(0o755)

    def run(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.tools), os.environ["PATH"]])
        known = {"PYTHON": sys.executable, "FASTCV_GPU_WORK": str(self.work), "PATH": path, "PYTHONPATH": ""}
        command = ["bash", str(ROOT / "bench" / "gpu.sh"), "--python", str(self.tools / "python")]
        command += ["--output", str(self.output), *options]
        return subprocess.run(
            command, env={**os.environ, **known, **variables}, capture_output=True, text=True, check=False
        )

    @property
    def calls(self) -> list[str]:
        return (self.work / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_one_call_does_everything_and_the_next_nothing(machine: Machine) -> None:
    first = machine.run()
    assert first.returncode == 0, first.stdout + first.stderr
    done = machine.calls
    assert "pip install" in done[0]
    assert "90-real" in done[0]
    assert sum("compute-sanitizer --tool" in call for call in done) == 4
    assert sum(call.startswith("ncu ") for call in done) == 5
    assert "bench.gpu.profile bench-" in done[-1]
    found = json.loads((machine.output / "gpu.json").read_text())
    assert found["gpu"]["tests"] == {"tests": 7, "failures": 1, "errors": 0, "skipped": 2}
    assert found["gpu"]["sanitizers"]["memcheck"] == {"summary": "0 errors", "kernels": []}
    assert len(found["gpu"]["sanitizers"]["initcheck"]["kernels"]) == 1
    (kernel, *_), *others = found["gpu"]["profiles"].values()
    assert len(others) == 4
    assert (kernel["kernel"], kernel["launches"], kernel["µs"]) == ("nms_tile_kernel<float>", 2, 3.0)
    page = (machine.output / "gpu.md").read_text()
    ratios = [float(line.split("|")[8].strip(" ×")) for line in page.splitlines() if line.startswith("| bench-")]
    assert ratios == sorted(ratios), "misses come first"
    assert len(ratios) == 6
    assert machine.run().returncode == 0
    assert machine.calls == done


def test_parts_are_done_again_when_asked_or_unfinished(machine: Machine) -> None:
    assert machine.run("--only", "build", "tests", BROKEN="-m cuda").returncode == 1
    assert machine.run("--only", "build", "tests").returncode == 1
    assert len(machine.calls) == 2, "what has failed has been done"
    assert machine.run("--only", "tests", "--again", "tests").returncode == 0
    assert len(machine.calls) == 3


def test_a_part_that_does_not_end_is_stopped_and_comes_again(machine: Machine) -> None:
    slow = machine.run("--only", "tests", "--minutes", "0.22", SLOW="-m cuda")
    assert slow.returncode == 3, slow.stdout + slow.stderr
    assert "timed out" in slow.stdout
    assert machine.run("--only", "tests").returncode == 0
    assert len(machine.calls) == 2


def test_no_time_and_no_build(machine: Machine) -> None:
    assert machine.run("--minutes", "0.1").returncode == 3
    assert not (machine.work / "calls").exists()
    assert machine.run(BROKEN="pip install").returncode == 1
    assert len(machine.calls) == 1, "without a build nothing else is tried"


def test_what_is_shown_without_a_gpu(machine: Machine) -> None:
    refused = machine.run(GPU="")
    assert refused.returncode == 1
    assert "torch sees no GPU here" in refused.stderr
    shown = machine.run("--dry-run")
    assert shown.returncode == 0
    parts = [line.split()[0] for line in shown.stdout.splitlines()]
    assert parts[:2] == ["build", "tests"]
    assert parts[-1] == "ncu-5"
    assert not (machine.work / "calls").exists()


def test_each_operator_is_called_for_the_sanitizers() -> None:
    import torch

    for case in all_cases():
        values = list(results(case, placed(case.sample(0), "cpu", torch.float32)))
        assert values, case.name
