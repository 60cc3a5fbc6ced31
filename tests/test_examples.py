"""The scripts in ``examples/``: each is short, and its short form runs and draws."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")
pytest.importorskip("pycocotools")
pytest.importorskip("safetensors")
pytest.importorskip("yaml")

from PIL import Image

from fastcv.data import street_scan
from fastcv.models import load_model

FOLDER = Path(__file__).parents[1] / "examples"
if not FOLDER.is_dir():
    pytest.skip("the examples are not part of an installed package", allow_module_level=True)
EXAMPLES = sorted(FOLDER.rglob("*.py"))
MOST_LINES = 80


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_are_short_and_need_no_command() -> None:
    assert len(EXAMPLES) >= 3
    for path in EXAMPLES:
        text = path.read_text()
        assert len(text.splitlines()) <= MOST_LINES, path
        assert "fastcv.cli" not in text, path
        assert f"python examples/{path.name} " in text, "it says how it is run"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_short_form(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if "from torchvision" in path.read_text():
        pytest.importorskip("torchvision")
    if path.name == "predict_yolo.py" and "FASTCV_YOLOV3_TINY" not in os.environ:
        load(path).main(["--short"])
        assert "FASTCV_YOLOV3_TINY is not set" in capsys.readouterr().out
        return
    load(path).main(["--short"])
    (picture,) = tmp_path.rglob("*.png")
    assert f"{picture.relative_to(tmp_path)}: " in capsys.readouterr().out
    with Image.open(picture) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    third = len(pixels) // 3
    for part in range(3):  # each has colour in it
        assert (np.ptp(pixels[part * third : (part + 1) * third], axis=2) > 60).sum() > 500, part
    if "subplots(" in path.read_text():
        assert pixels[:, [0, -1]].min() > 200, "labels of axes must not run out of the picture"
    for weights in tmp_path.rglob("best.safetensors"):
        assert set(load_model(weights).card.names.values()) & {"circle", "shape"}
    assert bool(list(tmp_path.rglob("best.safetensors"))) == path.name.startswith("train_")


@pytest.mark.slow
def test_the_unet_learns(tmp_path: Path) -> None:
    load(FOLDER / "train_unet.py").main(["--output", str(tmp_path)])
    assert json.loads((tmp_path / "metrics.json").read_text())["best"] > 0.8


def test_a_scan_of_nuscenes_is_encoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = load(FOLDER / "encode_lidar_scan.py")
    scan = street_scan(1, rings=24, columns=240)
    sweep = torch.cat([scan, torch.arange(len(scan))[:, None] % 24], dim=1)
    sweep[:, 3] = (scan[:, 3] * 255).round()
    sweep.numpy().astype("<f4").tofile(tmp_path / "sweep.pcd.bin")
    example.main([str(tmp_path / "sweep.pcd.bin"), "--output", str(tmp_path / "drawn.png")])
    assert f"{len(scan):,} points" in capsys.readouterr().out
    assert (tmp_path / "drawn.png").stat().st_size > 10_000


def test_the_encoder_sees_where_points_are() -> None:
    example = load(FOLDER / "encode_lidar_scan.py")
    scan, cells = street_scan(1, rings=24, columns=240), example.CELLS
    (coords, levels, features), (_, _, again) = example.encode(scan), example.encode(scan)
    assert torch.equal(features, again)
    assert features.shape == (64 * cells[0] // 8, cells[1] // 8, cells[2] // 8)
    assert [level.spatial_shape for level in levels] == [[n >> k for n in cells] for k in range(4)]
    assert len(levels[0].features) == len(coords)
    occupied = torch.zeros(cells[1] // 8, cells[2] // 8, dtype=torch.bool)
    sites = levels[-1].indices.long()
    occupied[sites[:, 2], sites[:, 3]] = True
    assert ((features != 0).any(0) <= occupied).all()
    assert features.isfinite().all()
