"""A copy of the sources, changed by a test, and built without CUDA for one instruction set."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_sources(target: Path, *more: str) -> None:
    """Copy what a build needs, and more folders, without what was built."""
    for folder in ("csrc", "fastcv", *more):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "CMakeLists.txt", target)


def build(target: Path) -> None:
    """Build the compiled module of a copy, into its package."""
    import pybind11

    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "SKBUILD_PROJECT_VERSION": "0",
        "FASTCV_CUDA": "OFF",
        "FASTCV_VARIANTS": "OFF",
        "FASTCV_WERROR": "ON",
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
        "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(target / "fastcv"),
    }
    folder = target / "build"
    defined = [f"-D{name}={value}" for name, value in options.items()]
    run(target, "cmake", "-S", str(target), "-B", str(folder), *defined)
    run(target, "cmake", "--build", str(folder), "--parallel", "--target", "_C")


def run(target: Path, *command: str) -> None:
    """Run a command in a copy; it must succeed."""
    result = subprocess.run(command, cwd=target, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
