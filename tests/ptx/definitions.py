"""What PTX instructions compute, defined in Python: exact integers, fractions and numpy. For tests of the translator.

Nothing here looks at the C++ that the translator gives; the words are those of the PTX ISA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

# Bits of precision, lowest and highest exponent.
FORMATS = {
    "f16": (11, -14, 15),
    "bf16": (8, -126, 127),
    "tf32": (11, -126, 127),
    "f32": (24, -126, 127),
    "f64": (53, -1022, 1023),
}
WIDTH = {"f16": 16, "bf16": 16, "tf32": 32}


def width(kind: str) -> int:
    """The bits of a type."""
    return WIDTH.get(kind) or int(kind[1:])


def wrapped(value: int, kind: str) -> int:
    """The value of a signed or unsigned type that has the same low bits."""
    bits = width(kind)
    value %= 1 << bits
    return value - (1 << bits) if kind[0] == "s" and value >> (bits - 1) else value


def rounded(value: Fraction, kind: str, mode: str, sign_of_zero: float = 1.0) -> float:
    """The number of a format next to an exact one; `mode` is even, away, zero or down."""
    if value == 0:
        return math.copysign(0.0, sign_of_zero)
    precision, lowest, highest = FORMATS[kind]
    sign, magnitude = (-1 if value < 0 else 1), abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    step = Fraction(2) ** (max(exponent, lowest) - precision + 1)
    count, rest = divmod(magnitude / step, 1)
    up = {
        "even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and count % 2 == 1),
        "away": rest >= Fraction(1, 2),
        "zero": False,
        "down": sign < 0 and rest > 0,
    }[mode]
    result = (count + up) * step
    if result >= Fraction(2) ** (highest + 1):
        largest = (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** highest
        finite = mode == "zero" or (mode == "down" and sign > 0)
        return sign * (float(largest) if finite else math.inf)
    return math.copysign(float(result), sign)


def product_sum(a: float, b: float, c: float, kind: str, mode: str) -> float:
    """a * b + c with one rounding."""
    if not all(map(math.isfinite, (a, b, c))):
        if math.isfinite(a) and math.isfinite(b):
            return c
        return float(np.float64(a) * np.float64(b)) + c  # infinities and NaN need no precision
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    signs = {math.copysign(1, a) * math.copysign(1, b), math.copysign(1, c)}
    cancels = -1.0 if mode == "down" else 1.0
    return rounded(exact, kind, mode, signs.pop() if len(signs) == 1 else cancels)


def format_bits(value: float, kind: str, mode: str) -> int:
    """The bits of a number in a format of 16 bits or tf32."""
    precision, lowest, highest = FORMATS[kind]
    bits = width(kind)
    if math.isnan(value):
        return (1 << (bits - 1)) - 1
    number = rounded(Fraction(value), kind, mode, math.copysign(1, value)) if math.isfinite(value) else value
    if kind == "tf32":
        return int(np.float32(number).view(np.uint32))
    sign = (1 << (bits - 1)) if math.copysign(1, number) < 0 else 0
    if math.isinf(number):
        return sign | (2 * highest + 1) << (precision - 1)
    magnitude = Fraction(abs(number))
    exponent = max(lowest, math.frexp(abs(number))[1] - 1) if number else lowest
    return sign | ((exponent - lowest) << (precision - 1)) + int(magnitude / Fraction(2) ** (exponent - precision + 1))


def half_value(bits: int) -> float:
    """The number that 16 bits are in f16."""
    return float(np.uint16(bits).view(np.float16))


def extreme(a: float, b: float, greatest: bool) -> float:
    """min and max of floating-point numbers."""
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    keys = [(a, math.copysign(1, a)), (b, math.copysign(1, b))]
    return (max(keys) if greatest else min(keys))[0]


def to_integer(value: float, kind: str, source: str) -> int:
    """cvt.rzi"""
    lowest, highest = (-(1 << (width(kind) - 1)), (1 << (width(kind) - 1)) - 1)
    if kind[0] == "u":
        lowest, highest = 0, (1 << width(kind)) - 1
    if math.isnan(value):
        return wrapped(1 << (width(kind) - 1), kind) if source == "f64" or width(kind) == 64 else 0
    if math.isinf(value):
        return highest if value > 0 else lowest
    return min(max(math.trunc(value), lowest), highest)


def insert_bits(a: int, b: int, position: int, length: int, bits: int) -> int:
    """bfi"""
    position, length = position & 0xFF, length & 0xFF
    mask = (((1 << length) - 1) << position) & ((1 << bits) - 1)
    return (b & ~mask) | ((a << position) & mask)


def flushed(value: float, kind: str = "f32") -> float:
    """.ftz"""
    return math.copysign(0.0, value) if abs(value) < 2.0 ** FORMATS[kind][1] else value


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def compare(name: str, a: Any, b: Any) -> bool:
    """setp"""
    unordered = math.isnan(a) or math.isnan(b)
    if name in ("num", "nan"):
        return unordered == (name == "nan")
    return (len(name) == 3) if unordered else COMPARISONS[name[:2]](a, b)


def integer(opcode: str, *v: int) -> int:
    """The exact result of an integer or bit instruction, before it is cut to its width."""
    parts = opcode.split(".")
    name, kind = parts[0], parts[-1]
    bits = 1 if kind == "pred" else width(kind)
    ones = (1 << bits) - 1
    table: dict[str, Callable[[], int]] = {
        "add": lambda: v[0] + v[1],
        "sub": lambda: v[0] - v[1],
        "mul": lambda: (v[0] * v[1]) >> (bits if parts[1] == "hi" else 0),
        "mad": lambda: v[0] * v[1] + v[2],
        "div": lambda: abs(v[0]) // abs(v[1]) * (-1 if (v[0] < 0) != (v[1] < 0) else 1),
        "rem": lambda: abs(v[0]) % abs(v[1]) * (-1 if v[0] < 0 else 1),
        "abs": lambda: abs(v[0]),
        "neg": lambda: -v[0],
        "min": lambda: min(v),
        "max": lambda: max(v),
        "popc": lambda: v[0].bit_count(),
        "clz": lambda: bits - v[0].bit_length(),
        "bfind": lambda: bits - v[0].bit_length() if v[0] else -1,
        "brev": lambda: int(f"{v[0]:0{bits}b}"[::-1], 2),
        "bfi": lambda: insert_bits(v[0], v[1], v[2], v[3], bits),
        "and": lambda: v[0] & v[1],
        "or": lambda: v[0] | v[1],
        "xor": lambda: v[0] ^ v[1],
        "not": lambda: v[0] ^ ones,
        "shl": lambda: v[0] << min(v[1], bits),
        "shr": lambda: v[0] >> min(v[1], bits),
        "selp": lambda: v[0] if v[2] else v[1],
        "mov": lambda: v[0],
        "cvta": lambda: v[0],
    }
    return table[name]()


def floating(opcode: str, *v: float) -> float:
    """The result of a floating-point instruction."""
    parts = opcode.split(".")
    name, kind = parts[0], parts[-1]
    mode = {"rz": "zero", "rm": "down"}.get(parts[1], "even")
    real = np.float32 if kind == "f32" else np.float64
    table: dict[str, Callable[[], Any]] = {
        "add": lambda: product_sum(v[0], 1.0, v[1], kind, mode),
        "sub": lambda: real(v[0]) - real(v[1]),
        "mul": lambda: real(v[0]) * real(v[1]),
        "fma": lambda: product_sum(v[0], v[1], v[2], kind, mode),
        "div": lambda: real(v[0]) / real(v[1]),
        "abs": lambda: abs(v[0]),
        "neg": lambda: -v[0],
        "min": lambda: extreme(v[0], v[1], False),
        "max": lambda: extreme(v[0], v[1], True),
        "copysign": lambda: math.copysign(v[1], v[0]),
        "rcp": lambda: (
            flushed(float(real(1) / real(flushed(v[0], kind))), kind) if "ftz" in parts else real(1) / real(v[0])
        ),
        "sqrt": lambda: np.sqrt(real(v[0])),
        "ex2": lambda: flushed(float(np.exp2(np.float64(flushed(v[0])).astype(np.float64)))),
        "selp": lambda: v[0] if v[2] else v[1],
        "mov": lambda: v[0],
    }
    return float(table[name]())


def convert(opcode: str, value: Any) -> Any:
    """cvt; bits where the result is f16, bf16 or tf32."""
    parts = opcode.split(".")
    to, source = parts[-2], parts[-1]
    if to in WIDTH:
        return format_bits(value, to, "away" if "rna" in parts else "even")
    if source == "f16":
        return half_value(value)
    if to[0] != "f":
        return to_integer(value, to, source) if source[0] == "f" else value
    if "sat" in parts:
        return min(value, 1.0) if value > 0 else 0.0
    if not math.isfinite(value):
        return value
    whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
    if parts[1] in whole:
        return float(whole[parts[1]](value))
    return rounded(Fraction(value), to, "even", math.copysign(1, value))
