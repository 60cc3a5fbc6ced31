"""Each PTX instruction that the translator knows, once, against its definition."""

from __future__ import annotations

import itertools
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator.build import cache_folder
from ptx import definitions
from ptx.build import build_cases, nvcc
from ptx.definitions import width
from ptx.effects import EFFECTS
from ptx.instructions import TABLE
from ptx.launcher import Launcher

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(nvcc() is None, reason="needs nvcc")]

SMALL = [0, 1, 2, 3, 5, 7, 31, 32, 33, 100, 127, 128, 255]
FLOATS = [0.0, 1.0, 0.5, 1.5, 2.5, 3.75, 1e-3, 7.0, 100.25, 2049.0, 65519.0, 65520.0, 3e9, 1e19, 2.0**-24, 2.0**-140]
FLOATS += [2.0**-25, 1.0 + 2.0**-11, 1.0 + 2.0**-8, 1.0 + 2.0**-23, 3.0e38, 6e-8, math.inf, math.nan]
VALUES: dict[str, list[Any]] = {"pred": [0, 1], "f32": [], "f64": []}
for _kind in (f"{sign}{bits}" for sign in "us" for bits in (8, 16, 32, 64)):
    _highest = (1 << (width(_kind) - (_kind[0] == "s"))) - 1
    _numbers = {n for n in [*SMALL, _highest, _highest - 1, _highest // 3] if n <= _highest}
    VALUES[_kind] = sorted(_numbers | ({-n for n in _numbers} | {-_highest - 1} if _kind[0] == "s" else set()))
    VALUES["b" + _kind[1:]] = VALUES["u" + _kind[1:]]
for _kind, _real in (("f32", np.float32), ("f64", np.float64)):
    VALUES[_kind] = [float(_real(sign * value)) for value in FLOATS for sign in (1, -1)]
VALUES["f16"] = [*range(0, 65536, 37), 0x7C00, 0xFC00, 0x7FFF, 1, 0x8001]
DTYPES = {
    "pred": np.uint8,
    "f32": np.float32,
    "f64": np.float64,
    "f16": np.uint16,
    "bf16": np.uint16,
    "tf32": np.uint32,
}
DTYPES |= {f"{s}{b}": np.dtype(f"{'i' if s == 's' else 'u'}{b // 8}").type for s in "usb" for b in (8, 16, 32, 64)}
APPROXIMATE = {"rcp.approx.ftz.f32": 2.0**-23, "rcp.approx.ftz.f64": 2.0**-19, "ex2.approx.ftz.f32": 2.0**-22}


def signature(opcode: str) -> tuple[str, list[str]]:
    """The types of the result and of the sources, from the ISA's syntax."""
    parts = opcode.split(".")
    name, kind = parts[0], parts[-1]
    if name == "cvt":
        return parts[-2], [kind]
    if name in ("popc", "clz", "bfind"):
        return "u32", [kind]
    if name == "setp":
        return "pred", [kind, kind]
    wide = kind if kind == "pred" or kind in ("f32", "f64") else f"{kind[0]}{2 * width(kind)}"
    sources = {
        "shl": [kind, "u32"],
        "shr": [kind, "u32"],
        "selp": [kind, kind, "pred"],
        "bfi": [kind, kind, "u32", "u32"],
        "fma": [kind] * 3,
        "mad": [kind, kind, wide if "wide" in parts else kind],
    }
    unary = {"abs", "neg", "brev", "rcp", "sqrt", "ex2", "not", "mov", "cvta"}
    return wide if "wide" in parts else kind, sources.get(name, [kind] if name in unary else [kind, kind])


def register(kind: str) -> str:
    """The declared type of a register for values of a type."""
    return "pred" if kind == "pred" else kind if kind in ("f32", "f64") else f"b{max(16, width(kind))}"


def kernel(opcode: str) -> str:
    """A kernel whose thread i applies the instruction to the elements i of its arrays."""
    result, sources = signature(opcode)
    lines = ["mov.u32 %i1, %ctaid.x;", "mov.u32 %i2, %ntid.x;", "mov.u32 %i3, %tid.x;"]
    lines += ["mad.lo.s32 %i1, %i1, %i2, %i3;", "cvt.u64.u32 %n1, %i1;"]
    registers = [".reg .b32 %i<9>;", ".reg .b64 %n<9>;", ".reg .b16 %h;", f".reg .{register(result)} %out;"]
    for n, kind in enumerate(sources):
        memory = "u8" if kind == "pred" else f"b{width(kind)}" if kind == "f16" else kind
        size = 1 if kind == "pred" else width(kind) // 8
        lines += [f"mul.lo.s64 %n2, %n1, {size};", f"ld.param.u64 %n3, [p{n}];", "add.s64 %n2, %n3, %n2;"]
        registers.append(f".reg .{register(kind)} %in{n};")
        target = "%h" if kind == "pred" else f"%in{n}"
        lines.append(f"ld.global.{memory} {target}, [%n2];")
        lines += [f"setp.ne.s16 %in{n}, %h, 0;"] * (kind == "pred")
    operands = ", ".join(["%out", *(f"%in{n}" for n in range(len(sources)))])
    lines.append(f"{opcode} {operands};")
    stored, size = ("%i4", 4) if result == "pred" else ("%out", int(register(result)[1:]) // 8)
    lines += ["selp.u32 %i4, 1, 0, %out;"] * (result == "pred")
    lines += [f"mul.lo.s64 %n2, %n1, {size};", "ld.param.u64 %n3, [p4];", "add.s64 %n2, %n3, %n2;"]
    lines += [f"st.global.{'b32' if result == 'pred' else 'b' + str(8 * size)} [%n2], {stored};", "ret;"]
    parameters = ",\n".join(f".param .u64 p{n}" for n in range(5))
    name = opcode.replace(".", "_")
    return f".visible .entry {name}(\n{parameters}\n)\n{{\n" + "\n".join([*registers, *lines]) + "\n}\n"


@pytest.fixture(scope="module")
def launch() -> Launcher:
    source = cache_folder() / "ptx" / "instructions.ptx"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(".version 8.0\n.target sm_90\n.address_size 64\n" + "\n".join(map(kernel, TABLE)))
    return Launcher(*build_cases([source]))


def test_the_kernels_are_ptx(launch: Launcher, tmp_path: Path) -> None:
    """NVIDIA's own assembler takes them."""
    source = cache_folder() / "ptx" / "instructions.ptx"
    command = ["ptxas", "-arch=sm_90", str(source), "-o", str(tmp_path / "out.cubin")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[:2000]


def expected(opcode: str, values: tuple[Any, ...]) -> Any:
    sources = signature(opcode)[1]
    if opcode.startswith("setp."):
        return int(definitions.compare(opcode.split(".")[1], *values))
    if opcode.startswith("cvt."):
        return definitions.convert(opcode, values[0])
    if sources[0] in ("f32", "f64"):
        return definitions.floating(opcode, *values)
    return definitions.integer(opcode, *values)


def cases(opcode: str, sources: list[str]) -> list[tuple[Any, ...]]:
    """Every pair of the values, or some of the triples."""
    lists = [VALUES[kind] for kind in sources]
    if len(lists) > 1 and sources[1] == "u32" and opcode[:3] in ("shl", "shr"):
        lists[1] = [0, 1, 5, 15, 16, 31, 32, 33, 63, 64, 200]
    combinations = list(itertools.product(*lists)) if math.prod(map(len, lists)) < 4000 else None
    if combinations is None:
        generator = np.random.default_rng(1)
        combinations = [tuple(values[generator.integers(len(values))] for values in lists) for _ in range(2000)]
    if opcode[:3] in ("div", "rem") and sources[0][0] in "us":
        combinations = [pair for pair in combinations if pair[1] != 0]
    return combinations


@pytest.mark.parametrize("opcode", list(TABLE))
def test_instruction(launch: Launcher, opcode: str) -> None:
    result, sources = signature(opcode)
    combinations = cases(opcode, sources)
    threads, count = 64, -(-len(combinations) // 64) * 64
    combinations += [combinations[0]] * (count - len(combinations))
    arrays = [
        np.array(column, dtype=DTYPES[kind])
        for column, kind in zip(zip(*combinations, strict=True), sources, strict=True)
    ]
    empty = np.zeros(1, np.uint8)
    if result == "pred":
        dtype: Any = np.uint32
    elif result in ("f32", "f64"):
        dtype = DTYPES[result]
    else:
        dtype = np.dtype(f"u{max(16, width(result)) // 8}")
    out = np.full(count, 77, dtype)
    launch(
        opcode.replace(".", "_"), *arrays, *[empty] * (4 - len(arrays)), out, blocks=count // threads, threads=threads
    )
    with np.errstate(all="ignore"):
        want = [expected(opcode, values) for values in combinations]
        if result in ("f32", "f64"):
            wanted = np.array(want, dtype=dtype)
        else:
            kind = result if result[0] in "us" else f"u{32 if result == 'pred' else width(result)}"
            wanted = np.array(
                [definitions.wrapped(value, kind) for value in want],
                np.dtype(f"{'i' if kind[0] == 's' else 'u'}{width(kind) // 8}"),
            )
            wanted = wanted.astype(np.int64 if kind[0] == "s" else np.uint64).astype(dtype)  # extended to the register
    if opcode in APPROXIMATE:
        np.testing.assert_allclose(out, wanted, rtol=APPROXIMATE[opcode], atol=0)
        return
    np.testing.assert_array_equal(out, wanted)
    if result in ("f32", "f64"):
        numbers = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(out[numbers]), np.signbit(wanted[numbers]))


def test_float32_arithmetic_gives_the_canonical_nan(launch: Launcher) -> None:
    odd = np.array([0xFFC12345], np.uint32).view(np.float32)
    out, empty = np.zeros(1, np.float32), np.zeros(1, np.uint8)
    for opcode in ("add.rn.f32", "sub.rn.f32", "mul.rn.f32", "div.rn.f32", "min.f32", "max.f32"):
        launch(opcode.replace(".", "_"), odd, odd, empty, empty, out, threads=1)
        assert out.view(np.uint32)[0] == 0x7FFFFFFF, opcode


def test_no_instruction_is_known_twice() -> None:
    assert not set(TABLE) & set(EFFECTS)
