"""Rows of numbers as text."""

from __future__ import annotations

import numpy as np

from fastcv.data.surfaces import Array

__all__ = ["numbers", "parse_text"]


def numbers(rows: list[tuple[int, list[bytes]]], columns: int) -> Array:
    """Return the first ``columns`` words of rows, each behind the number of its line, as float64."""
    try:
        values = np.array([float(word) for _, words in rows for word in words[:columns]])
        if len(values) == len(rows) * columns:
            return values.reshape(-1, columns)
    except ValueError:
        pass
    for number, words in rows:  # which one was it
        if len(words) < columns:
            raise ValueError(f"line {number}: must have {columns} numbers, has {len(words)}")
        for word in words[:columns]:
            try:
                float(word)
            except ValueError:
                shown = word[:40].decode("ascii", "replace")
                raise ValueError(f"line {number}: {shown!r} is not a number") from None
    raise ValueError("has rows that cannot be read")


def parse_text(data: bytes) -> Array:
    """Return the rows of a text: numbers between spaces, commas or semicolons; ``#`` begins a remark."""
    if b"\0" in data:
        raise ValueError("is not text")
    separated = data.replace(b",", b" ").replace(b";", b" ")
    lines = (line.split(b"#")[0].split() for line in separated.splitlines())
    rows = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not rows:
        raise ValueError("has no points")
    columns = len(rows[0][1])
    if columns < 3:
        raise ValueError(f"line {rows[0][0]}: a point needs x, y and z, has {columns} numbers")
    for number, words in rows:
        if len(words) != columns:
            raise ValueError(f"line {number}: has {len(words)} numbers, the lines before have {columns}")
    return numbers(rows, columns)
