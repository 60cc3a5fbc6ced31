"""The CPU kernels of all operators under AddressSanitizer and UBSan: `python tests/sanitize.py --calls 2000`.

Builds the compiled module in a folder of its own with both sanitizers and the widest instruction set of this processor,
then makes random calls (fuzz.py) with it. Any report ends the run. Needs cmake, g++ and pybind11, no GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pybind11

ROOT = Path(__file__).resolve().parents[1]
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
WIDEST = {
    "avx512f": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma -mf16c",
    "": "",
}


def run(command: list[str], **environment: str) -> None:
    """Run a command; its output is shown where it fails."""
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stdout[-5000:]}\n{result.stderr[-10000:]}")
    print(result.stdout.strip().splitlines()[-1] if result.stdout.strip() else "")


def library(name: str) -> str:
    """The path of a runtime library of the compiler."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000, help="how many random calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build", type=Path, help="folder to build in, kept; a temporary one by default")
    options = parser.parse_args()
    known = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = next(flags for name, flags in WIDEST.items() if name in known)
    with tempfile.TemporaryDirectory() as temporary:
        build = options.build or Path(temporary)
        package = build / "package" / "fastcv"
        package.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            "CMAKE_BUILD_TYPE": "Debug",
            "CMAKE_CXX_FLAGS_DEBUG": "-O1",  # compiles in a third of the time
            "CMAKE_CXX_FLAGS": f"{SANITIZERS} {flags} -Wno-maybe-uninitialized",
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(package),
            "SKBUILD_PROJECT_VERSION": "0",
            "FASTCV_CUDA": "OFF",
            "FASTCV_VARIANTS": "OFF",  # one variant, compiled for the widest instruction set
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "Python_EXECUTABLE": sys.executable,
        }
        defined = [f"-D{name}={value}" for name, value in settings.items()]
        run(["cmake", "-S", str(ROOT), "-B", str(build), *defined])
        run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count()), "--target", "_C"])
        for path in (ROOT / "fastcv").iterdir():
            link = package / path.name
            if path.suffix != ".so" and not link.exists():
                link.symlink_to(path)
        calls = ["--calls", str(options.calls), "--seed", str(options.seed), "--memory", "0"]
        run(
            [sys.executable, str(ROOT / "tests" / "fuzz.py"), *calls],
            PYTHONPATH=str(package.parent),
            LD_PRELOAD=f"{library('libasan.so')} {library('libubsan.so')} {library('libstdc++.so')}",
            ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048",
            UBSAN_OPTIONS="print_stacktrace=1",
        )


if __name__ == "__main__":
    main()
