"""The op of docs/adding-an-op.md, put where the page says, builds and passes the page's tests."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from copied_build import ROOT, build, copy_sources, run

PAGE = ROOT / "docs" / "adding-an-op.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the pages are not part of an installed package")


def block(start: str) -> str:
    """The listing of the page that begins so."""
    found = [
        text for text in re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.M | re.S) if text.startswith(start)
    ]
    assert len(found) == 1, start
    return found[0]


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}\n{line}\n")


@pytest.mark.slow
def test_the_page_gives_an_op(tmp_path: Path) -> None:
    copy_sources(tmp_path, "tests", "bench")
    name = "scale_boxes"
    op = tmp_path / "csrc" / "ops" / name
    op.mkdir()
    (op / f"{name}.h").write_text(block("// Boxes (N, 4) times a number"))
    (op / f"{name}_cpu.cpp").write_text(block("// Boxes times a number on the CPU"))
    (op / f"{name}_cuda.cu").write_text(block("// Boxes times a number on CUDA"))
    (op / f"{name}_bind.cpp").write_text(block('#include "core/dispatch.h"'))
    (tmp_path / "fastcv" / "ops" / f"{name}.py").write_text(block("from typing import Any"))
    add_line(tmp_path / "fastcv" / "ops" / "__init__.py", f"from fastcv.ops.{name} import {name}")
    (tmp_path / "fastcv" / "reference" / f"{name}.py").write_text(block('"""Boxes times a number, in plain torch'))
    add_line(tmp_path / "fastcv" / "reference" / "__init__.py", f"from fastcv.reference.{name} import {name}")
    cases = tmp_path / "tests" / "cases" / "boxes.py"
    add_line(cases, f"from fastcv.ops import {name}\n\nCASES += [{block('OpCase(')}]")
    (tmp_path / "tests" / "ops" / f"test_{name}.py").write_text(block('"""scale_boxes against the reference'))
    bench = f"bench/ops/bench_{name}.py"
    (tmp_path / bench).write_text(block('"""Boxes times a number, against torch'))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    build(tmp_path)
    flags = ("-std=c++17", "-Icsrc", "-Itests", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
    source = f"csrc/ops/{name}/{name}_cuda.cu"
    run(tmp_path, "g++", *flags, "-DFASTCV_EMULATED", "-fsyntax-only", "-x", "c++", source)
    if shutil.which("nvcc"):
        nvcc = ("nvcc", "-std=c++17", "--fmad=false", "-Werror=all-warnings", "-arch=sm_90", "-Icsrc", "-c")
        run(tmp_path, *nvcc, source, "-o", "scale_boxes.o")
    # The emulator's build of all ops takes minutes: first without it, then with that of this op alone.
    files = ("tests/test_contract.py", f"tests/ops/test_{name}.py")
    tests = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k")
    run(tmp_path, *tests, f"{name} and not emulated")
    run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", bench)
    for other in op.parent.iterdir():
        if other != op:
            shutil.rmtree(other)
    run(tmp_path, "env", f"FASTCV_EMULATOR_CACHE={tmp_path / 'emulator'}", *tests, f"{name} and emulated")
