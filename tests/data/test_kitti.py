"""Velodyne files, and the scan of an invented street."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from fastcv.data import read_velodyne, street_scan, write_velodyne
from fastcv.data.street import FARTHEST, SCANNER_HEIGHT, Scene, cast


def test_bytes(tmp_path: Path) -> None:
    path = tmp_path / "scan.bin"
    path.write_bytes(struct.pack("<8f", 1, 2, 3, 0.5, -4, 5.25, -6, 1))
    points = read_velodyne(path)
    assert points.dtype is torch.float32
    assert points.tolist() == [[1, 2, 3, 0.5], [-4, 5.25, -6, 1]]
    points += 1  # its own memory
    write_velodyne(tmp_path / "copy.bin", points.double())
    assert struct.unpack("<8f", (tmp_path / "copy.bin").read_bytes()) == (2, 3, 4, 1.5, -3, 6.25, -5, 2)
    write_velodyne(path, torch.zeros(0, 4))
    assert read_velodyne(str(path)).shape == (0, 4)


@pytest.mark.parametrize("size", [1, 15, 17, 44])
def test_size_that_is_no_multiple(tmp_path: Path, size: int) -> None:
    path = tmp_path / "scan.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(ValueError, match=rf"scan.bin is not a Velodyne scan: .* {size} bytes are not a multiple"):
        read_velodyne(path)


def sweep(count: int) -> np.ndarray:
    """Points as nuScenes has them: x, y, z, intensity, ring."""
    generator = np.random.default_rng(0)
    points = generator.uniform(-50, 50, (count, 5)).astype(np.float32)
    points[:, 3] = generator.integers(0, 256, count)
    points[:, 4] = np.arange(count) % 32
    return points


@pytest.mark.parametrize("count", [1, 7, 16, 4000])
def test_a_sweep_of_nuscenes_is_recognised(tmp_path: Path, count: int) -> None:
    """Sizes that are a multiple of 20 alone, and of 16 as well."""
    sweep(count).tofile(tmp_path / "sweep.pcd.bin")
    assert np.array_equal(read_velodyne(tmp_path / "sweep.pcd.bin").numpy(), sweep(count))


@pytest.mark.parametrize("count", [1, 3, 5, 1000])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_scan_of_kitti_is_recognised(tmp_path: Path, count: int, scale: int) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 4, generator=generator) * 20
    points[:, 3] = torch.rand(count, generator=generator) * scale
    write_velodyne(tmp_path / "scan.bin", points)
    assert torch.equal(read_velodyne(tmp_path / "scan.bin"), points)


def test_columns_are_told_or_recognised_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "scan.bin"
    others = np.random.default_rng(0).uniform(-50, 50, (40, 6)).astype("<f4")  # 960 bytes: 60 points of 4, 48 of 5
    others.tofile(path)
    with pytest.raises(ValueError, match=r"scan.bin: its values suit none .* columns .*\(columns=4: x, y, z, refl"):
        read_velodyne(path)
    assert np.array_equal(read_velodyne(path, columns=6).numpy(), others)
    assert read_velodyne(path, columns=3).shape == (80, 3)
    others[:2].tofile(path)  # 48 bytes: a multiple of 16 alone, with a negative reflectance
    with pytest.raises(ValueError, match="its values suit none"):
        read_velodyne(path)
    path.write_bytes(bytes(80))
    with pytest.raises(ValueError, match="its values suit both"):
        read_velodyne(path)
    assert read_velodyne(path, columns=4).shape == (5, 4)
    assert read_velodyne(path, 5).shape == (4, 5)
    with pytest.raises(ValueError, match="a point has 24 bytes, and the file's 80 bytes are not a multiple"):
        read_velodyne(path, 6)
    with pytest.raises(ValueError, match="columns must be at least 3, for x, y and z, got 2"):
        read_velodyne(path, 2)
    path.write_bytes(b"")
    assert read_velodyne(path, 5).shape == (0, 5)
    assert read_velodyne(path).shape == (0, 4)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_velodyne(tmp_path / "missing.bin")
    with pytest.raises(ValueError, match=r"points must have shape \(P, 4\), .* got \(3, 3\)"):
        write_velodyne(tmp_path / "scan.bin", torch.zeros(3, 3))
    with pytest.raises(ValueError, match="rings and columns must be positive"):
        street_scan(rings=0)


def test_street_scan(tmp_path: Path) -> None:
    points = street_scan(seed=3)
    assert 115_000 < len(points) < 125_000
    assert points.dtype is torch.float32
    assert torch.equal(points, street_scan(seed=3))
    assert not torch.equal(points[:1000], street_scan(seed=4)[:1000])
    assert torch.isfinite(points).all()
    assert float(points[:, :3].norm(dim=1).max()) < FARTHEST + 1
    assert float(points[:, 2].min()) > -SCANNER_HEIGHT - 0.1
    assert ((points[:, 3] >= 0) & (points[:, 3] <= 1)).all()
    assert int(((points[:, 2] + SCANNER_HEIGHT).abs() < 0.06).sum()) > 20_000  # the road
    assert int((points[:, 2] > 0.5).sum()) > 1000  # house fronts
    write_velodyne(tmp_path / "scan.bin", points)
    assert torch.equal(read_velodyne(tmp_path / "scan.bin"), points)


def test_rays_hit_what_geometry_says() -> None:
    empty = np.zeros((0, 7)), np.zeros((0, 6)), np.zeros((0, 5))
    ahead, left, down = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, -1.0]])
    rays = np.stack([ahead, left, down], axis=1)
    distance, _ = cast(rays, Scene(*empty))
    assert distance[:2].tolist() == [np.inf, np.inf]
    assert distance[2] == pytest.approx(SCANNER_HEIGHT)
    box = np.array([[5.0, -1, -1, 6, 1, 1, 0.3]])
    cylinder = np.array([[0.0, 8, 0.5, -1, 1, 0.4]])
    distance, reflectance = cast(rays, Scene(box, cylinder, empty[2]))
    assert distance[:2] == pytest.approx([5, 7.5])
    assert reflectance[:2].tolist() == [0.3, 0.4]
    sphere = np.array([[3.0, 0, 0, 0.25, 0.9]])
    distance, reflectance = cast(rays, Scene(box, cylinder, sphere))
    assert distance[0] == pytest.approx(2.75)
    assert reflectance[0] == 0.9
    beside = np.array([[1.0], [0.3], [0.0]]) / np.hypot(1, 0.3)
    assert cast(beside, Scene(box, cylinder, sphere))[0][0] == np.inf
