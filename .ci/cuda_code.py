"""How every CUDA kernel moves memory, and how dense its tensor-core loops are: `csrc/cuda_code.txt`.

    python .ci/cuda_code.py             # writes the table
    python .ci/cuda_code.py --check     # fails with the lines that differ

Of each kernel: its loads and stores of global memory by width, from PTX, as bytes x count; of a kernel with `mma` or
`wgmma`, for each innermost loop that has some, the instructions and the HMMA or HGMMA among them, from the machine code
for sm_90, or sm_90a for kernels of that alone. Needs nvcc and `pip install nvidia-cuda-nvdisasm`, no GPU. Numbers
depend on the compiler, so the table is compared only under the version that wrote it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ci"), str(ROOT / "tests")]

from cuda_resources import demangle, differences, nvcc_version  # noqa: E402
from ptx.build import architecture_of, write_ptx_of_op  # noqa: E402

TABLE = ROOT / "csrc" / "cuda_code.txt"
ARCHITECTURE = "sm_90"
PRODUCT = re.compile(r"\bHG?MMA\b")
ACCESS = re.compile(r"\b(ld|st)(?:\.volatile)?\.global(?:\.v([24]))?\.[busf](\d+)\b")


def nvdisasm() -> str:
    """The path of the disassembler, which a package of PyPI holds."""
    folder = Path(sysconfig.get_path("purelib")) / "nvidia"
    found = shutil.which("nvdisasm") or next(map(str, folder.glob("*/bin/nvdisasm")), None)
    if found is None:
        sys.exit("nvdisasm was not found: pip install nvidia-cuda-nvdisasm")
    return found


def kernels_of(ptx: str) -> Iterator[tuple[str, str]]:
    """The name and the text of each kernel of a file of PTX."""
    parts = re.split(r"^(?:\.visible )?\.entry (\w+)", ptx, flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def widths(text: str, kind: str) -> str:
    """Accesses of one kind: "4x12 16x4" is twelve of 4 bytes and four of 16."""
    bytes_of = [int(bits) // 8 * int(count or 1) for access, count, bits in ACCESS.findall(text) if access == kind]
    return " ".join(f"{size}x{count}" for size, count in sorted(Counter(bytes_of).items())) or "-"


def step_loops(sass: str) -> dict[str, list[tuple[int, int]]]:
    """Of each kernel the innermost loops with HMMA or HGMMA: (instructions, those)."""
    found = {}
    for name, text in re.findall(r"^\.text\.(\w+):\n(.*?)(?=^\.text\.|\Z)", sass, flags=re.MULTILINE | re.DOTALL):
        labels: dict[str, int] = {}
        code: list[str] = []
        loops: list[tuple[int, int]] = []  # from the first to past the last instruction
        for line in text.splitlines():
            if label := re.match(r"(\.L_\w+):", line):
                labels[label[1]] = len(code)
            elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*);", line):
                code.append(instruction[1])
                target = re.search(r"\bBRA(?:\.\w+)* .*`\((\.L_\w+)\)", instruction[1])
                if target and target[1] in labels:
                    loops.append((labels[target[1]], len(code)))
        dense = [(a, b) for a, b in loops if any(map(PRODUCT.search, code[a:b]))]
        inner = [one for one in dense if not any(a >= one[0] and b <= one[1] and (a, b) != one for a, b in dense)]
        found[name] = [(b - a, sum(bool(PRODUCT.search(line)) for line in code[a:b])) for a, b in sorted(set(inner))]
    return found


def rows_of(source: Path) -> list[str]:
    """A line for each kernel of a .cu file."""
    path = write_ptx_of_op(source)
    text = path.read_text()
    architecture = "sm_90a" if architecture_of(source) == "sm_90a" else ARCHITECTURE
    loops: dict[str, list[tuple[int, int]]] = {}
    if "mma.sync" in text or "wgmma" in text:
        with tempfile.TemporaryDirectory() as folder:
            cubin = f"{folder}/kernels.cubin"
            subprocess.run(["ptxas", f"-arch={architecture}", "-O3", str(path), "-o", cubin], check=True)
            loops = step_loops(
                subprocess.run([nvdisasm(), "-c", cubin], capture_output=True, text=True, check=True).stdout
            )
    names = [name for name, _ in kernels_of(text)]
    rows = []
    for (name, body), full in zip(kernels_of(text), demangle(names), strict=True):
        dense = " ".join(f"{count}/{hmma}" for count, hmma in loops.get(name, [])) or "-"
        rows.append(f"{widths(body, 'ld'):>24} {widths(body, 'st'):>24} {dense:>14}  {full}")
    return sorted(rows, key=lambda row: row.split("  ")[-1])


def main() -> None:
    """Write or check the table."""
    version = nvcc_version()
    head = [
        f"# nvcc {version}, {ARCHITECTURE}; written by .ci/cuda_code.py",
        f"#{'loads':>23} {'stores':>24} {'loop/HMMA':>14}  kernel",
    ]
    sources = sorted((ROOT / "csrc" / "ops").glob("*/*_cuda.cu"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tables = list(pool.map(rows_of, sources))
    lines = [*head, *(row for table in tables for row in table)]
    if "--check" not in sys.argv:
        TABLE.write_text("\n".join(lines) + "\n")
    elif moved := differences(TABLE, lines, version):
        sys.exit(f"{moved}\n{TABLE.name} is out of date: run python .ci/cuda_code.py and commit it")
    print(f"{len(lines) - len(head)} kernels (nvcc {version}, {ARCHITECTURE})")


if __name__ == "__main__":
    main()
