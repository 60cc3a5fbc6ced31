"""The registers, shared memory and spills of every CUDA kernel, from ptxas: `csrc/cuda_resources.txt`.

    python .ci/cuda_resources.py                # compiles all, writes the table
    python .ci/cuda_resources.py --check LOG    # fails on a spill, or on a table that is out of date

LOG is what a build of the wheel has printed, `pip wheel -v` with CUDAFLAGS="-Xptxas -v". Needs nvcc, no GPU. Numbers
depend on the compiler, so the table is compared only under the version that wrote it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "csrc" / "cuda_resources.txt"
ARCHITECTURE = "sm_90"
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Werror", "all-warnings", "-Icsrc", f"-arch={ARCHITECTURE}"]


def nvcc_version() -> str:
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release ([\d.]+), V([\d.]+)", text)
    assert match, text
    return match.group(2)


def demangle(name: str) -> str:
    text = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    text = re.sub(r"\((anonymous namespace|fastcv::\w+)\)|fastcv::(cuda::)?|\bvoid\b", "", text)
    return re.sub(r"::|\([^()]*\)$|\((int|bool)\)", "", text).strip()


def compile_log(source: Path) -> str:
    """What ptxas says while it compiles one file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", *FLAGS, "-Xptxas", "-v", "-c", str(source), "-o", f"{folder}/kernel.o"]
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


def resources(log: str) -> list[tuple[str, int, int, int]]:
    """A row (kernel, registers, static shared bytes, spilled bytes) for each kernel."""
    rows = []
    for block in log.split("Compiling entry function '")[1:]:
        if f"for '{ARCHITECTURE}'" not in block[: block.index("\n")]:
            continue
        registers, shared = re.search(r"Used (\d+) registers", block), re.search(r"(\d+) bytes smem", block)
        spills = re.findall(r"(\d+) bytes spill", block)
        assert registers, block
        rows.append(
            (
                demangle(block[: block.index("'")]),
                int(registers.group(1)),
                int(shared.group(1)) if shared else 0,
                sum(map(int, spills)),
            )
        )
    return sorted(rows)


def main() -> None:
    """Write or check the table."""
    version = nvcc_version()
    lines = [
        f"# nvcc {version}, {ARCHITECTURE}; written by .ci/cuda_resources.py",
        f"# {'registers':>9} {'shared':>7} {'spilled':>7}  kernel",
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
        for kernel, registers, shared, spilled in resources(log):
            lines.append(f"{registers:11} {shared:7} {spilled:7}  {kernel}")
            if spilled:
                spilling.append(lines[-1])
    text = "\n".join(lines) + "\n"
    if not check:
        TABLE.write_text(text)
    elif version in TABLE.read_text().splitlines()[0] and TABLE.read_text() != text:
        sys.exit(f"{TABLE.name} is out of date: run python .ci/cuda_resources.py and commit it\n{text}")
    if spilling:
        sys.exit("kernels that spill registers:\n" + "\n".join(spilling))
    print(f"{len(lines) - 2} kernels, no spills (nvcc {version}, {ARCHITECTURE})")


if __name__ == "__main__":
    main()
