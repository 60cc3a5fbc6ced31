"""Scans of a Velodyne laser scanner in the files of the KITTI data set."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_POINT_BYTES = 16


def read_velodyne(path: str | PathLike[str]) -> Tensor:
    """Read a scan: a file of nothing but little-endian float32 x, y, z, reflectance.

    Parameters
    ----------
    path
        The ``.bin`` file.

    Returns
    -------
    Tensor (P, 4)
        float32: x forward, y left, z up in metres from the scanner, reflectance in [0, 1].

    Raises
    ------
    ValueError
        For a file whose size is not a multiple of 16 bytes.
    OSError
        For a file that cannot be read.

    References
    ----------
    Geiger, Lenz, Stiller, Urtasun: Vision meets Robotics: The KITTI Dataset (2013), section III.
    """
    data = Path(path).read_bytes()
    if len(data) % _POINT_BYTES != 0:
        raise ValueError(
            f"{path} is no Velodyne scan: a point has {_POINT_BYTES} bytes, and the file's {len(data)} bytes are not a "
            "multiple of that"
        )
    return torch.from_numpy(np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(-1, 4))


def write_velodyne(path: str | PathLike[str], points: Tensor) -> None:
    """Write a scan as :func:`read_velodyne` reads it.

    Parameters
    ----------
    path
        The ``.bin`` file; replaced if it is there.
    points : Tensor (P, 4)
        x, y, z, reflectance; written in float32.

    Raises
    ------
    ValueError
        For a tensor of another shape.
    OSError
        For a file that cannot be written.
    """
    if points.dim() != 2 or points.shape[1] != 4:
        raise ValueError(f"points must have shape (P, 4), columns x, y, z, reflectance, got {tuple(points.shape)}")
    Path(path).write_bytes(points.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
