"""Point clouds from files of all usual formats, behind one function."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcv.data.kitti import read_velodyne
from fastcv.data.numpy_files import parse_npy, parse_npz
from fastcv.data.off import parse_off
from fastcv.data.pcd import parse_pcd
from fastcv.data.ply import parse_ply
from fastcv.data.surfaces import Array, sample_surface
from fastcv.data.text_points import parse_text

__all__ = ["POINT_FORMATS", "read_points"]

POINT_FORMATS: dict[str, str] = {
    ".off": "ModelNet's surfaces",
    ".ply": "PLY, ascii or binary",
    ".pcd": "PCL's PCD, ascii, binary or binary_compressed",
    ".bin": "scans of KITTI and nuScenes",
    ".npy": "numpy's arrays",
    ".npz": "numpy's archives",
    ".txt": "rows of numbers",
    ".xyz": "rows of numbers",
}
"""What :func:`read_points` reads, by the end of a file's name."""

_PARSERS: dict[str, Callable[[bytes], Array]] = {
    ".ply": parse_ply,
    ".pcd": parse_pcd,
    ".npy": parse_npy,
    ".npz": parse_npz,
    ".txt": parse_text,
    ".xyz": parse_text,
}


def read_points(
    path: str | PathLike[str],
    columns: int | None = None,
    count: int = 2048,
    seed: int = 0,
    invalid: str = "raise",
) -> Tensor:
    """Read a point cloud.

    Parameters
    ----------
    path
        A file of one of :data:`POINT_FORMATS`, which is told by its name's end.
    columns : int, optional
        Numbers per point. A scan (``.bin``) does not say how many it has: by default it is recognised as one of KITTI
        (4: x, y, z, reflectance) or nuScenes (5: x, y, z, intensity, ring), and an error where it may be either or
        neither. Other files say it themselves, and must agree.
    count : int
        Points to take from a surface (``.off``), as many on each face as its area is worth.
    seed : int
        Random seed for these.
    invalid : {'raise', 'drop'}
        What to do about points with a coordinate that is NaN or infinite: an error, or leave them out. Scanners that
        write ``.pcd`` put them where nothing was seen.

    Returns
    -------
    Tensor (P, C)
        float32: x, y, z, and then the file's other columns in its order. Packed colours of ``.pcd`` become red, green
        and blue, 0 to 255.

    Raises
    ------
    ValueError
        For an unknown format, and for a file that is truncated, corrupted, without points, with values that are not
        finite, or of other columns than told. The text names the file and the fault.
    OSError
        For a file that cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "cloud.xyz")
    ...     _ = path.write_text("0 0 1\\n0.5 0 2\\n")
    ...     read_points(path)
    tensor([[0.0000, 0.0000, 1.0000],
            [0.5000, 0.0000, 2.0000]])
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in POINT_FORMATS:
        known = ", ".join(POINT_FORMATS)
        raise ValueError(f"{path} is of no known format: its name must end in one of {known}")
    if invalid not in ("raise", "drop"):
        raise ValueError(f"invalid must be 'raise' or 'drop', got {invalid!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if columns is not None and columns < 3:
        raise ValueError(f"columns must be at least 3, for x, y and z, got {columns}")
    if suffix == ".bin":
        points = read_velodyne(path, columns)
    else:
        data = path.read_bytes()
        try:
            if not data:
                raise ValueError("is empty")
            points = _surface(data, count, seed) if suffix == ".off" else _as_float32(_PARSERS[suffix](data))
        except ValueError as error:  # it may quote what stands in the file
            text = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:500])
            raise ValueError(f"{path}: {text}") from None
    if columns not in (None, points.shape[1]):
        raise ValueError(f"{path}: has {points.shape[1]} columns, and {columns} were asked for")
    return _checked(points, path, invalid)


def _surface(data: bytes, count: int, seed: int) -> Tensor:
    vertices, faces = parse_off(data)
    return _as_float32(sample_surface(vertices, faces, count, np.random.default_rng(seed)))


def _as_float32(values: Array) -> Tensor:
    with np.errstate(over="ignore", invalid="ignore"):  # too large becomes infinite, and is told below
        return torch.from_numpy(values.astype(np.float32))


def _checked(points: Tensor, path: Path, invalid: str) -> Tensor:
    """Return the points whose coordinates are finite; further columns may be NaN, as unknown intensities are."""
    finite = points[:, :3].isfinite().all(1)
    if not bool(finite.all()):
        if invalid == "raise":
            row = int((~finite).long().argmax())
            number = int((~finite).sum())
            raise ValueError(
                f"{path}: {number} of {len(points)} points are not finite, the first is point {row}, "
                f"{points[row, :3].tolist()}: pass invalid='drop' to leave such points out"
            )
        points = points[finite]
    if not len(points):
        raise ValueError(f"{path}: has no points")
    return points
