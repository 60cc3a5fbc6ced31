"""``fastcv lidar``: what a person sees, and what lands on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("matplotlib")
pytest.importorskip("fastcv.sparse")

from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.cli.lidar import CELLS, encode, read_points
from fastcv.data import read_velodyne, street_scan, write_velodyne


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, ["lidar", *(str(argument) for argument in arguments)])


def small_scan() -> torch.Tensor:
    return street_scan(1, rings=24, columns=240)


def test_picture_of_a_scan(tmp_path: Path) -> None:
    write_velodyne(tmp_path / "scan.bin", small_scan())
    output = tmp_path / "picture.png"
    result = run(tmp_path / "scan.bin", "--output", output)
    assert result.exit_code == 0, result.output
    assert "voxels" in result.output
    assert "level 4" in result.output
    with Image.open(output) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    third = pixels.shape[0] // 3
    for panel in range(3):  # each has colour in it
        colourful = np.ptp(pixels[panel * third : (panel + 1) * third, 100:900], axis=2) > 60
        assert colourful.sum() > 500, panel
    assert not (tmp_path / "lidar.bin").exists()


def test_invented_street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcv.cli.lidar.street_scan", lambda seed: small_scan())
    saved = tmp_path / "street.bin"
    result = run("--save", saved, "--output", tmp_path / "street.png")
    assert result.exit_code == 0, result.output
    assert torch.equal(read_velodyne(saved), small_scan())
    assert (tmp_path / "street.png").stat().st_size > 10_000


def test_encoder() -> None:
    first, again = encode(small_scan(), 0), encode(small_scan(), 0)
    assert first.map.shape == (64 * CELLS[0] // 8, CELLS[1] // 8, CELLS[2] // 8)
    assert torch.equal(first.map, again.map)
    assert not torch.equal(first.map, encode(small_scan(), 1).map)
    assert [level.spatial_shape for level in first.levels] == [[n >> k for n in CELLS] for k in range(4)]
    assert len(first.levels[0].features) == len(first.coords)
    occupied = torch.zeros(CELLS[1] // 8, CELLS[2] // 8, dtype=torch.bool)
    sites = first.levels[-1].indices.long()
    occupied[sites[:, 2], sites[:, 3]] = True
    assert ((first.map != 0).any(0) <= occupied).all()
    assert first.map.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.bin"], "there is no file missing.bin"),
        (["odd.bin"], "odd.bin is not a Velodyne scan"),
        (["far.bin"], "far.bin has no point within"),
        (["empty.bin"], "empty.bin has no point within"),
        (["--output", "picture.jpg"], "has to end in .png"),
        (["--save", "nowhere/scan.bin"], "cannot write nowhere/scan.bin"),
        (["good.bin", "--output", "nowhere/picture.png"], "cannot write nowhere/picture.png"),
    ],
)
def test_errors_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastcv.cli.lidar.street_scan", lambda seed: small_scan())
    Path("odd.bin").write_bytes(bytes(17))
    write_velodyne("far.bin", torch.full((3, 4), 1e6))
    write_velodyne("empty.bin", torch.zeros(0, 4))
    write_velodyne("good.bin", small_scan())
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_sweep_of_nuscenes(tmp_path: Path) -> None:
    scan = small_scan()
    scan = torch.cat([scan, torch.arange(len(scan))[:, None] % 24], dim=1)
    scan[:, 3] = (scan[:, 3] * 255).round()
    scan.numpy().astype("<f4").tofile(tmp_path / "sweep.pcd.bin")
    points = read_points(tmp_path / "sweep.pcd.bin", None)
    torch.testing.assert_close(points[:, :3], scan[:, :3])
    torch.testing.assert_close(points[:, 3], scan[:, 3] / 255)


def test_columns_are_told(tmp_path: Path) -> None:
    scan = torch.nn.functional.pad(small_scan()[:1000], (0, 2), value=-1.0)
    scan.numpy().astype("<f4").tofile(tmp_path / "scan.bin")
    result = run(tmp_path / "scan.bin", "--output", tmp_path / "picture.png")
    assert result.exit_code == 2
    assert "--columns 4: x, y, z, reflectance" in result.output
    result = run(tmp_path / "scan.bin", "--output", tmp_path / "picture.png", "--columns", 6)
    assert result.exit_code == 0, result.output
