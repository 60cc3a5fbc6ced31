"""Who may know whom, and what every room must have."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastcv import _C

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "fastcv"
ROOMS = sorted(path.name for path in (CSRC / "ops").iterdir() if path.is_dir())


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def cpp_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu"})


def imports(path: Path) -> list[str]:
    """Every module that a Python file imports, `from a import b` counted as both a and a.b."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def python_files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py")) if (PACKAGE / folder).is_dir() else []


def test_core_knows_no_op() -> None:
    for path in cpp_files(CSRC / "core"):
        assert not [name for name in includes(path) if name.startswith("ops/")], path


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_includes_core_and_itself(room: str) -> None:
    for path in cpp_files(CSRC / "ops" / room):
        foreign = [n for n in includes(path) if n.startswith("ops/") and not n.startswith(f"ops/{room}/")]
        assert not foreign, path


def test_no_torch_headers_and_no_pybind11_in_kernels() -> None:
    for path in cpp_files(CSRC):
        names = includes(path)
        assert not [name for name in names if re.match(r"(torch|ATen|c10)/", name)], path
        if path.suffix in {".cu", ".cuh"} or path.name.endswith("_cpu.cpp"):
            assert not [n for n in names if n.startswith("pybind11/") or n in ("core/tensor.h", "core/dispatch.h")], (
                path
            )


def test_only_core_cuda_knows_nvcc() -> None:
    for path in cpp_files(CSRC / "ops"):
        assert not [name for name in includes(path) if name.startswith(("cuda", "emulator/"))], path
        assert "__CUDACC__" not in path.read_text(), path
        assert "<<<" not in path.read_text(), path


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_complete(room: str) -> None:
    folder = CSRC / "ops" / room
    for name in (f"{room}.h", f"{room}_cpu.cpp", f"{room}_cuda.cu", f"{room}_bind.cpp"):
        assert (folder / name).is_file(), name
    parts = {f"{room}_{part}" for part in ("cpu", "cuda", "bind")}
    for path in folder.iterdir():  # besides, headers that only this room needs
        assert path.suffix in {".h", ".cuh"} or path.stem in parts, path
    for kind in ("tests/ops/test_*.py", "bench/ops/bench_*.py"):  # several small ops may share a file
        assert [path for path in ROOT.glob(kind) if room in path.name or room in path.read_text()], kind


def test_only_ops_import_the_compiled_module() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE / "ops":
            assert "fastcv._C" not in imports(path), path


def test_reference_imports_torch_alone() -> None:
    for path in python_files("reference"):
        for name in imports(path):
            assert name.split(".")[0] in {"torch", "math", "__future__", "collections"} or name.startswith(
                "fastcv.reference"
            ), f"{path} imports {name}"


def test_layers_import_downwards() -> None:
    above = {
        "ops": ("nn", "sparse", "models", "data", "engine", "cli", "reference"),
        "nn": ("sparse", "models", "data", "engine", "cli", "reference"),
        "sparse": ("nn", "models", "data", "engine", "cli", "reference"),
        "models": ("data", "engine", "cli", "reference"),
    }
    for folder, forbidden in above.items():
        for path in python_files(folder):
            wrong = [n for n in imports(path) if n.startswith(tuple(f"fastcv.{name}" for name in forbidden))]
            assert not wrong, f"{path} imports {wrong}"


def test_nobody_imports_tests_or_bench() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] in {"tests", "bench", "emulator"}], path


def test_the_stub_declares_what_the_module_has() -> None:
    tree = ast.parse((PACKAGE / "_C.pyi").read_text())
    declared = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    declared |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert declared == {name for name in dir(_C) if not name.startswith("__")}


@pytest.mark.parametrize("room", ROOMS)
def test_wide_code_stays_in_its_variant(room: str, tmp_path: Path) -> None:
    """No inline function of the AVX-512 objects may be picked by the linker for processors without it.

    Compiled without optimisation, so that every function which could end up out of line does.
    """
    compiler = shutil.which("g++")
    if (
        compiler is None
        or "avx512"
        not in subprocess.run([compiler, "-Q", "--help=target"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("needs g++ for x86-64")
    target = tmp_path / "wide.o"
    flags = "-std=c++17 -O0 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -DFASTCV_VARIANT=avx512"
    source = CSRC / "ops" / room / f"{room}_cpu.cpp"
    subprocess.run([compiler, *flags.split(), f"-I{CSRC}", "-c", str(source), "-o", str(target)], check=True)
    listing = subprocess.run(["nm", str(target)], capture_output=True, text=True, check=True).stdout
    weak = [line.split()[-1] for line in listing.splitlines() if line.split()[-2] in "WVuvw"]
    assert weak or room != "roi_align", "nm's output was not understood"
    ours = re.compile(r"_Z[A-Z]*N?K?6fastcv6avx512|DW\.ref\.__gxx_personality_v0$|_GLOBAL_OFFSET_TABLE_$")
    assert not [symbol for symbol in weak if not ours.match(symbol)]
    users = {"conv_transpose": {"gemm_tile"}, "sparse_conv": {"gemm_tile", "add_all_pairs"}}
    assert users_of_bf16_instructions(target) == users.get(room, set())


def users_of_bf16_instructions(target: Path) -> set[str]:
    """The functions with AVX512-BF16 instructions, which AVX-512 does not imply: only those of such pairs may have any.

    Kernels choose them at run time. A function of any other type, or of the twin, keeps its full name.
    """
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", str(target)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    users = set()
    for function in re.split(r"\n(?=[0-9a-f]+ <)", listing):
        if re.search(r"\t(vdpbf16ps|vcvtne\w*bf16)", function):
            name = function.split("\n")[0]
            chosen = re.search(r"(\w+)<fastcv::avx512::BFloat16Pair<false>", name)
            users.add(chosen[1] if chosen else name)
    return users
