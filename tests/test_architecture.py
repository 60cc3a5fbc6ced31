"""The dependency rules, how long a file may be, and that an op can be taken out."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from copied_build import build, copy_sources, run

from fastcv import _C
from fastcv.ops._define import OPERATORS

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "fastcv"
OPS = sorted(path.name for path in (CSRC / "ops").iterdir() if path.is_dir())
TORCHS_ON_CUDA = {"conv2d"}  # torch's own operations serve there; no kernel
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 80


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


def test_core_knows_itself_and_families_know_core() -> None:
    for path in cpp_files(CSRC / "core"):
        assert not [name for name in includes(path) if name.startswith(("ops/", "families/"))], path
    for path in cpp_files(CSRC / "families"):
        family = f"families/{path.relative_to(CSRC / 'families').parts[0]}/"
        foreign = [n for n in includes(path) if n.startswith(("ops/", "families/")) and not n.startswith(family)]
        assert not foreign, path


@pytest.mark.parametrize("op", OPS)
def test_an_op_includes_core_families_and_itself(op: str) -> None:
    for path in cpp_files(CSRC / "ops" / op):
        foreign = [n for n in includes(path) if n.startswith("ops/") and not n.startswith(f"ops/{op}/")]
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


@pytest.mark.parametrize("op", OPS)
def test_an_op_folder_is_complete(op: str) -> None:
    """Its four files (three where torch serves CUDA), nothing but headers beside them, and a compiled function.

    Kernels for sm_90a alone have a file of their own.

    That each function is tested is what test_contract.py asks for.
    """
    folder = CSRC / "ops" / op
    parts = {f"{op}_cpu.cpp", f"{op}_cuda.cu", f"{op}_bind.cpp"}
    if op in TORCHS_ON_CUDA:
        parts.remove(f"{op}_cuda.cu")
    found = {path.name for path in folder.iterdir() if path.suffix not in {".h", ".cuh"}}
    assert found - {f"{op}_wgmma_cuda.cu"} == parts
    assert (folder / f"{op}.h").is_file()
    bound = set(re.findall(r'module\.def\("(\w+)"', (folder / f"{op}_bind.cpp").read_text()))
    assert bound & set(OPERATORS), op


def code_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_files_are_short() -> None:
    suffixes = {".py", ".h", ".cuh", ".cpp", ".cu"}
    for folder in (CSRC, PACKAGE, ROOT / "tests", ROOT / "bench"):
        long = {str(p): code_lines(p) for p in folder.rglob("*") if p.suffix in suffixes}
        assert not {path: lines for path, lines in long.items() if lines > MOST_LINES_OF_A_FILE}


def test_functions_are_short() -> None:
    """Docstrings do not count in Python; in C++ a function ends at the first brace in its column."""
    long = []
    for folder in (PACKAGE, ROOT / "tests", ROOT / "bench"):
        for path in set(folder.rglob("*.py")) - set((ROOT / "tests" / "cases").glob("*.py")):  # tables
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef) and (lines := body_lines(node)) > MOST_LINES_OF_A_FUNCTION:
                    long.append((path.name, node.name, lines))
    for path in cpp_files(CSRC):
        lines = path.read_text().splitlines()
        for start, line in enumerate(lines):
            if re.match(r"( {2})?[\w:~].*\) (const )?\{$", line) and not re.match(
                r" *(if|for|while|switch|namespace)\b", line
            ):
                indent = len(line) - len(line.lstrip())
                closing = " " * indent + "}"
                end = next((i for i in range(start, len(lines)) if lines[i].startswith(closing)), start)
                if end - start > MOST_LINES_OF_A_FUNCTION:
                    long.append((path.name, line.strip(), end - start))
    assert not long


def body_lines(node: ast.FunctionDef) -> int:
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = first.end_lineno if is_docstring else node.lineno
    assert node.end_lineno is not None
    assert start is not None
    return node.end_lineno - start


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


def test_layers_load_without_models(in_new_process: Callable[[str], str]) -> None:
    """Names of detectors' parts that moved away are found through ``fastcv.nn`` still, when they are asked for."""
    script = """
        import sys
        from fastcv import nn
        assert not [name for name in sys.modules if name.startswith("fastcv.models")]
        from fastcv.models import detection
        for name in nn._MOVED_TO_DETECTION:
            assert getattr(nn, name) is getattr(detection, name)
        assert not hasattr(nn, "create")
    """
    in_new_process(script)


@pytest.mark.parametrize("folder", ["nn", "models", "data", "engine", "cli"])
def test_no_import_circles(folder: str) -> None:
    """Neither at the top of a module nor inside a function. What a package's __init__ collects does not count."""
    files = {path for path in python_files(folder) if path.name != "__init__.py"}
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    needs = {name: {other for other in imports(path) if other in names} for name, path in names.items()}
    while needs:
        free = {name for name, others in needs.items() if not others & needs.keys()}
        assert free, f"import each other: {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in free}


def test_nobody_imports_tests_or_bench() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] in {"tests", "bench", "emulator"}], path


def test_the_stub_declares_what_is_no_operator() -> None:
    """The schema of an operator is its signature, which test_contract.py compares with the compiled function's."""
    tree = ast.parse((PACKAGE / "_C.pyi").read_text())
    declared = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert declared - {"__getattr__"} == {
        name for name in dir(_C) if not name.startswith("__") and name.removesuffix("_values") not in OPERATORS
    }


@pytest.mark.parametrize("op", OPS)
def test_wide_code_stays_in_its_variant(op: str, tmp_path: Path) -> None:
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
    source = CSRC / "ops" / op / f"{op}_cpu.cpp"
    subprocess.run([compiler, *flags.split(), f"-I{CSRC}", "-c", str(source), "-o", str(target)], check=True)
    listing = subprocess.run(["nm", str(target)], capture_output=True, text=True, check=True).stdout
    weak = [line.split()[-1] for line in listing.splitlines() if line.split()[-2] in "WVuvw"]
    assert weak or op != "roi_align", "nm's output was not understood"
    ours = re.compile(r"_Z[A-Z]*N?K?6fastcv6avx512|DW\.ref\.__gxx_personality_v0$|_GLOBAL_OFFSET_TABLE_$")
    assert not [symbol for symbol in weak if not ours.match(symbol)]
    users = {
        "conv2d": {"gemm_tile"},
        "conv_transpose": {"gemm_tile"},
        "sparse_conv": {"add_panel", "add_narrow_panel"},
    }
    assert users_of_bf16_instructions(target) == users.get(op, set())


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


@pytest.mark.slow
def test_without_some_ops_the_rest_builds(tmp_path: Path) -> None:
    """Delete their folders, their Python files and the lines that name them: the rest is built, imported and used."""
    copy_sources(tmp_path)
    ops = ("ball_query", "soft_nms")
    for op in ops:
        shutil.rmtree(tmp_path / "csrc" / "ops" / op)
        for path in (tmp_path / "fastcv" / "ops" / f"{op}.py", tmp_path / "fastcv" / "reference" / f"{op}.py"):
            path.unlink(missing_ok=True)
    for package in ("ops", "reference"):
        init = tmp_path / "fastcv" / package / "__init__.py"
        lines = [line for line in init.read_text().splitlines() if not any(op in line for op in ops)]
        init.write_text("\n".join(lines) + "\n")
    build(tmp_path)
    use = "from fastcv import ops; import torch; ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
    run(tmp_path, sys.executable, "-c", use)
