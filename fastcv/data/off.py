"""Surfaces in the Object File Format, as ModelNet has them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastcv.data.surfaces import Array, Faces
from fastcv.data.text_points import numbers

__all__ = ["parse_off"]


def parse_off(data: bytes) -> tuple[Array, Faces]:
    """Return the vertices (V, 3) and the triangles (F, 3) of a file's bytes; larger faces are cut into triangles.

    The word OFF may stand in the line of the counts, as it does in a part of ModelNet40.
    """
    lines = [line.split(b"#")[0].split() for line in data.splitlines()]
    rows = [(number, line) for number, line in enumerate(lines, 1) if line]
    if not rows or rows[0][1][0][:3].upper() != b"OFF":
        raise ValueError("is not an OFF file: it does not begin with OFF")
    number, head = rows[0]
    head = [head[0][3:], *head[1:]] if len(head[0]) > 3 else head[1:]
    at = 1
    if not head:
        if len(rows) < 2:
            raise ValueError("is truncated: the counts of vertices and faces are missing")
        (number, head), at = rows[1], 2
    if not 2 <= len(head) <= 3 or not all(word.isdigit() and len(word) < 12 for word in head):
        raise ValueError(f"line {number}: must be the counts of vertices, faces and edges, got {_show(head)}")
    vertex_count, face_count = int(head[0]), int(head[1])
    if vertex_count + face_count > len(rows) - at:
        raise ValueError(
            f"is truncated: {vertex_count} vertices and {face_count} faces are announced, {len(rows) - at} lines follow"
        )
    if not vertex_count or not face_count:
        raise ValueError(f"has {vertex_count} vertices and {face_count} faces, so no surface")
    vertices = numbers(rows[at : at + vertex_count], 3)
    if not np.isfinite(vertices).all():
        row = int((~np.isfinite(vertices).all(1)).argmax())
        raise ValueError(f"line {rows[at + row][0]}: a vertex is not finite, {vertices[row].tolist()}")
    at += vertex_count
    return vertices, _triangles(rows[at : at + face_count], vertex_count)


def _triangles(rows: list[tuple[int, list[bytes]]], vertex_count: int) -> Faces:
    triangles: list[tuple[int, int, int]] = []
    for number, words in rows:
        try:
            size = int(words[0])
            corners = [int(word) for word in words[1 : size + 1]]
        except ValueError:
            raise ValueError(f"line {number}: a face must be whole numbers, got {_show(words)}") from None
        if size < 3 or len(corners) != size:
            raise ValueError(f"line {number}: a face must be the number of its corners, 3 or more, and these")
        if not 0 <= min(corners) <= max(corners) < vertex_count:
            raise ValueError(f"line {number}: a face's corners must be in [0, {vertex_count}), got {corners[:9]}")
        first = corners[0]
        triangles.extend((first, a, b) for a, b in pairwise(corners[1:]))
    return np.array(triangles, dtype=np.int64)


def _show(words: list[bytes]) -> str:
    return repr(b" ".join(words)[:40].decode("ascii", "replace"))
