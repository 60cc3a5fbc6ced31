"""PTX instructions on memory, and those of several threads, against what the ISA says of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.build import cache_folder
from ptx.build import build_cases, nvcc
from ptx.effects import EFFECTS
from ptx.launcher import Launcher, PtxFault

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(nvcc() is None, reason="needs nvcc")]

# Thread i finds 64 bytes of its own in `in` and leaves 64 in `out`: %in and %out are their addresses, %i its number.
HEAD = """.visible .entry {name}(.param .u64 in, .param .u64 out)
{{
.reg .b16 %h<9>; .reg .b32 %r<40>; .reg .b64 %d<20>; .reg .f32 %f<20>; .reg .f64 %g<9>; .reg .pred %p<9>;
.reg .b32 %i; .reg .b64 %in; .reg .b64 %out;
.shared .align 16 .b8 tile_{name}[4096];
ld.param.u64 %in, [in]; ld.param.u64 %out, [out];
mov.u32 %i, %tid.x; cvt.u64.u32 %d0, %i; shl.b64 %d0, %d0, 6;
add.s64 %in, %in, %d0; add.s64 %out, %out, %d0;
mov.u32 %r39, tile_{name}; shl.b32 %r38, %i, 4; add.s32 %r38, %r39, %r38;
{body}
ret;
}}
"""
# A result of 32 bits, from lane and a word of input.
WORD = "ld.global.u32 %r1, [%in]; ld.global.u32 %r2, [%in+4];\n{}\nst.global.u32 [%out], %r3;"
WARP = "0xffffffff"


def loads_and_stores() -> dict[str, str]:
    """Each width through each way, and back."""
    made = {}
    for kind, register in (
        ("u8", "%h"),
        ("s8", "%h"),
        ("b16", "%h"),
        ("u32", "%r"),
        ("b64", "%d"),
        ("f32", "%f"),
        ("f64", "%g"),
    ):
        size = int(kind[1:]) // 8
        move = f"ld.global.{kind} {register}1, [%in+{size}]; st.global.{kind} [%out], {register}1;"
        move += f"st.shared.{kind} [%r38+{size}], {register}1; ld.volatile.shared.{kind} {register}2, [%r38+{size}];"
        made[f"move_{kind}"] = move + f"st.volatile.global.{kind} [%out+8], {register}2;"
    for count in (2, 4):
        for kind, register in (("u8", "%h"), ("u16", "%h"), ("b32", "%r"), ("f32", "%f"), ("f64", "%g")):
            if count * int(kind[1:]) > 128:
                continue
            names = "{" + ", ".join(f"{register}{n}" for n in range(1, count + 1)) + "}"
            code = f"ld.global.v{count}.{kind} {names}, [%in]; st.shared.v{count}.{kind} [%r38], {names};"
            made[f"vector_{count}_{kind}"] = (
                code + f"ld.shared.v{count}.{kind} {names}, [%r38]; st.global.v{count}.{kind} [%out], {names};"
            )
    code = ".local .align 16 .b8 depot_{0}[32]; mov.u64 %d1, depot_{0}; ld.global.v2.u32 {{%r1, %r2}}, [%in];"
    code += "cvt.u64.u32 %d2, %r2; add.s64 %d2, %d1, %d2; st.local.u32 [%d2+4], %r1; ld.local.u32 %r3, [%d2+4];"
    made["local"] = code.format("local") + "st.global.u32 [%out], %r3;"
    made["extend"] = "ld.global.s8 %h1, [%in]; cvt.s32.s16 %r1, %h1; ld.global.u8 %h2, [%in]; cvt.s32.s16 %r2, %h2;"
    made["extend"] += "ld.global.s8 %r3, [%in]; st.global.v4.b32 [%out], {%r1, %r2, %r3, %r3};"
    made["pack"] = "ld.global.v2.u32 {%r1, %r2}, [%in]; mov.b64 %d1, {%r2, %r1}; mov.b32 {%h1, %h2}, %r1;"
    made["pack"] += "mov.b32 %r3, {%h2, %h1}; mov.b64 {%r4, %r5}, %d1; mov.b32 %f1, %r2; mov.b32 %r6, %f1;"
    made["pack"] += "st.global.v4.b32 [%out], {%r3, %r4, %r5, %r6};"
    return made


def warp_kernels() -> dict[str, str]:
    made = {}
    for mode in ("up", "down", "bfly", "idx"):
        code = (
            f"shfl.sync.{mode}.b32 %r3|%p1, %i, %r1, %r2, {WARP}; selp.u32 %r4, 1, 0, %p1; st.global.u32 [%out+4], %r4;"
        )
        made[f"shfl_{mode}"] = WORD.format(code)
    made["vote_ballot"] = WORD.format(f"setp.ne.u32 %p1, %r1, 0; vote.sync.ballot.b32 %r3, %p1, {WARP};")
    for vote in ("any", "all"):
        made[f"vote_{vote}"] = WORD.format(
            f"setp.ne.u32 %p1, %r1, 0; vote.sync.{vote}.pred %p2, %p1, {WARP}; selp.u32 %r3, 1, 0, %p2;"
        )
    for vote in ("or", "and"):
        made[f"bar_{vote}"] = WORD.format(
            f"setp.ne.u32 %p1, %r1, 0; bar.red.{vote}.pred %p2, 0, %p1; selp.u32 %r3, 1, 0, %p2;"
        )
    made["bar_popc"] = WORD.format("setp.ne.u32 %p1, %r1, 0; bar.red.popc.u32 %r3, 0, %p1;")
    of_another = "shl.b32 %r4, %r4, 4; add.s32 %r4, %r39, %r4; ld.shared.u32 %r3, [%r4];"
    made["bar_sync"] = WORD.format("st.shared.u32 [%r38], %r1; bar.sync 0; xor.b32 %r4, %i, 63;" + of_another)
    made["bar_warp"] = WORD.format(
        f"st.shared.u32 [%r38], %r1; bar.warp.sync {WARP}; xor.b32 %r4, %i, 31;" + of_another
    )
    for opcode in EFFECTS:
        if opcode.startswith("redux"):
            made[opcode.replace(".", "_")] = WORD.format(f"{opcode} %r3, %r1, {WARP};")
    made["barrier_one"] = "bar.sync 1;"
    return made


def atomics() -> dict[str, str]:
    """On a word of shared memory and one of global memory, by one thread."""
    made = {}
    kinds = {"u32": "%r", "s32": "%r", "u64": "%d", "s64": "%d", "f32": "%f", "f64": "%g", "b32": "%r", "b64": "%d"}
    for opcode in EFFECTS:
        parts = opcode.split(".")
        if parts[0] not in ("atom", "red"):
            continue
        kind, space, register = parts[-1], parts[1], kinds[parts[-1]]
        place = "[%out]" if space == "global" else "[%r38]"
        code = "".join(f"ld.global.{kind} {register}{n}, [%in+{8 * n - 8}];" for n in (1, 2, 3))
        code += f"st.{space}.{kind} {place}, {register}1;"
        result = f"{register}4, " if parts[0] == "atom" else ""
        more = f", {register}3" if "cas" in parts else ""
        code += f"{opcode} {result}{place}, {register}2{more}; ld.{space}.{kind} {register}5, {place};"
        code += f"st.global.{kind} [%out], {register}5;"
        if result:
            code += f"st.global.{kind} [%out+8], {register}4;"
        made[opcode.replace(".", "_")] = code
    return made


def tensor_cores() -> dict[str, str]:
    a = "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%in]; ld.global.v2.b32 {%r5, %r6}, [%in+16];"
    a += "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%in+32];"
    made = {}
    for shape, kind in (("m16n8k16", "f16"), ("m16n8k16", "bf16"), ("m16n8k8", "tf32")):
        mma = f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32"
        made[f"mma_{kind}"] = a + mma + " {%f5, %f6, %f7, %f8}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};"
        made[f"mma_{kind}"] += "st.global.v4.f32 [%out], {%f5, %f6, %f7, %f8};"
    for way in ("", ".trans"):
        load = (
            "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%in]; st.shared.v4.b32 [%r38], {%r1, %r2, %r3, %r4}; bar.sync 0;"
        )
        load += f"ldmatrix.sync.aligned.m8n8.x4{way}.shared.b16 " + "{%r5, %r6, %r7, %r8}, [%r38];"
        made["ldmatrix" + way.replace(".", "_")] = load + "st.global.v4.b32 [%out], {%r5, %r6, %r7, %r8};"
    return made


def copies() -> dict[str, str]:
    end = "ld.shared.v4.b32 {%r5, %r6, %r7, %r8}, [%r38]; st.global.v4.b32 [%out], {%r5, %r6, %r7, %r8};"
    wait = "cp.async.commit_group; cp.async.wait_group 0;"
    return {
        "copy": "cp.async.cg.shared.global [%r38], [%in+16], 16;" + wait + end,
        "copy_some": "ld.global.u32 %r1, [%in]; cp.async.cg.shared.global [%r38], [%in+16], 16, %r1;" + wait + end,
        "copy_4": "st.shared.v4.b32 [%r38], {1, 2, 3, 4}; cp.async.ca.shared.global [%r38+4], [%in+16], 4;"
        + "cp.async.wait_all;"
        + end,
        "copy_unread": "cp.async.cg.shared.global [%r38], [%in+16], 16; ld.shared.u32 %r1, [%r38]; cp.async.wait_all;",
        "copy_written": "cp.async.cg.shared.global [%r38], [%in+16], 16; st.shared.u32 [%r38], 0; cp.async.wait_all;",
        "copy_uncommitted": "cp.async.cg.shared.global [%r38], [%in+16], 16; cp.async.wait_group 0; ret;",
    }


KERNELS = {**loads_and_stores(), **warp_kernels(), **atomics(), **tensor_cores(), **copies()}
Run = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def run() -> Run:
    source = cache_folder() / "ptx" / "effects.ptx"
    source.parent.mkdir(parents=True, exist_ok=True)
    kernels = [HEAD.format(name=name, body=body) for name, body in KERNELS.items()]
    source.write_text(".version 8.0\n.target sm_90\n.address_size 64\n" + "\n".join(kernels))
    launch = Launcher(*build_cases([source]))

    def call(name: str, values: np.ndarray[Any, Any], threads: int = 64) -> np.ndarray[Any, Any]:
        """`values` has a row for each thread; so has the result, of the same dtype."""
        given, out = np.zeros((threads, 64 // values.itemsize), values.dtype), np.zeros((threads, 80), np.uint8)
        given[:, : values.shape[1]] = values
        room = np.zeros(threads * 64 + 16, np.uint8)
        start = -room.ctypes.data % 16
        bytes_in = room[start : start + threads * 64]
        bytes_in[:] = given.view(np.uint8).reshape(-1)
        room_out = np.zeros(threads * 64 + 16, np.uint8)
        start = -room_out.ctypes.data % 16
        out = room_out[start : start + threads * 64]
        launch(name, bytes_in, out, threads=threads)
        return out.view(values.dtype).reshape(threads, -1)

    return call


def test_the_kernels_are_ptx(run: Run, tmp_path: Path) -> None:
    """NVIDIA's own assembler takes them."""
    source = cache_folder() / "ptx" / "effects.ptx"
    command = ["ptxas", "-arch=sm_90", str(source), "-o", str(tmp_path / "out.cubin")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:2000]


def random_bytes(threads: int = 64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, (threads, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", [name for name in KERNELS if name.startswith(("move", "vector"))])
def test_loads_and_stores(run: Run, name: str) -> None:
    values = random_bytes()
    out = run(name, values)
    kind = name.split("_")[-1]
    size = int(kind[1:]) // 8
    if name.startswith("move"):
        np.testing.assert_array_equal(out[:, :size], values[:, size : 2 * size])
        np.testing.assert_array_equal(out[:, 8 : 8 + size], values[:, size : 2 * size])
    else:
        size *= int(name.split("_")[1])
        np.testing.assert_array_equal(out[:, :size], values[:, :size])


def test_narrow_loads_fill_the_register(run: Run) -> None:
    values = np.array([[200]], np.uint8).repeat(64, 0)
    np.testing.assert_array_equal(run("extend", values).view(np.int32)[:, :4], [[-56, 200, -56, -56]] * 64)


def test_local_memory(run: Run) -> None:
    values = np.array([[11, 24]], np.uint32).repeat(64, 0)
    assert (run("local", values)[:, 0] == 11).all()
    for offset in (28, 2, -8):
        values[3, 1] = np.uint32(offset % 2**32)
        with pytest.raises(PtxFault, match="access of 4 bytes at local memory"):
            run("local", values)


@pytest.mark.parametrize("opcode", [opcode for opcode in EFFECTS if opcode.startswith("redux")])
def test_reductions_of_a_warp(run: Run, opcode: str) -> None:
    operation, kind = opcode.split(".")[2:]
    values = np.random.default_rng(5).integers(0, 2**32, (64, 1), dtype=np.uint32)
    warps = values.view(np.int32 if kind == "s32" else np.uint32).reshape(2, 32)
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum}
    functions |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
    with np.errstate(over="ignore"):
        wanted = functions[operation].reduce(warps, axis=1, dtype=warps.dtype)
    assert (run(opcode.replace(".", "_"), values).view(warps.dtype)[:, 0].reshape(2, 32) == wanted[:, None]).all()


def test_packing(run: Run) -> None:
    out = run("pack", np.array([[0x11112222, 0x33334444]], np.uint32))
    np.testing.assert_array_equal(out[:, :4], [[0x22221111, 0x33334444, 0x11112222, 0x33334444]] * 64)


def shuffled(mode: str, lane: int, b: int, c: int) -> tuple[int, int]:
    """The lane that is read, and the predicate, by the ISA's pseudo-code."""
    segment, clamp, by = c >> 8 & 31, c & 31, b & 31
    highest, lowest = (lane & segment) | (clamp & ~segment & 31), lane & segment
    source = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": lowest | (by & ~segment & 31)}[mode]
    inside = source >= highest if mode == "up" else source <= highest
    return (source if inside else lane), int(inside)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 8])
def test_shuffles(run: Run, mode: str, width: int) -> None:
    c = (32 - width) << 8 | (0 if mode == "up" else 31)
    for b in (0, 1, 2, 5, 8, 16, 31):
        out = run(f"shfl_{mode}", np.array([[b, c]], np.uint32), threads=32)
        assert [tuple(row) for row in out[:, :2]] == [shuffled(mode, lane, b, c) for lane in range(32)]


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_votes(run: Run, density: float) -> None:
    votes = (np.random.default_rng(0).random((64, 1)) < density).astype(np.uint32)
    warps = votes.reshape(2, 32)
    ballots = (warps << np.arange(32)).sum(1, dtype=np.uint64).astype(np.uint32)
    assert (run("vote_ballot", votes)[:, 0].reshape(2, 32) == ballots[:, None]).all()
    assert (run("vote_any", votes)[:, 0].reshape(2, 32) == warps.any(1)[:, None]).all()
    assert (run("vote_all", votes)[:, 0].reshape(2, 32) == warps.all(1)[:, None]).all()
    assert (run("bar_or", votes)[:, 0] == votes.any()).all()
    assert (run("bar_and", votes)[:, 0] == votes.all()).all()
    assert (run("bar_popc", votes)[:, 0] == votes.sum()).all()


def test_barriers_order_shared_memory(run: Run) -> None:
    values = np.arange(64, dtype=np.uint32)[:, None]
    assert (run("bar_sync", values)[:, 0] == values[::-1, 0]).all()
    assert (run("bar_warp", values)[:, 0] == values[np.arange(64) ^ 31, 0]).all()
    with pytest.raises(PtxFault, match="barrier 1: only barrier 0 is known"):
        run("barrier_one", values)


@pytest.mark.parametrize("opcode", [name for name in EFFECTS if name.startswith(("atom.", "red."))])
def test_atomics(run: Run, opcode: str) -> None:
    parts = opcode.split(".")
    kind, operation = parts[-1], parts[2]
    dtype = np.dtype({"u": "u", "b": "u", "s": "i", "f": "f"}[kind[0]] + str(int(kind[1:]) // 8))
    update: dict[str, Callable[[Any, Any, Any], Any]] = {
        "add": lambda a, b, c: (a + b).astype(dtype),
        "min": lambda a, b, c: min(a, b),
        "max": lambda a, b, c: max(a, b),
        "and": lambda a, b, c: a & b,
        "or": lambda a, b, c: a | b,
        "xor": lambda a, b, c: a ^ b,
        "exch": lambda a, b, c: b,
        "cas": lambda a, b, c: c if a == b else a,
    }
    numbers = [1.5, -2.25, 7.0] if kind[0] == "f" else [3, 12, 2 ** (int(kind[1:]) - 1) + 5, 2 ** int(kind[1:]) - 2]
    values = [
        np.array(number).astype(dtype) if kind[0] == "f" else np.array(number, f"u{dtype.itemsize}").view(dtype)[()]
        for number in numbers
    ]
    step = 8 // dtype.itemsize
    for a in values:
        for b in values:
            given = np.zeros((1, 8), dtype)
            given[0, 0], given[0, step], given[0, 2 * step] = a, b, values[2]
            out = run(opcode.replace(".", "_"), given, threads=1)[0]
            with np.errstate(over="ignore"):
                assert out[0] == update[operation](np.asarray(a), np.asarray(b), values[2])
            assert parts[0] == "red" or out[step] == a


def fragments(matrix: np.ndarray[Any, Any], in_word: int, words: int, b: bool) -> np.ndarray[Any, Any]:
    """The elements of each lane, in the order of the ISA's figures: a_0, a_1 ... or b_0, b_1 ..."""
    rows = []
    for lane in range(32):
        group, place = lane // 4, lane % 4
        elements = []
        for i in range(words * in_word):
            word, half = divmod(i, in_word)
            if b:
                elements.append(matrix[in_word * place + half + word * 4 * in_word, group])
            else:
                elements.append(matrix[group + 8 * (word % 2), in_word * place + half + (word // 2) * 4 * in_word])
        rows.append(elements)
    return np.array(rows, matrix.dtype)


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
def test_mma(run: Run, kind: str) -> None:
    generator = np.random.default_rng(1)
    in_word = 1 if kind == "tf32" else 2
    depth = 8 * in_word
    # Small integers: exact in each format and in whatever order they are summed.
    a, b = generator.integers(-8, 9, (16, depth)), generator.integers(-8, 9, (depth, 8))
    c = generator.integers(-8, 9, (16, 8)).astype(np.float32)

    def bits(elements: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if kind == "f16":
            return elements.astype(np.float16).view(np.uint32)
        single = elements.astype(np.float32).view(np.uint32)
        return single if kind == "tf32" else (single >> 16).astype(np.uint16).view(np.uint32)

    given = np.zeros((32, 16), np.uint32)
    given[:, :4], given[:, 4:6] = bits(fragments(a, in_word, 4, False)), bits(fragments(b, in_word, 2, True))
    places = [(lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2) for lane in range(32) for i in range(4)]
    given[:, 8:12] = np.array([c[place] for place in places], np.float32).view(np.uint32).reshape(32, 4)
    out = run(f"mma_{kind}", given, threads=32)[:, :4].copy().view(np.float32).reshape(-1)
    wanted = a @ b + c
    np.testing.assert_array_equal(out, [wanted[place] for place in places])


@pytest.mark.parametrize("way", ["", "_trans"])
def test_ldmatrix(run: Run, way: str) -> None:
    matrices = np.random.default_rng(2).integers(0, 65536, (4, 8, 8), dtype=np.uint16)
    out = run("ldmatrix" + way, matrices.reshape(32, 8), threads=32)[:, :8].reshape(32, 4, 2)
    for lane in range(32):
        group, place = lane // 4, lane % 4
        for matrix in range(4):
            of = matrices[matrix].T if way else matrices[matrix]
            np.testing.assert_array_equal(out[lane, matrix], of[group, 2 * place : 2 * place + 2])


def test_asynchronous_copies(run: Run) -> None:
    values = np.arange(64 * 8, dtype=np.uint32).reshape(64, 8)
    np.testing.assert_array_equal(run("copy", values)[:, :4], values[:, 4:])
    some = values.copy()
    some[:, 0] = 8
    np.testing.assert_array_equal(run("copy_some", some)[:, :4], np.c_[values[:, 4:6], np.zeros((64, 2))])
    expected = [[1, row[4], 3, 4] for row in values]
    np.testing.assert_array_equal(run("copy_4", values)[:, :4], expected)
    for name in ("copy_unread", "copy_written"):
        with pytest.raises(PtxFault, match="that an asynchronous copy is still writing to"):
            run(name, values)
    with pytest.raises(PtxFault, match="returned with 1 asynchronous copies under way"):
        run("copy_uncommitted", values)
    some[:, 0] = 17
    with pytest.raises(PtxFault, match="an asynchronous copy of more bytes than it writes"):
        run("copy_some", some)
