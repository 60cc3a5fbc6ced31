"""Points in Stanford's polygon format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcv.data.surfaces import Array
from fastcv.data.text_points import numbers

__all__ = ["parse_ply"]

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MOST_HEADER = 1 << 16

Element = tuple[str, int, list[tuple[str, str]]]  # name, count, properties: name and type, "list" for a list


def parse_ply(data: bytes) -> Array:
    """Return the vertices of a file's bytes: x, y, z, and then the other properties in their order."""
    order, elements, body = _header(data)
    before: list[Element] = []
    for element in elements:
        if element[0] == "vertex":
            break
        before.append(element)
    else:
        raise ValueError("has no vertices: its header names no element vertex")
    _, count, properties = element
    names = [name for name, _ in properties]
    for _, kind in (pair for one in (*before, element) for pair in one[2]):
        if kind == "list":
            raise ValueError("has lists in or before its vertices, which cannot be read")
    missing = [axis for axis in "xyz" if axis not in names]
    if missing:
        raise ValueError(f"its vertices have no {', '.join(missing)}, but {', '.join(names) or 'nothing'}")
    if len(set(names)) != len(names):
        raise ValueError("its vertices have two properties of one name")
    columns = ["x", "y", "z", *(name for name in names if name not in "xyz")]
    if not order:
        values = _ascii(body, sum(one[1] for one in before), count, len(names))
        return values[:, [names.index(name) for name in columns]]
    start = sum(number * _size(kinds) for _, number, kinds in before)
    needed = start + count * _size(properties)
    if len(body) < needed:
        raise ValueError(f"is truncated: {count} vertices need {needed} bytes, {len(body)} are there")
    layout = np.dtype([(name, order + _TYPES[kind]) for name, kind in properties])
    table: NDArray[np.void] = np.frombuffer(body, layout, count, start)
    return np.stack([table[name].astype(np.float64) for name in columns], 1)


def _size(properties: list[tuple[str, str]]) -> int:
    return sum(np.dtype(_TYPES[kind]).itemsize for _, kind in properties)


def _ascii(body: bytes, skip: int, count: int, columns: int) -> Array:
    rows = [(number, words) for number, line in enumerate(body.splitlines(), 1) if (words := line.split())]
    rows = rows[skip : skip + count]
    if len(rows) < count:
        raise ValueError(f"is truncated: {count} vertices are announced, {len(rows)} are there")
    try:
        return numbers(rows, columns)
    except ValueError as error:
        raise ValueError(f"behind the header, {error}") from None


def _header(data: bytes) -> tuple[str, list[Element], bytes]:
    """Return the byte order ("" for text), the elements, and what follows the header."""
    if not data.startswith((b"ply\n", b"ply\r")):
        raise ValueError("is not a PLY file: it does not begin with ply")
    end = data.find(b"end_header", 0, _MOST_HEADER)
    if end < 0:
        raise ValueError("is truncated: its header has no end")
    after = end + len(b"end_header")
    if data[after : after + 2] == b"\r\n":
        after += 2
    elif data[after : after + 1] in (b"\n", b"\r"):
        after += 1
    else:
        raise ValueError("its header has no end")
    order, elements = None, list[Element]()
    for number, line in enumerate(data[:end].splitlines()[1:], 2):
        words = line.decode("ascii", "replace").split()
        match words:
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", name, "1.0"] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, count] if count.isdecimal() and count.isascii() and len(count) < 12:
                elements.append((name, int(count), []))
            case ["property", "list", length, kind, _] if elements and length in _TYPES and kind in _TYPES:
                elements[-1][2].append((words[4], "list"))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1][2].append((name, kind))
            case _:
                raise ValueError(f"line {number} of its header cannot be read: {' '.join(words)[:60]!r}")
    if order is None:
        raise ValueError("its header does not say the format")
    return order, elements, data[after:]
