"""The PTX instructions whose result depends on their operands alone: a table of what each computes, in C++.

Beside each stands the heading of its section in the PTX ISA. Memory, control and what threads do together stand in
`effects.py`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

ANY_INT = "{u16,u32,u64,s16,s32,s64}"
SIGNED = "{s16,s32,s64}"
ANY_FLOAT = "{f32,f64}"
ANY_BITS = "{b16,b32,b64}"
EVERY_INT = "{u8,u16,u32,u64,s8,s16,s32,s64}"


@dataclass(frozen=True)
class Row:
    """`code` is an expression of the result, of the type `result`.

    In it {a} to {d} are the sources, read as the instruction's type T, or as the type after a colon: U and S are the
    unsigned and the signed type of the same width, W the one of twice the width, F the last type of a conversion. The
    types alone are {T} to {W}, `line` the line in the PTX.
    """

    section: str
    opcode: str
    code: str
    result: str = "T"


def _rows(section: str, opcodes: str, code: str, result: str = "T") -> list[Row]:
    return [Row(section, opcode, code, result) for opcode in expand(opcodes)]


def expand(pattern: str) -> list[str]:
    """add.{u32,s32} -> add.u32, add.s32"""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


# ISA, "Comparison and Selection Instructions: setp": those with a u are true for unordered operands (a NaN).
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SETP = "Comparison and Selection Instructions: setp"
_SET_PREDICATE = [
    row
    for name, sign in _COMPARE.items()
    for row in (
        *_rows(_SETP, f"setp.{name}.{ANY_INT}", f"{{a}} {sign} {{b}}", "pred"),
        *(_rows(_SETP, f"setp.{name}.{ANY_BITS}", f"{{a}} {sign} {{b}}", "pred") if name in ("eq", "ne") else []),
        *_rows(
            _SETP,
            f"setp.{name}.{ANY_FLOAT}",
            "!unordered({a}, {b}) && {a} != {b}" if name == "ne" else f"{{a}} {sign} {{b}}",
            "pred",
        ),
        *_rows(
            _SETP,
            f"setp.{name}u.{ANY_FLOAT}",
            f"unordered({{a}}, {{b}}) || {{a}} {sign} {{b}}",
            "pred",
        ),
    )
]

_ARITHMETIC = [
    *_rows("Integer Arithmetic Instructions: add", f"add.{ANY_INT}", "{T}({a:U} + {b:U})"),
    *_rows("Integer Arithmetic Instructions: sub", f"sub.{ANY_INT}", "{T}({a:U} - {b:U})"),
    *_rows("Integer Arithmetic Instructions: mul", f"mul.lo.{ANY_INT}", "{T}(1u * {a:U} * {b:U})"),
    *_rows("Integer Arithmetic Instructions: mul", f"mul.hi.{ANY_INT}", "{T}({W}({a}) * {W}({b}) >> {bits})"),
    *_rows("Integer Arithmetic Instructions: mul", "mul.wide.{u16,u32,s16,s32}", "{W}({a}) * {W}({b})", "W"),
    *_rows("Integer Arithmetic Instructions: mad", f"mad.lo.{ANY_INT}", "{T}(1u * {a:U} * {b:U} + {c:U})"),
    *_rows("Integer Arithmetic Instructions: mad", "mad.wide.{u16,u32}", "{W}({a}) * {W}({b}) + {c:W}", "W"),
    *_rows("Integer Arithmetic Instructions: div", f"div.{ANY_INT}", "divide<{T}>({a}, {b}, {line})"),
    *_rows("Integer Arithmetic Instructions: rem", f"rem.{ANY_INT}", "remainder<{T}>({a}, {b}, {line})"),
    *_rows("Integer Arithmetic Instructions: abs", f"abs.{SIGNED}", "{T}({a} < 0 ? 0u - {a:U} : {a:U})"),
    *_rows("Integer Arithmetic Instructions: neg", f"neg.{SIGNED}", "{T}(0u - {a:U})"),
    *_rows("Integer Arithmetic Instructions: min", f"min.{ANY_INT}", "{a} < {b} ? {a} : {b}"),
    *_rows("Integer Arithmetic Instructions: max", f"max.{ANY_INT}", "{a} > {b} ? {a} : {b}"),
    *_rows("Integer Arithmetic Instructions: popc", "popc.{b32,b64}", "__builtin_popcountll({a})", "u32"),
    *_rows("Integer Arithmetic Instructions: clz", "clz.{b32,b64}", "leading_zeros<{T}>({a})", "u32"),
    # The shift that brings the highest bit of the number to the top; all ones where the number is zero.
    *_rows("Integer Arithmetic Instructions: bfind", "bfind.shiftamt.{u32,u64}",
           "{a} == 0 ? ~0u : leading_zeros<{T}>({a})", "u32"),
    *_rows("Integer Arithmetic Instructions: brev", "brev.{b32,b64}", "reverse_bits<{T}>({a})"),
    *_rows("Integer Arithmetic Instructions: bfi", "bfi.{b32,b64}", "insert_bits<{T}>({a}, {b}, {c:u32}, {d:u32})"),
    *_rows("Floating Point Instructions: copysign", f"copysign.{ANY_FLOAT}", "copy_sign({a}, {b})"),
    *_rows("Floating Point Instructions: add", f"add.rn.{ANY_FLOAT}", "canonical({a} + {b})"),
    *_rows("Floating Point Instructions: add", f"add.rz.{ANY_FLOAT}", "add_toward_zero({a}, {b})"),
    *_rows("Floating Point Instructions: sub", f"sub.rn.{ANY_FLOAT}", "canonical({a} - {b})"),
    *_rows("Floating Point Instructions: mul", f"mul.rn.{ANY_FLOAT}", "canonical({a} * {b})"),
    *_rows("Floating Point Instructions: fma", f"fma.rn.{ANY_FLOAT}", "canonical(fused({a}, {b}, {c}))"),
    *_rows("Floating Point Instructions: fma", "fma.rm.f32", "fused_downward({a}, {b}, {c})"),
    *_rows("Floating Point Instructions: div", f"div.rn.{ANY_FLOAT}", "canonical({a} / {b})"),
    *_rows("Floating Point Instructions: abs", f"abs.{ANY_FLOAT}", "absolute({a})"),
    *_rows("Floating Point Instructions: neg", f"neg.{ANY_FLOAT}", "-{a}"),
    *_rows("Floating Point Instructions: min", f"min.{ANY_FLOAT}", "minimum({a}, {b})"),
    *_rows("Floating Point Instructions: max", f"max.{ANY_FLOAT}", "maximum({a}, {b})"),
    *_rows("Floating Point Instructions: rcp", f"rcp.rn.{ANY_FLOAT}", "canonical(1 / {a})"),
    *_rows("Floating Point Instructions: rcp", "rcp.approx.ftz.f32", "reciprocal_flushed({a})"),
    *_rows("Floating Point Instructions: rcp.approx.ftz.f64", "rcp.approx.ftz.f64", "reciprocal_upper_half({a})"),
    *_rows("Floating Point Instructions: sqrt", f"sqrt.rn.{ANY_FLOAT}", "canonical(square_root({a}))"),
    *_rows("Floating Point Instructions: ex2", "ex2.approx.ftz.f32", "power_of_two_flushed({a})"),
]  # fmt: skip

_SELECT = [
    *_SET_PREDICATE,
    *_rows(_SETP, f"setp.num.{ANY_FLOAT}", "!unordered({a}, {b})", "pred"),
    *_rows(_SETP, f"setp.nan.{ANY_FLOAT}", "unordered({a}, {b})", "pred"),
    *_rows("Comparison and Selection Instructions: selp", f"selp.{ANY_INT}", "{c:pred} ? {a} : {b}"),
    *_rows("Comparison and Selection Instructions: selp", f"selp.{ANY_FLOAT}", "{c:pred} ? {a} : {b}"),
    *_rows("Comparison and Selection Instructions: selp", f"selp.{ANY_BITS}", "{c:pred} ? {a} : {b}"),
]

_LOGIC = [
    *_rows("Logic and Shift Instructions: and", "and.{pred,b16,b32,b64}", "{a} & {b}"),
    *_rows("Logic and Shift Instructions: or", "or.{pred,b16,b32,b64}", "{a} | {b}"),
    *_rows("Logic and Shift Instructions: xor", "xor.{pred,b16,b32,b64}", "{a} ^ {b}"),
    *_rows("Logic and Shift Instructions: not", f"not.{ANY_BITS}", "~{a}"),
    *_rows("Logic and Shift Instructions: not", "not.pred", "!{a}"),
    # Shifts by more than the width give the same as by the width.
    *_rows("Logic and Shift Instructions: shl", f"shl.{ANY_BITS}", "{b:u32} < {bits} ? {T}({a} << {b:u32}) : {T}(0)"),
    *_rows("Logic and Shift Instructions: shr", "shr.{b16,b32,b64,u16,u32,u64}",
           "{b:u32} < {bits} ? {T}({a} >> {b:u32}) : {T}(0)"),
    *_rows("Logic and Shift Instructions: shr", f"shr.{SIGNED}",
           "{a} >> ({b:u32} < {bits} ? {b:u32} : {bits} - 1)"),
]  # fmt: skip

_CVT = "Data Movement and Conversion Instructions: cvt"
_MOVE = [
    *_rows("Data Movement and Conversion Instructions: mov", f"mov.{ANY_INT}", "{a}"),
    *_rows("Data Movement and Conversion Instructions: mov", f"mov.{ANY_FLOAT}", "{a}"),
    *_rows("Data Movement and Conversion Instructions: mov", "mov.pred", "{a}"),
    *_rows("Data Movement and Conversion Instructions: cvta", "cvta.to.global.u64", "{a}"),
    *_rows(_CVT, f"cvt.{EVERY_INT}.{EVERY_INT}", "{T}({a:F})"),
    *_rows(_CVT, f"cvt.rn.{ANY_FLOAT}.{EVERY_INT}", "{T}({a:F})"),
    *_rows(_CVT, f"cvt.rzi.{EVERY_INT}.{ANY_FLOAT}", "to_integer<{T}>({a:F})"),
    *_rows(_CVT, "cvt.rn.f32.f64", "canonical({T}({a:F}))"),
    *_rows(_CVT, "cvt.f64.f32", "{T}({a:F})"),
    *_rows(_CVT, "cvt.rni.{f32.f32,f64.f64}", "canonical(round_to_even({a}))"),
    *_rows(_CVT, "cvt.rzi.{f32.f32,f64.f64}", "canonical(round_toward_zero({a}))"),
    *_rows(_CVT, "cvt.rmi.{f32.f32,f64.f64}", "canonical(round_down({a}))"),
    *_rows(_CVT, "cvt.rpi.{f32.f32,f64.f64}", "canonical(round_up({a}))"),
    *_rows(_CVT, "cvt.sat.f32.f32", "saturate({a})"),
    *_rows(_CVT, "cvt.f32.f16", "half_to_float({a:F})"),
    *_rows(_CVT, "cvt.rn.f16.f32", "float_to_half({a:F})"),
    *_rows(_CVT, "cvt.rn.bf16.f32", "float_to_bfloat({a:F})"),
    *_rows(_CVT, "cvt.rna.tf32.f32", "float_to_tf32({a:F})"),
]

TABLE = {row.opcode: row for row in (*_ARITHMETIC, *_SELECT, *_LOGIC, *_MOVE)}
