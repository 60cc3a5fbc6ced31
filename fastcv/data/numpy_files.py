"""Points in numpy's files."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np

from fastcv.data.surfaces import Array

__all__ = ["parse_npy", "parse_npz"]


def parse_npy(data: bytes) -> Array:
    """Return the array of a file's bytes as float64."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:  # the header is a Python literal, and wrong ones fail in many ways
        text = (str(error).splitlines() or [""])[0][:120]
        raise ValueError(f"is not a numpy array, or corrupted: {text or type(error).__name__}") from None
    if dtype.kind not in "fiu":
        raise ValueError(f"must hold real numbers, got the dtype {str(dtype)[:60]}")
    if len(shape) != 2 or shape[1] < 3:
        raise ValueError(f"must have the shape (points, 3 or more columns), got {shape}")
    needed, there = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if min(shape) < 0 or needed > there:
        raise ValueError(f"is truncated: an array of shape {shape} needs {needed} bytes, {there} are there")
    values = np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    with np.errstate(over="ignore", invalid="ignore"):
        return values.reshape(shape, order="F" if fortran else "C").astype(np.float64)


def parse_npz(data: bytes) -> Array:
    """Return the array named points, or the only one, of an archive's bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            chosen = "points.npy" if "points.npy" in names else names[0] if len(names) == 1 else None
            if chosen is not None:
                member = archive.read(chosen)
    except MemoryError:
        raise ValueError("is corrupted: an array is larger than memory") from None
    except Exception as error:  # zipfile and zlib fail in many ways
        text = (str(error).splitlines() or [""])[0][:120]
        raise ValueError(f"is not a numpy archive, or corrupted: {text or type(error).__name__}") from None
    if chosen is None:
        held = ", ".join(name.removesuffix(".npy")[:40] for name in names[:9]) or "no array"
        raise ValueError(f"must hold one array, or one named points, got {held}")
    return parse_npy(member)
