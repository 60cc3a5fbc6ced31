"""The parts of ``bench/gpu.sh``: what each runs, for how long, and beside which others."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = Path(os.environ.get("FASTCV_GPU_WORK", ROOT / "build" / "gpu"))  # state, logs, what is built
SITE = WORK / "site"  # where fastcv is installed for these runs

SANITIZERS = ("memcheck", "synccheck", "racecheck", "initcheck")
PROFILED = 5

# Bench files that share a run, and which of their workloads. In the order of how much is wanted of them.
MEASURED = {
    "suppression": (("nms", "box_iou", "match_boxes"), "B1 or B2 or C1 or C2 or C3"),
    "roi": (("roi_align", "roi_pool", "multiscale_roi_align"), "A1 or A2 or A3 or A4 or A5"),
    "transposed": (("conv_transpose",), "E1 or E3 or E4 or E5 or E6"),
    "voxels": (("voxelize", "sparse_conv", "sparse_kernel_map"), "F1 or F2 or G1 or G2 or G-map"),
    "models": (("rcnn",), "M1 or M2"),
    "others": (("sigmoid_focal_loss", "deform_conv2d", "points", "decode_yolo", "paste_masks", "soft_nms"), "not H1"),
}


@dataclass(frozen=True)
class Part:
    """One command of the plan.

    Attributes
    ----------
    name
        How the state, the logs and ``--again`` call it.
    command
        The program and its arguments.
    seconds
        Its limit; it is stopped there, and runs again with the next call.
    tool
        A program without which the part is left out.
    beside
        Parts of one name here run at the same time.
    """

    name: str
    command: tuple[str, ...]
    seconds: int
    tool: str | None = None
    beside: str = ""


def build(python: str, architecture: str) -> Part:
    """The wheel for one architecture, installed under build/gpu/site."""
    options: tuple[str, ...] = (
        "cmake.define.FASTCV_CUDA=ON",
        f"cmake.define.FASTCV_CUDA_ARCHITECTURES={architecture}-real",
    )
    options += (f"build-dir={WORK / 'cmake'}",)
    command: tuple[str, ...] = (
        python,
        "-m",
        "pip",
        "install",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--upgrade",
    )
    command += ("--target", str(SITE), *(word for option in options for word in ("-C", option)), ".")
    return Part("build", command, 300, "nvcc")


def tests(python: str) -> Part:
    """All tests marked ``cuda``; eight processes share the GPU."""
    command: tuple[str, ...] = (
        python,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "-n",
        "8",
        "-m",
        "cuda and not slow",
        "tests",
    )
    command += ("--continue-on-collection-errors",)
    return Part("tests", (*command, f"--junitxml={WORK / 'tests.xml'}"), 240)


def sanitizer(python: str, tool: str) -> Part:
    """Every operator on small inputs under one tool of compute-sanitizer."""
    command: tuple[str, ...] = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "20")
    return Part(tool, (*command, python, "tests/once_each.py"), 150, "compute-sanitizer", beside="sanitizers")


def measure(python: str, group: str) -> Part:
    """A group of bench files, all dtypes and layouts."""
    files, chosen = MEASURED[group]
    folder = "models" if group == "models" else "ops"
    paths = tuple(f"bench/{folder}/bench_{name}.py" for name in files)
    command: tuple[str, ...] = (
        python,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        *paths,
        "--device",
        "cuda",
        "--full",
    )
    command += ("--repeats", "2", "-k", f"({chosen}) and not reference")
    return Part(f"bench-{group}", (*command, f"--benchmark-json={WORK / f'bench-{group}.json'}"), 120)


def profile(python: str, place: int, workload: str, dtype: str, layout: str) -> Part:
    """One call of a workload under ncu: its kernels alone, clocks as they are."""
    from bench.gpu.results import METRICS

    command: tuple[str, ...] = (
        "ncu",
        "--clock-control",
        "none",
        "--profile-from-start",
        "off",
        "--csv",
        "--page",
        "raw",
    )
    command += ("--kernel-name-base", "mangled", "--kernel-name", "regex:fastcv", "--launch-count", "48")
    command += ("--metrics", ",".join(METRICS), "--log-file", str(WORK / f"ncu-{place}.csv"))
    return Part(f"ncu-{place}", (*command, python, "-m", "bench.gpu.profile", workload, dtype, layout), 60, "ncu")


def parts(python: str = sys.executable, architecture: str = "native") -> list[Part]:
    """All parts but those of ncu, which follow from what was measured."""
    found = [build(python, architecture), tests(python)]
    found += [measure(python, group) for group in list(MEASURED)[:4]]
    found += [sanitizer(python, tool) for tool in SANITIZERS]
    return found + [measure(python, group) for group in list(MEASURED)[4:]]
