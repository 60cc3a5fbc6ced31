"""LiDAR scans in the file formats of KITTI and nuScenes: points as rows of float32, without a header."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcv.data.files import replaced_file

__all__ = ["read_velodyne", "write_velodyne"]

_LAYOUTS = {4: "x, y, z, reflectance, as KITTI has them", 5: "x, y, z, intensity, ring, as nuScenes has them"}
_MOST_RINGS = 1024


def read_velodyne(path: str | PathLike[str], columns: int | None = None) -> Tensor:
    """Read a scan: a file of little-endian float32, a fixed number of columns per point, without a header.

    Parameters
    ----------
    path
        The ``.bin`` file.
    columns
        Numbers per point, at least x, y and z. By default the file is recognised as a scan of KITTI (4 columns: x, y,
        z, reflectance) or nuScenes (5: x, y, z, intensity, ring) if its size and its values suit one of them alone:
        reflectance and intensity are not negative, rings are integers from 0.

    Returns
    -------
    Tensor (P, columns)
        float32. KITTI: x forward, y left, z up in metres from the scanner, reflectance in [0, 1]. nuScenes: x right,
        y forward, z up, intensity in [0, 255].

    Raises
    ------
    ValueError
        For a file whose size is not a multiple of a point's size, or whose layout is not recognised.
    OSError
        For a file that cannot be read.

    References
    ----------
    Geiger, Lenz, Stiller, Urtasun: Vision meets Robotics: The KITTI Dataset (2013), section III. Caesar et al.:
    nuScenes: A multimodal dataset for autonomous driving (2020).
    """
    if columns is not None and columns < 3:
        raise ValueError(f"columns must be at least 3, for x, y and z, got {columns}")
    data = Path(path).read_bytes()
    sizes = {4 * number: number for number in ((columns,) if columns is not None else _LAYOUTS)}
    fitting = [number for size, number in sizes.items() if len(data) % size == 0]
    if not fitting:
        raise ValueError(
            f"{path} is not a Velodyne scan: a point has {' or '.join(str(size) for size in sizes)} bytes, and the "
            f"file's {len(data)} bytes are not a multiple of that"
        )
    values = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if columns is None and len(values):
        fitting = [number for number in fitting if _suits(values.reshape(-1, number))]
        if len(fitting) != 1:
            known = "; ".join(f"columns={number}: {names}" for number, names in _LAYOUTS.items())
            raise ValueError(
                f"{path}: its values suit {'both' if fitting else 'none'} of the known layouts: tell how many columns "
                f"a point has ({known})"
            )
    return torch.from_numpy(values.reshape(-1, fitting[0]))


def _suits(points: NDArray[np.float32]) -> bool:
    """Whether the values of points with 4 or 5 columns are possible in that layout. NaN is ignored."""
    if bool((points[:, 3] < 0).any()):
        return False
    ring = points[:, 4:]
    ring = ring[~np.isnan(ring)]
    return bool(((ring >= 0) & (ring < _MOST_RINGS) & (ring == np.floor(ring))).all())


def write_velodyne(path: str | PathLike[str], points: Tensor) -> None:
    """Write a scan in KITTI's layout.

    Parameters
    ----------
    path
        The ``.bin`` file. An existing file is replaced once the new one is complete.
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
    data = points.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
    with replaced_file(path) as file:
        file.write_bytes(data)
