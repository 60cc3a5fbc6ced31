"""The registers, shared memory and spills of every CUDA kernel, from ptxas: `csrc/cuda_resources.txt`.

    python .ci/cuda_resources.py                # compiles all, writes the table
    python .ci/cuda_resources.py --check LOG    # fails on a spill, and with the lines that differ

LOG is what a build of the wheel has printed, `pip wheel -v` with CUDAFLAGS="-Xptxas -v". Needs nvcc, no GPU. Numbers
depend on the compiler, so the table is compared only under the version that wrote it.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "csrc" / "cuda_resources.txt"
ARCHITECTURES = ("sm_80", "sm_90")
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Werror", "all-warnings", "-Icsrc"]


def nvcc_version() -> str:
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release ([\d.]+), V([\d.]+)", text)
    assert match, text
    return match.group(2)


def demangle(names: list[str]) -> list[str]:
    """Kernels' names, in short."""
    result = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [shorten(line) for line in result.stdout.splitlines()]


def shorten(text: str) -> str:
    """The name of a kernel without its namespaces, result and parameters."""
    text = re.sub(r"\((anonymous namespace|fastcv::\w+)\)|fastcv::(cuda::)?|\bvoid\b", "", text)
    return re.sub(r"::|\([^()]*\)$|\((int|bool)\)", "", text).strip()


def architectures_of(source: Path) -> tuple[str, ...]:
    """Kernels with wgmma are for sm_90a alone, whose registers stand under sm_90."""
    return ("sm_90a",) if source.name.endswith("_wgmma_cuda.cu") else ARCHITECTURES


def compile_log(source: Path) -> str:
    """What ptxas says while it compiles one file."""
    flags = [*FLAGS]
    flags += [f"-gencode=arch={name.replace('sm', 'compute')},code={name}" for name in architectures_of(source)]
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", *flags, "-Xptxas", "-v", "-c", str(source), "-o", f"{folder}/kernel.o"]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    log = result.stdout + result.stderr
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{log}")
    return log


def build_logs(path: Path) -> list[str]:
    """The part of a build's log that belongs to each .cu file, in the order of their names."""
    parts = re.split(r"\[\d+/\d+\] ", path.read_text())
    names = [re.search(r"(ops/\w+/\w+_cuda\.cu)", part[:1000]) for part in parts]
    found = {name.group(1): part for name, part in zip(names, parts, strict=True) if name and "ptxas info" in part}
    return [found[name] for name in sorted(found)]


@dataclass
class Resources:
    """What one kernel takes: registers on each architecture, static shared bytes, spilled bytes on all together."""

    registers: dict[str, int]
    shared: int = 0
    spilled: int = 0


def resources(log: str) -> dict[str, Resources]:
    """Those of each kernel, by name."""
    kernels: dict[str, Resources] = {}
    for block in log.split("Compiling entry function '")[1:]:
        architecture = re.search(r"for '(\w+)'", block[: block.index("\n")])
        registers, shared = re.search(r"Used (\d+) registers", block), re.search(r"(\d+) bytes smem", block)
        assert architecture, block
        assert registers, block
        kernel = kernels.setdefault(block[: block.index("'")], Resources({}))
        kernel.registers[architecture.group(1).removesuffix("a")] = int(registers.group(1))
        kernel.shared = int(shared.group(1)) if shared else 0
        kernel.spilled += sum(map(int, re.findall(r"(\d+) bytes spill", block)))
    return dict(zip(demangle(list(kernels)), kernels.values(), strict=True))


def differences(table: Path, lines: list[str], version: str) -> str:
    """The lines that a committed table and a new one do not share; none where another compiler wrote the table."""
    before = table.read_text().splitlines()
    if version not in before[0]:
        return ""
    return "\n".join(difflib.unified_diff(before, lines, table.name, "now", lineterm="", n=0))


def main() -> None:
    """Write or check the table."""
    version = nvcc_version()
    lines = [
        f"# nvcc {version}; written by .ci/cuda_resources.py",
        f"# registers {' '.join(ARCHITECTURES)} {'shared':>7} {'spilled':>7}  kernel",
    ]
    spilling = []
    sources = sorted((ROOT / "csrc" / "ops").glob("*/*_cuda.cu"))
    check = "--check" in sys.argv
    if check:
        logs = build_logs(Path(sys.argv[-1]))
        if len(logs) != len(sources):
            sys.exit(f"{sys.argv[-1]} shows what ptxas said of {len(logs)} files, there are {len(sources)}")
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            logs = list(pool.map(compile_log, sources))
    for log in logs:
        for name, kernel in sorted(resources(log).items()):
            first, second = (kernel.registers.get(architecture, "-") for architecture in ARCHITECTURES)
            lines.append(f"{first:>17} {second:>5} {kernel.shared:7} {kernel.spilled:7}  {name}")
            if kernel.spilled:
                spilling.append(lines[-1])
    text = "\n".join(lines) + "\n"
    if not check:
        TABLE.write_text(text)
    elif moved := differences(TABLE, lines, version):
        sys.exit(f"{moved}\n{TABLE.name} is out of date: run python .ci/cuda_resources.py and commit it")
    if spilling:
        sys.exit("kernels that spill registers:\n" + "\n".join(spilling))
    print(f"{len(lines) - 2} kernels, no spills (nvcc {version}, {', '.join(ARCHITECTURES)})")


if __name__ == "__main__":
    main()
