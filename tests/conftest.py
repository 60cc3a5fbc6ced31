"""Backends: every op test runs on each CPU variant, on the emulated CUDA kernels and, where there is one, on a GPU."""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ptx.build import nvcc
from ptx.module import load_extension, load_ptx_module

import fastcv.ops
import fastcv.sparse
from fastcv.ops import build_info
from fastcv.ops._call import COMPILED

CPU_VARIANTS = ("baseline", "avx2", "avx512")
BF16_PAIRS = "cpu-avx512_bf16"


@dataclass(frozen=True)
class Backend:
    """Where an op runs in a test."""

    name: str
    device: str

    @property
    def is_cuda(self) -> bool:
        """Whether the CUDA kernels run: on a GPU or in the emulator."""
        return self.name == "cuda" or self.is_emulated

    @property
    def is_emulated(self) -> bool:
        """Whether the CUDA kernels run on CPU tensors, one thread at a time: as C++, or as nvcc's PTX."""
        return self.name in ("emulated", "ptx")


def native_modules() -> Iterator[ModuleType]:
    """The modules of fastcv.ops, each of which calls the compiled module through its own name ``_C``."""
    for info in pkgutil.iter_modules(fastcv.ops.__path__):
        module = importlib.import_module(f"fastcv.ops.{info.name}")
        if hasattr(module, "_C"):
            yield module


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-calls", type=int, default=4000, help="how many random calls test_fuzz.py makes")
    parser.addoption(
        "--emulator-sanitize",
        choices=["address"],
        default="",
        help="run the emulated CUDA kernels under AddressSanitizer and UBSan; it says which LD_PRELOAD that needs",
    )


@pytest.fixture(scope="session")
def emulated_module(request: pytest.FixtureRequest) -> ModuleType:
    """The test-only build of the bindings whose CUDA kernels run on the CPU."""
    from emulator.build import MODULE_NAME, build_module, sanitizer_preload

    sanitize = request.config.getoption("--emulator-sanitize")
    if sanitize and "libasan" not in os.environ.get("LD_PRELOAD", ""):
        pytest.exit(f"run again with: LD_PRELOAD='{sanitizer_preload(sanitize)}' ASAN_OPTIONS=detect_leaks=0", 4)
    return load_extension(MODULE_NAME, build_module(sanitize))


@pytest.fixture(scope="session")
def ptx_module() -> ModuleType:
    """The test-only build whose CUDA kernels are those of nvcc, translated from PTX to C++."""
    return load_ptx_module()


def _backend_names() -> list[object]:
    """The backends of this machine; the header of the run says what it lacks."""
    names: list[object] = [f"cpu-{variant}" for variant in CPU_VARIANTS if variant in build_info()["cpu_variants"]]
    if "avx512" in build_info()["cpu_variants"]:
        names.append(BF16_PAIRS)  # with the instruction, or else with its twin
    names.append("emulated")
    if nvcc() is not None:
        names.append(pytest.param("ptx", marks=pytest.mark.ptx))
    if torch.cuda.is_available():
        names.append(pytest.param("cuda", marks=pytest.mark.cuda))
    return names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Products of bfloat16 pairs are for tests of that dtype, in modules whose op has them."""
    items[:] = [item for item in items if _has_work(item)]


def _has_work(item: pytest.Item) -> bool:
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if parameters.get("backend") != BF16_PAIRS:
        return True
    return getattr(item.module, "HAS_BF16_PAIRS", False) and parameters.get("dtype") is torch.bfloat16  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C reaches tests and their subprocesses, which a shell's background would ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    missing = [variant for variant in CPU_VARIANTS if variant not in build_info()["cpu_variants"]]
    lines = [f"fastcv: torch {torch.__version__}, CPU variants {', '.join(build_info()['cpu_variants'])}"]
    if missing:
        lines.append(f"fastcv: NOT tested, this processor lacks them: {', '.join(missing)}")
    if "avx512" not in missing and "avx512_bf16" not in build_info()["cpu_variants"]:
        lines.append("fastcv: AVX512-BF16 is emulated, this processor lacks it")
    if not torch.cuda.is_available():
        lines.append("fastcv: NOT tested on a GPU, there is none; the CUDA kernels run in the emulator")
    if nvcc() is None:
        lines.append("fastcv: NOT tested as PTX, for want of nvcc")
    return lines


@pytest.fixture(params=_backend_names())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    name: str = request.param
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # float32 is float32 unless a test says otherwise
    if name == "cuda":
        if not build_info()["cuda"]:
            pytest.fail("there is a GPU, but fastcv was built without CUDA")
        yield Backend(name, "cuda")
    elif name == "cpu-default":
        yield Backend(name, "cpu")
    elif name in ("emulated", "ptx"):
        emulated = request.getfixturevalue(f"{name}_module")
        for module in native_modules():
            monkeypatch.setattr(module, "_C", emulated)
        monkeypatch.setitem(COMPILED, "_C", emulated)
        yield Backend(name, "cpu")
    else:
        variant = name.removeprefix("cpu-")
        before = build_info()["cpu_variant"]
        fastcv.ops._build._C.set_cpu_variant(variant)
        yield Backend(name, "cpu")
        fastcv.ops._build._C.set_cpu_variant(before)


@pytest.fixture(autouse=True)
def without_stand_ins() -> Iterator[None]:
    """What a test, a docstring or a page put in the place of spconv is gone after it."""
    yield
    if getattr(sys.modules.get("spconv"), "pytorch", None) is fastcv.sparse:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("spconv", "cumm")]:
            del sys.modules[name]


@pytest.fixture
def in_new_process(tmp_path: Path) -> Callable[[str], str]:
    """Runs a script in a process of its own, which must not die, and returns what it prints.

    Away from the checkout, whose folder fastcv would come before an installed package.
    """

    def run(script: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(script)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def torchvision_ops() -> ModuleType:
    """torchvision.ops, whose values the RoI, box and suppression ops share."""
    try:
        ops = importlib.import_module("torchvision.ops")
        ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision's operators do not load here: {str(error).splitlines()[0]}")
    return ops


@pytest.fixture
def newest_torchvision_ops(torchvision_ops: ModuleType) -> ModuleType:
    """Return torchvision.ops, for what earlier ones lack or, by way of torch, differentiate otherwise."""
    if torch.__version__ < "2.14":
        pytest.skip(f"takes torch 2.14 and its torchvision, got torch {torch.__version__}")
    return torchvision_ops
