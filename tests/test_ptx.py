"""The PTX backend: it finds planted faults, finds none in right kernels, and knows every kernel of fastcv."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ptx.build import PTX, build_cases, kernel_expression, kernel_expressions, nvcc
from ptx.launcher import Launcher, PtxFault
from ptx.parse import PtxError, parse
from ptx.translate import translate

needs_nvcc = [pytest.mark.ptx, pytest.mark.skipif(nvcc() is None, reason="needs nvcc")]
SHARED = 1024  # bytes that the kernels of faults.cu ask for

# What the runtime says of each fault; None where a wrong answer is all that shows.
FAULTS = {
    "wait_count": r"read of 4 bytes at shared memory that an asynchronous copy is still writing to",
    "copies_at_exit": r"the thread returned with 1 asynchronous copies under way",
    "vector_load": r"thread \(5, 0, 0\): read of 16 bytes at a global address that is not a multiple of it",
    "copy_alignment": r"thread \(5, 0, 0\): asynchronous copy from a global address that is not a multiple of its size",
    "shared_end": r"thread \(127, 0, 0\): write of 4 bytes at shared memory that belongs to no array",
    "dynamic_shared_end": r"thread \(127, 0, 0\): write of 4 bytes at shared memory that belongs to no array",
    "global_end": r"thread \(127, 0, 0\): read of 4 bytes at global memory, 4 bytes past the end of the nearest tensor",
    "global_begin": r"thread \(0, 0, 0\): write of 4 bytes at global memory, 4 bytes before the beginning of the",
    "divergent_shuffle": r"divergent warp: thread .* came to warp_(any|shuffle) of mask 0xffffffff",
    "missing_barrier": None,
    "divergent_barrier": r"divergent block barrier: .*(block_any.*block_sync|block_sync.*block_any)",
    "thread_missing_at_barrier": r"no thread can go on",
    "lane_missing_at_mma": r"thread \(40, 0, 0\) returned from the kernel, but|lane 8: that thread has returned",
    "unrounded_tf32": r"an operand of mma that was not rounded to tf32",
    "division_by_zero": r"division of an integer by zero",
    "launch_bounds": r"a block of 128 threads, more than the 64 of __launch_bounds__",
}


@pytest.fixture(scope="module")
def launch() -> Launcher:
    path, names = build_cases([PTX / "cases" / "faults.cu"])
    return Launcher(path, [kernel.removeprefix("fastcv::emulated::") for kernel in kernel_expressions(names)])


def run(launch: Launcher, kernel: str) -> bool:
    """Whether the kernel copies right."""
    values, out = np.arange(1, 129, dtype=np.float32), np.zeros(128, np.float32)
    launch(kernel, aligned(values), out, shared=SHARED)
    return bool((out == values).all())


def aligned(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy at a multiple of 16 bytes."""
    room = np.zeros(values.nbytes + 16, np.uint8)
    start = -room.ctypes.data % 16
    copy = room[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


@pytest.mark.ptx
@pytest.mark.skipif(nvcc() is None, reason="needs nvcc")
def test_more_shared_memory_than_every_gpu_has_is_refused(launch: Launcher) -> None:
    values, out = np.arange(1, 129, dtype=np.float32), np.zeros(128, np.float32)
    with pytest.raises(PtxFault, match=r"a block with 10\d{4} bytes of shared memory, .* sm_86 has 99 KiB"):
        launch("dynamic_shared_end<false>", aligned(values), out, shared=100 << 10)


@pytest.mark.parametrize("fault", sorted(FAULTS))
class TestFaults:
    pytestmark = needs_nvcc

    def test_right_kernel_passes(self, launch: Launcher, fault: str) -> None:
        for seed in range(1, 21):
            launch.set_seed(seed)
            assert run(launch, f"{fault}<false>")

    def test_fault_is_found(self, launch: Launcher, fault: str) -> None:
        expected = FAULTS[fault]
        for seed in range(1, 21):
            launch.set_seed(seed)
            if expected is None:
                assert not run(launch, f"{fault}<true>")
                continue
            with pytest.raises(PtxFault, match=expected) as caught:
                run(launch, f"{fault}<true>")
            assert re.search(r"faults\.ptx", str(caught.value)) or "returned from the kernel" in str(caught.value)
        assert run(launch, f"{fault}<false>"), "a launch after a failed one"


HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k(.param .u64 k_param_0)\n{\n"
HEAD += ".reg .b32 %r<3>;\n.reg .f32 %f1;\n"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("sin.approx.f32 %f1, %f1;", "k.ptx:8: unknown instruction sin.approx.f32"),
        ("add.s32 %r1, %r7, 1;", "k.ptx:8: unknown operand Special(name='%r7')"),
        ("add.f32 %f1, %f1, %f1;", "k.ptx:8: unknown instruction add.f32"),
        ("ld.param.u64 %r1, [k_param_0];", "k.ptx:8: register r1 of type b32 cannot take a u64"),
        ("ld.param.u32 %r1, [k_param_0+8];", "k.ptx:8: 4 bytes at 8 are not in a parameter k_param_0, or not aligned"),
        ("ld.global.v2.u32 {%r1}, [%r2];", "k.ptx:8: ld.global.v2.u32: 2 registers were expected"),
        (".surprise 3;", "k.ptx:8: unknown instruction .surprise"),
        ("^", "k.ptx:8: unexpected '^'"),
    ],
)
def test_what_is_not_known_is_an_error(line: str, error: str) -> None:
    with pytest.raises(PtxError, match=re.escape(error)):
        translate(parse(HEAD + line + "\nret;\n}\n", "k.ptx"), "k")


def test_names_of_kernels() -> None:
    name = "void fastcv::cuda::(anonymous namespace)::k<(bool)1, fastcv::cuda::float16>(fastcv::P, float (*)(int))"
    assert kernel_expression(name) == "fastcv::emulated::k<(bool)1, fastcv::emulated::float16>"
    assert kernel_expression("fastcv::cuda::plain(int)") == "fastcv::emulated::plain"


def test_files_are_short() -> None:
    for path in (*Path(PTX).glob("*.*"), *Path(PTX, "cases").glob("*.*")):
        assert len(path.read_text().splitlines()) <= 400, path
