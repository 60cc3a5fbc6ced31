"""``fastcv bench``: a table of all contenders with the same weights, and the reason where one is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("PIL")

from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.cli import bench as bench_command
from fastcv.cli import contenders, model_speed

RCNN = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app_module.app, ["bench", *arguments], env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.slow] * (name == RCNN[1])) for name in contenders.MODELS]
)
def test_every_contender_gives_the_same_answer(model: str) -> None:
    """In a small form of the network, two threads last: their number is set back."""
    if model in RCNN:
        pytest.importorskip("torchvision")
    before = torch.get_num_threads()
    result = run(model.replace("_", "-"), "--quick", "--rounds", "1", "--threads", "1", "--threads", "2")
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == before
    rows = {line.split("  ")[0].strip(): line for line in result.output.splitlines()}
    for contender, package in (("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        try:
            __import__(package)
        except ImportError:
            assert f"without {contender}: {contender} needs {package}: pip install {package}" in result.output
        else:
            assert rows[contender].count("×") == 2, result.output
    assert rows["PyTorch"].count(" ms") == rows["PyTorch"].count("×") == 2
    assert rows["fastcv"].count(" ms") == 2
    assert "medians of 1 round," in result.output


def test_what_is_missing_or_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> Any:
        raise ImportError("OpenVINO needs openvino: pip install openvino")

    def broken(*_: Any) -> Any:
        raise RuntimeError("cannot read this\nbecause of that")

    made = {**contenders.CONTENDERS, "OpenVINO": absent, "ONNX Runtime": broken}
    made["another"] = lambda network, _: lambda: [-part for part in network.run(network.plain)]
    monkeypatch.setattr(model_speed, "CONTENDERS", made)
    result = model_speed.compare(contenders.MODELS["unet"](True), [1], 2)
    assert result.missing == {
        "OpenVINO": "OpenVINO needs openvino: pip install openvino",
        "ONNX Runtime": "cannot read this",
        "another": "its answer is another",
    }
    assert list(result.seconds) == ["fastcv", "PyTorch"]
    result.seconds = {"fastcv": {1: 2.0}, "PyTorch": {1: 5.0}}
    assert result.ratio("PyTorch", 1) == 2.5
    assert bench_command.table_of(result).row_count == 2


def test_unknown_models() -> None:
    result = run("resnet")
    assert result.exit_code == 2
    assert "MODEL must be one of fasterrcnn_resnet50_fpn" in result.output
