"""``fastcv shapes``: trains, writes a checkpoint that ``fastcv detect`` takes, and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("PIL")
pytest.importorskip("safetensors")

from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.cli import shapes as shapes_module
from fastcv.data import synthetic_instances


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, [str(argument) for argument in arguments])


def test_trains_writes_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_module, "TRAINING_IMAGES", 4)
    monkeypatch.setattr(shapes_module, "HELD_OUT_IMAGES", 6)
    picture, weights = tmp_path / "shapes.png", tmp_path / "shapes.safetensors"
    result = run("shapes", "--output", picture, "--weights", weights, "--steps", 2, "--size", 64)
    assert result.exit_code == 0, result.output
    assert "2 steps of 4 images 64x64" in result.stdout
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] == 12 + 5 * (128 + 12)
    truth = pixels[12 + 26 : 12 + 26 + 128, 12 : 12 + 128].reshape(-1, 3)
    assert len(np.unique(truth, axis=0)) > 500, "an image, and what is in it"

    photo = tmp_path / "photo.png"
    Image.fromarray(pixels[:64, :64]).save(photo)
    arguments = (
        "detect",
        photo,
        "--weights",
        weights,
        "--model",
        shapes_module.MODEL,
        "--output",
        tmp_path / "out.png",
    )
    result = run(*arguments)
    assert result.exit_code == 0, result.output


def test_mirrored_boxes_are_those_of_mirrored_masks() -> None:
    (image,), (target,) = synthetic_instances(1, size=40, seed=5)
    generator = torch.Generator().manual_seed(0)
    seen = [shapes_module.mirror(image, target, generator) for _ in range(20)]
    turned = [truth for pixels, truth in seen if not torch.equal(pixels, image)]
    assert 3 < len(turned) < 17
    assert torch.equal(turned[0]["masks"], target["masks"].flip(-1))
    for box, mask in zip(turned[0]["boxes"].tolist(), turned[0]["masks"], strict=True):
        y, x = mask.nonzero().unbind(1)
        assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_wrong_names(tmp_path: Path) -> None:
    result = run("shapes", "--output", tmp_path / "shapes.jpg")
    assert result.exit_code == 2
    assert "--output" in result.output
    assert "has to end in .png" in result.output
    result = run("shapes", "--weights", tmp_path / "shapes.pth")
    assert result.exit_code == 2
    assert "has to end in .safetensors" in result.output
