"""``fastcv detect``, the former name of ``fastcv predict``: what lands on the disk, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("PIL")

from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.models import detection
from fastcv.models.detection.backbone import BackboneWithFPN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph and checkpoints of tiny models that find something in it."""
    folder = tmp_path_factory.mktemp("detect")
    y, x = np.mgrid[0:96, 0:128]
    Image.fromarray(np.stack([x, y * 2, (x // 16 + y // 16) % 2 * 200], -1).astype(np.uint8)).save(folder / "photo.png")
    for kind in ("fasterrcnn", "maskrcnn", "keypointrcnn"):
        torch.manual_seed(1)
        model = detection.create(f"{kind}_tiny_fpn", num_classes=5)
        with torch.no_grad():
            model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 2, 0, 0, 0]))
        torch.save(model.state_dict(), folder / f"{kind}.pth")
    return folder


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, ["detect", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("kind", ["fasterrcnn", "maskrcnn", "keypointrcnn"])
def test_draws(folder: Path, kind: str) -> None:
    output = folder / f"{kind}.png"
    arguments = (folder / "photo.png", "--weights", folder / f"{kind}.pth", "--model", f"{kind}_tiny_fpn")
    result = run(*arguments, "--output", output, "--score", 0.3)
    assert result.exit_code == 0, result.output
    assert "object" in result.stdout
    assert "class 1" in result.stdout
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (folder / "photo.png", output))
    assert before.shape == after.shape
    assert (before != after).any()
    nothing = run(*arguments, "--output", output, "--score", 1.0)
    assert nothing.exit_code == 0
    assert ": 0 objects in" in nothing.stdout
    assert (np.asarray(Image.open(output)) == before).all()


def test_size_is_what_the_model_sees(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    backbone = BackboneWithFPN.forward

    def watched(self: BackboneWithFPN, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(tuple(batch.shape[-2:]))
        return backbone(self, batch)

    monkeypatch.setattr(BackboneWithFPN, "forward", watched)
    for options in ((), ("--size", 64)):
        result = run(folder / "photo.png", "--weights", folder / "fasterrcnn.pth", "--model", "fasterrcnn_tiny_fpn",
                     "--output", folder / "sized.png", *options)  # fmt: skip
        assert result.exit_code == 0, result.output
    assert seen == [(800, 1088), (64, 96)]  # 800 x 1066 and 64 x 85, to whole strides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "none.png"}, "there is no file"),
        ({"image": "fasterrcnn.pth"}, "is not an image"),
        ({"--weights": "none.pth"}, "there is no checkpoint"),
        ({"--weights": "photo.png"}, "cannot be read as a checkpoint"),
        ({"--weights": "maskrcnn.pth"}, "is a checkpoint of another model: 0 missing; 8 unexpected"),
        ({"--model": "fasterrcnn"}, "there is no such model; did you mean fasterrcnn_"),
        ({"--output": "drawing.jpg"}, "has to end in .png"),
        ({"--output": "nowhere/drawing.png"}, "cannot write"),
        ({"--device": "toaster"}, "toaster"),
    ],
)
def test_what_is_wrong_in_one_line(folder: Path, changes: dict[str, str], message: str) -> None:
    options = {
        "image": "photo.png", "--weights": "fasterrcnn.pth", "--model": "fasterrcnn_tiny_fpn", "--output": "out.png",
    } | changes  # fmt: skip
    arguments: list[Any] = [folder / options.pop("image")]
    for name, value in options.items():
        arguments += [name, folder / value if name in ("--weights", "--output") else value]
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("fastcv detect: ")
    assert len(result.stderr.splitlines()) == 1
