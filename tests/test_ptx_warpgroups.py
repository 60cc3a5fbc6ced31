"""wgmma as the PTX backend runs it, against what the ISA says, and kernels with faults that it must find."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.build import cache_folder
from ptx.build import build_cases, nvcc
from ptx.launcher import Launcher, PtxFault
from ptx.parse import PtxError, parse
from ptx.translate import translate

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(nvcc() is None, reason="needs nvcc")]

# 128 threads copy `in` to shared memory, 80 KB, and multiply matrices there, whose descriptors (without the address of
# the array) stand in `words`, followed by four words for each thread. Each thread leaves {columns} / 2 sums in `out`.
KERNEL = """.visible .entry {name}(.param .u64 in, .param .u64 words, .param .u64 out)
{{
.reg .b32 %r<20>; .reg .b64 %d<20>; .reg .f32 %f<130>; .reg .f32 %g<130>; .reg .pred %p<9>;
.reg .b32 %i; .reg .b32 %tile;
ld.param.u64 %d1, [in]; ld.param.u64 %d2, [words]; ld.param.u64 %d3, [out];
mov.u32 %i, %tid.x; mov.u32 %tile, matrices;
shl.b32 %r1, %i, 4; mov.u32 %r2, %r1;
COPY:
cvt.u64.u32 %d4, %r2; add.s64 %d4, %d1, %d4; ld.global.v4.b32 {{%r3, %r4, %r5, %r6}}, [%d4];
add.s32 %r7, %tile, %r2; st.shared.v4.b32 [%r7], {{%r3, %r4, %r5, %r6}};
add.s32 %r2, %r2, 2048; setp.lt.u32 %p1, %r2, 81920; @%p1 bra COPY;
cvt.u64.u32 %d5, %tile; shr.u64 %d5, %d5, 4;
ld.global.u64 %d6, [%d2]; add.s64 %d6, %d6, %d5; ld.global.u64 %d7, [%d2+8]; add.s64 %d7, %d7, %d5;
cvt.u64.u32 %d8, %r1; add.s64 %d8, %d2, %d8; ld.global.v4.b32 {{%r10, %r11, %r12, %r13}}, [%d8+16];
mul.lo.u32 %r2, %i, 512; cvt.u64.u32 %d4, %r2; add.s64 %d3, %d3, %d4;
{start}
{body}
{stores}
ret;
}}
"""
ARRAY = ".extern .shared .align 1024 .b8 matrices[];\n"
SYNC = "fence.proxy.async; bar.sync 0; "
FENCE = "wgmma.fence.sync.aligned; "
COMMIT = "wgmma.commit_group.sync.aligned; "
WAIT = "wgmma.wait_group.sync.aligned {}; "
LEFT = "{%r10, %r11, %r12, %r13}"


def product(kind: str = "f16", columns: int = 64, *, left: str = "%d6", right: str = "%d7", accumulate: str = "1",
            scales: str = "1, 1", sums: str = "%f") -> str:  # fmt: skip
    """The instruction."""
    registers = ", ".join(f"{sums}{n}" for n in range(1, columns // 2 + 1))
    transposed = ", 0" if left.startswith("{") else ", 0, 0"
    return (
        f"setp.ne.u32 %p2, {accumulate}, 0;\n"
        f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} {{{registers}}}, {left}, {right}, %p2, "
        f"{scales}{transposed};\n"
    )


def kernel(name: str, body: str, columns: int = 64) -> str:
    start = " ".join(f"mov.f32 %f{n}, 0f40400000;" for n in range(1, columns // 2 + 1))  # 3
    stores = " ".join(f"st.global.f32 [%d3+{4 * n - 4}], %f{n};" for n in range(1, columns // 2 + 1))
    return KERNEL.format(name=name, start=start, body=body, stores=stores).replace("COPY", f"COPY_{name}")


def right_kernels() -> dict[str, tuple[int, str]]:
    made = {}
    end = COMMIT + WAIT.format(0)
    for kind in ("f16", "bf16"):
        for columns in (8, 24, 64, 128, 200, 256):
            made[f"{kind}_{columns}"] = (columns, SYNC + FENCE + product(kind, columns) + end)
        made[f"registers_{kind}"] = (64, SYNC + FENCE + product(kind, left=LEFT) + end)
    made["without_sums"] = (64, SYNC + FENCE + product(accumulate="0") + end)
    made["scaled"] = (64, SYNC + FENCE + product(scales="-1, 1") + product(scales="-1, -1") + product() + end)
    # Two products into the same registers need neither fence nor wait between them.
    made["chain"] = (64, SYNC + FENCE + product() + COMMIT + product() + COMMIT + WAIT.format(1) + WAIT.format(0))
    made["one_of_two"] = (
        64,
        SYNC + FENCE + product() + COMMIT + product(sums="%g") + COMMIT + WAIT.format(1) + "mov.f32 %f1, %f1;"
        + WAIT.format(0),
    )  # fmt: skip
    return made


END = COMMIT + WAIT.format(0)
FAULTS = {
    "wait_count": (
        SYNC + FENCE + product() + COMMIT + WAIT.format(1),
        "access to a register that a wgmma in flight reads or writes",
    ),
    "no_commit": (SYNC + FENCE + product() + WAIT.format(0), "access to a register that a wgmma in flight"),
    "no_fence": (SYNC + product() + END, "a register of wgmma that was accessed after the last wgmma.fence"),
    "early_fence": (SYNC + FENCE + "mov.f32 %f7, 0f00000000;" + product() + END, "accessed after the last wgmma.fence"),
    "read_and_no_fence": (
        SYNC + FENCE + product() + END + "st.global.f32 [%d3], %f3;" + product() + END,
        "accessed after the last wgmma.fence",
    ),
    "no_proxy_fence": ("bar.sync 0;" + FENCE + product() + END, "has written, and made no fence.proxy.async since"),
    "early_proxy_fence": (
        "fence.proxy.async; st.shared.u32 [%tile], 0; bar.sync 0;" + FENCE + product() + END,
        "has written, and made no fence.proxy.async since",
    ),
    "no_barrier": ("fence.proxy.async;" + FENCE + product() + END, "write of 16 bytes at shared memory that a wgmma"),
    "write_in_flight": (
        SYNC + FENCE + product() + COMMIT + "st.shared.u32 [%tile], 0;" + WAIT.format(0),
        "write of 4 bytes at shared memory that a wgmma in flight reads",
    ),
    "write_before_others_waited": (
        SYNC + FENCE + product() + END + "st.shared.u32 [%tile], 0;",
        "write of 4 bytes at shared memory that a wgmma in flight reads",
    ),
    "copy_in_flight": (
        SYNC + FENCE + product() + COMMIT + "cp.async.cg.shared.global [%tile], [%d1], 16;" + WAIT.format(0),
        "asynchronous copy of 16 bytes at shared memory that a wgmma in flight reads",
    ),
    "copy_under_way": (
        "cp.async.cg.shared.global [%tile], [%d1], 16; cp.async.commit_group;" + SYNC + FENCE + product() + END,
        "that an asynchronous copy is still writing to",
    ),
    "left_changed_in_flight": (
        SYNC + FENCE + product(left=LEFT) + COMMIT + "mov.u32 %r12, 0;" + WAIT.format(0),
        "access to a register that a wgmma in flight",
    ),
    "two_shapes_in_flight": (
        SYNC + FENCE + product() + product(columns=32) + END,
        "a register of wgmma that is in flight in another shape or place",
    ),
    "exit_in_flight": (SYNC + FENCE + product() + COMMIT + "ret;", "the thread returned with 1 wgmma under way"),
    "one_warp_less": (
        SYNC + "setp.gt.u32 %p3, %i, 95; @%p3 bra SKIP;" + FENCE + product() + END + "SKIP:",
        "the threads of a warpgroup have executed [01] and [01] wgmma",
    ),
    "two_matrices": (
        SYNC + "setp.gt.u32 %p3, %i, 95; selp.b64 %d7, %d6, %d7, %p3;" + FENCE + product() + END,
        "the threads of a warpgroup are not all at this wgmma with the same matrices",
    ),
    "base_offset": (
        SYNC + FENCE + "or.b64 %d7, %d7, 562949953421312;" + product() + END,
        "a base offset of a matrix is not known",
    ),
    "not_at_the_pattern": (SYNC + FENCE + "add.s64 %d7, %d7, 8;" + product() + END, "begin where its pattern does"),
    "past_the_row": (SYNC + FENCE + "add.s64 %d7, %d7, 7;" + product() + END, "16 columns that are not in one"),
    "outside": (SYNC + FENCE + "add.s64 %d7, %d7, 4992;" + product() + END, "shared memory that belongs to no array"),
}  # fmt: skip

Launch = Callable[..., np.ndarray[Any, Any]]


def source() -> Path:
    path = cache_folder() / "ptx" / "warpgroups.ptx"
    path.parent.mkdir(parents=True, exist_ok=True)
    kernels = [kernel(name, body, columns) for name, (columns, body) in right_kernels().items()]
    kernels += [kernel(f"fault_{name}", body.replace("SKIP", f"$SKIP_{name}")) for name, (body, _) in FAULTS.items()]
    text = "\n".join(kernels).replace("COPY_", "$COPY_")
    path.write_text(".version 8.0\n.target sm_90a\n.address_size 64\n" + ARRAY + text)
    return path


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    return Launcher(*build_cases([source()]))


def test_the_kernels_are_ptx(tmp_path: Path) -> None:
    """NVIDIA's own assembler takes them."""
    command = ["ptxas", "-arch=sm_90a", "-O1", str(source()), "-o", str(tmp_path / "out.cubin")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:2000]


ROW_BYTES = {"none": 16, "128": 128, "64": 64, "32": 32}
MODE = {"none": 0, "128": 1, "64": 2, "32": 3}
BYTES = 81920
RIGHT = 16384  # where the right matrix lies; the left one lies at 0


def place(row: int, k: int, swizzle: str, stride: int, leading: int) -> int:
    """The byte of element (row, k): the ISA's canonical layouts of matrices that are contiguous along k.

    They are Swizzle<B, 4, 3> of ((8, m), (8, 2)) : ((W, stride), (1, leading or 8)), in elements, W a row of it:
    bits 4 to 3 + B of the byte's number are changed by those three further up.
    """
    along = leading if swizzle == "none" else 16
    plain = row % 8 * ROW_BYTES[swizzle] + row // 8 * stride + k // 8 * along + k % 8 * 2
    bits = {"none": 0, "32": 1, "64": 2, "128": 3}[swizzle]
    return plain ^ ((plain >> 7) & ((1 << bits) - 1)) << 4


def descriptor(start: int, swizzle: str, stride: int, leading: int) -> int:
    """ "Matrix Descriptor Format": three fields of 14 bits in units of 16 bytes, and the mode in bits 62 and 63."""
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | MODE[swizzle] << 62


def halves(matrix: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    if kind == "f16":
        return matrix.astype(np.float16).view(np.uint16)
    return (matrix.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


class Problem:
    """Small integers, whose sums are exact in any order: in shared memory, descriptors, and fragments of the left."""

    def __init__(self, columns: int = 64, kind: str = "f16", swizzle: str = "128", step: int = 0) -> None:
        generator = np.random.default_rng(columns)
        self.a, self.b = generator.integers(-8, 9, (64, 16)), generator.integers(-8, 9, (columns, 16))
        self.columns = columns
        self.stride, self.leading = 8 * ROW_BYTES[swizzle], 128
        if swizzle == "none":
            self.stride = 256
        self.image = np.full(BYTES // 2, 0x7FFF, np.uint16)  # NaN, of f16 and of bf16
        for matrix, start in ((self.a, 0), (self.b, RIGHT)):
            bits = halves(matrix, kind)
            for row, k in np.ndindex(*matrix.shape):
                at = place(row, k + 16 * step, swizzle, self.stride, self.leading)
                self.image[(start + at) // 2] = bits[row, k]
        self.left = descriptor(32 * step, swizzle, self.stride, self.leading)
        self.right = descriptor(RIGHT + 32 * step, swizzle, self.stride, self.leading)
        self.fragments = np.zeros((128, 8), np.uint16)
        for thread in range(128):
            for n in range(8):
                row = thread // 32 * 16 + thread % 32 // 4 + (8 if n in (2, 3, 6, 7) else 0)
                k = thread % 4 * 2 + n % 2 + (8 if n >= 4 else 0)
                self.fragments[thread, n] = halves(self.a, kind)[row, k]

    def product(self) -> np.ndarray[Any, Any]:
        return (self.a @ self.b.T).astype(np.float32)

    def run(self, launcher: Launcher, name: str, threads: int = 128) -> np.ndarray[Any, Any]:
        """The matrix that the threads' sums make, from the ISA's figure of the register fragments."""
        words = np.zeros(2 + 2 * 128, np.uint64)
        words[0], words[1] = self.left, self.right
        words[2:] = self.fragments.view(np.uint64).reshape(-1)
        out = np.zeros((128, 128), np.float32)
        launcher(name, aligned(self.image), aligned(words), out, threads=threads, shared=BYTES)
        result = np.zeros((64, self.columns), np.float32)
        for thread in range(128):
            for n in range(self.columns // 2):
                row = thread // 32 * 16 + thread % 32 // 4 + 8 * (n % 4 // 2)
                result[row, n // 4 * 8 + thread % 4 * 2 + n % 2] = out[thread, n]
        return result


def aligned(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy at a multiple of 16 bytes."""
    room = np.zeros(values.nbytes + 16, np.uint8)
    start = -room.ctypes.data % 16
    copy = room[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("columns", [8, 24, 64, 128, 200, 256])
def test_product(launcher: Launcher, kind: str, columns: int) -> None:
    problem = Problem(columns, kind)
    np.testing.assert_array_equal(problem.run(launcher, f"{kind}_{columns}"), problem.product() + 3)


@pytest.mark.parametrize("swizzle", sorted(MODE))
def test_layouts(launcher: Launcher, swizzle: str) -> None:
    for step in range(max(1, ROW_BYTES[swizzle] // 32)):
        problem = Problem(64, "f16", swizzle, step)
        np.testing.assert_array_equal(problem.run(launcher, "f16_64"), problem.product() + 3)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_left_matrix_in_registers(launcher: Launcher, kind: str) -> None:
    problem = Problem(64, kind)
    np.testing.assert_array_equal(problem.run(launcher, f"registers_{kind}"), problem.product() + 3)


def test_sums_and_scales(launcher: Launcher) -> None:
    problem = Problem()
    product = problem.product()
    np.testing.assert_array_equal(problem.run(launcher, "without_sums"), product)
    np.testing.assert_array_equal(problem.run(launcher, "scaled"), product + 3)
    np.testing.assert_array_equal(problem.run(launcher, "chain"), 2 * product + 3)
    np.testing.assert_array_equal(problem.run(launcher, "one_of_two"), product + 3)


@pytest.mark.parametrize("swizzle", ["none", "64", "32"])
def test_another_swizzle_gives_another_product(launcher: Launcher, swizzle: str) -> None:
    problem = Problem()
    problem.right = descriptor(RIGHT, swizzle, problem.stride, problem.leading)
    assert not np.array_equal(problem.run(launcher, "f16_64"), problem.product() + 3)
    problem = Problem()
    problem.right = descriptor(RIGHT, "128", 512, problem.leading)
    assert not np.array_equal(problem.run(launcher, "f16_64"), problem.product() + 3)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_fault_is_found(launcher: Launcher, fault: str) -> None:
    for seed in range(1, 6):
        launcher.set_seed(seed)
        problem = Problem()
        with pytest.raises(PtxFault, match=FAULTS[fault][1]):
            problem.run(launcher, f"fault_{fault}")
        np.testing.assert_array_equal(problem.run(launcher, "f16_64"), problem.product() + 3)


def test_a_warpgroup_has_128_threads(launcher: Launcher) -> None:
    with pytest.raises(PtxFault, match="wgmma by fewer than 128 threads"):
        Problem().run(launcher, "f16_64", threads=96)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (product().replace("1, 1, 0, 0;", "1, 1, 0, 1;"), "whose rows or columns are contiguous are not known"),
        (product(scales="1, 2"), "a scale is 1 or -1"),
        (product(columns=32).replace("n32k16", "n64k16"), "32 registers were expected for the sums"),
        (product().replace("k16", "k8"), "unknown instruction"),
    ],
)
def test_what_is_not_known_is_an_error(line: str, error: str) -> None:
    text = ".version 8.0\n.target sm_90a\n.address_size 64\n" + ARRAY + kernel("k", line)
    with pytest.raises(PtxError, match=error):
        translate(parse(text.replace("COPY_", "$COPY_"), "k.ptx"), "k")
