"""Points in the Point Cloud Library's format."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from fastcv.data.surfaces import Array
from fastcv.data.text_points import numbers

__all__ = ["decompress_lzf", "parse_pcd"]

_TYPES = {
    **{("F", str(size)): f"<f{size}" for size in (4, 8)},
    **{(kind, str(size)): f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}
_MOST_HEADER, _MOST_FIELDS = 1 << 16, 4096
_COLOURS = ("rgb", "rgba")

Field = tuple[str, str, int]  # name, numpy's dtype, how many of them


def parse_pcd(data: bytes) -> Array:
    """Return the points of a file's bytes: x, y, z, and then the other fields in their order."""
    header, body = _header(data)
    fields, count = _fields(header), _whole(header, "POINTS")
    missing = [axis for axis in "xyz" if (axis, 1) not in [(name, number) for name, _, number in fields]]
    if missing:
        raise ValueError(f"its points have no {', '.join(missing)}, but {', '.join(name for name, *_ in fields)}")
    how = header["DATA"][0] if header["DATA"] else ""
    if how == "ascii":
        values = _ascii(body, fields, count)
    elif how == "binary":
        values = _binary(body, fields, count)
    elif how == "binary_compressed":
        values = _columns(_uncompressed(body, count * _size(fields)), fields, count)
    else:
        raise ValueError(f"DATA must be ascii, binary or binary_compressed, got {how!r}")
    parts = [(name, values[i].reshape(count, -1)) for i, (name, *_) in enumerate(fields) if name != "_"]
    first = [next(part for name, part in parts if name == axis) for axis in "xyz"]
    return np.concatenate([*first, *(_colour(name, part) for name, part in parts if name not in "xyz")], 1).astype(
        np.float64
    )


def _header(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    header: dict[str, list[str]] = {}
    at = 0
    while at < min(len(data), _MOST_HEADER):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        words = data[at:end].decode("ascii", "replace").split()
        at = end + 1
        if not words or words[0].startswith("#"):
            continue
        header[words[0].upper()] = words[1:]
        if words[0].upper() == "DATA":
            break
    for name in ("FIELDS", "SIZE", "TYPE", "POINTS", "DATA"):
        if name not in header:
            raise ValueError(f"is not a PCD file, or truncated: its header has no {name}")
    return header, data[at:]


def _whole(header: dict[str, list[str]], name: str) -> int:
    words = header[name]
    if len(words) != 1 or not (words[0].isascii() and words[0].isdecimal()) or len(words[0]) > 12:
        raise ValueError(f"{name} must be a whole number, got {' '.join(words)[:40]!r}")
    return int(words[0])


def _fields(header: dict[str, list[str]]) -> list[Field]:
    names, sizes, kinds = header["FIELDS"], header["SIZE"], header["TYPE"]
    counts = header.get("COUNT", ["1"] * len(names))
    if not names or not len(names) == len(sizes) == len(kinds) == len(counts):
        raise ValueError(
            f"FIELDS, SIZE, TYPE and COUNT must be of one length, got {len(names)}, {len(sizes)}, {len(kinds)} and "
            f"{len(counts)}"
        )
    fields = []
    for name, size, kind, count in zip(names, sizes, kinds, counts, strict=True):
        if (kind.upper(), size) not in _TYPES:
            raise ValueError(f"field {name[:40]!r} is of type {kind[:9]!r} and size {size[:9]!r}, which do not exist")
        if not (count.isascii() and count.isdecimal()) or len(count) > 4 or not 0 < int(count) < _MOST_FIELDS:
            raise ValueError(f"field {name[:40]!r} has COUNT {count[:9]!r}")
        fields.append((name, _TYPES[kind.upper(), size], int(count)))
    if len({name for name, *_ in fields if name != "_"}) != sum(name != "_" for name, *_ in fields):
        raise ValueError("two fields have one name")
    return fields


def _size(fields: list[Field]) -> int:
    return sum(np.dtype(kind).itemsize * number for _, kind, number in fields)


def _ascii(body: bytes, fields: list[Field], count: int) -> list[NDArray[np.generic]]:
    rows = [(number, words) for number, line in enumerate(body.splitlines(), 1) if (words := line.split())][:count]
    if len(rows) < count:
        raise ValueError(f"is truncated: {count} points are announced, {len(rows)} are there")
    total = sum(number for *_, number in fields)
    try:
        values = numbers(rows, total)
    except ValueError as error:
        raise ValueError(f"behind the header, {error}") from None
    columns, at = list[NDArray[np.generic]](), 0
    for name, kind, number in fields:
        part = values[:, at : at + number]
        if name in _COLOURS and kind == "<u4":  # a float's text holds the bits as its value
            part = np.clip(np.nan_to_num(part), 0, 2**32 - 1).astype(np.uint32)
        elif name in _COLOURS:
            with np.errstate(over="ignore", invalid="ignore"):
                part = part.astype(np.float32)
        columns.append(part)
        at += number
    return columns


def _binary(body: bytes, fields: list[Field], count: int) -> list[NDArray[np.generic]]:
    needed = count * _size(fields)
    if len(body) < needed:
        raise ValueError(f"is truncated: {count} points need {needed} bytes, {len(body)} are there")
    layout = np.dtype([(f"{i}", kind, (number,)) for i, (_, kind, number) in enumerate(fields)])
    table: NDArray[np.void] = np.frombuffer(body, layout, count)
    return [table[f"{i}"] for i in range(len(fields))]


def _columns(body: bytes, fields: list[Field], count: int) -> list[NDArray[np.generic]]:
    """Compressed files hold field after field, each of all points."""
    columns, at = list[NDArray[np.generic]](), 0
    for _, kind, number in fields:
        columns.append(np.frombuffer(body, kind, count * number, at).reshape(count, number))
        at += columns[-1].nbytes
    return columns


def _uncompressed(body: bytes, needed: int) -> bytes:
    if len(body) < 8:
        raise ValueError("is truncated: the sizes of the compressed points are missing")
    compressed, size = struct.unpack_from("<II", body)
    if size != needed:
        raise ValueError(f"is corrupted: the points need {needed} bytes, {size} are announced")
    if len(body) - 8 < compressed:
        raise ValueError(f"is truncated: {compressed} compressed bytes are announced, {len(body) - 8} are there")
    return decompress_lzf(body[8 : 8 + compressed], size)


def decompress_lzf(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that LZF made ``data`` of.

    References
    ----------
    Lehmann: LibLZF, the format's only description is its code.
    """
    out, at, end = bytearray(), 0, len(data)
    try:
        while at < end and len(out) <= size:
            control = data[at]
            at += 1
            if control < 32:  # so many bytes and one, as they are
                if at + control + 1 > end:
                    raise IndexError
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            back = ((control & 31) << 8) + data[at] + 1
            at += 1
            length += 2
            start = len(out) - back
            if start < 0:
                raise IndexError
            if back >= length:
                out += out[start : start + length]
            else:  # the copy runs into itself: a pattern
                pattern = bytes(out[start:])
                out += (pattern * (length // back + 1))[:length]
    except IndexError:
        raise ValueError("is corrupted: its compressed points cannot be unpacked") from None
    if len(out) != size:
        raise ValueError(f"is corrupted: {size} bytes are announced, {len(out)} were unpacked")
    return bytes(out)


def _colour(name: str, part: NDArray[np.generic]) -> NDArray[np.generic]:
    """Unpack red, green and blue, which the format keeps in the bits of one number."""
    if name not in _COLOURS or part.shape[1] != 1 or part.dtype.itemsize != 4:
        return part
    bits = np.ascontiguousarray(part).view(np.uint32)
    return np.concatenate([bits >> shift & 255 for shift in (16, 8, 0)], 1)
