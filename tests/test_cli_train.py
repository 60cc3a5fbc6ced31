"""``fastcv train`` and ``fastcv val``: from data to weights and metrics, and what they say when something is wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("safetensors")
pytest.importorskip("yaml")
pytest.importorskip("pycocotools")

import yaml
from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.cli import train as train_module
from fastcv.engine import Progress
from fastcv.models import create_model, load_model, read_card, save_model

SCENES = ("scenes", "--data-option", "size=64", "--data-option", "count=6")
TINY = (*SCENES, "--model", "fasterrcnn_tiny_fpn", "--size", 64, "--batch", 3, "--device", "cpu")


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, [str(argument) for argument in arguments])


def assert_one_line(result: Any, *parts: str, status: int = 2) -> None:
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = run("train", *TINY, "--epochs", 1, "--output", folder, "--seed", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("epoch 1/1  step 2  loss ")
    assert lines[1].startswith(f"{folder / 'best.safetensors'}: bbox/AP 0.")
    return folder


def test_what_is_written(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"best.safetensors", "last.safetensors", "last.pt", "options.yaml", "metrics.csv", "metrics.json"} <= names
    options = yaml.safe_load((trained / "options.yaml").read_text())
    assert next(iter(options)) == "data"
    assert options["data_options"] == {"size": 64, "count": 6}
    assert (options["model"], options["seed"], options["augment"]) == ("fasterrcnn_tiny_fpn", 5, "flip")
    card = read_card(trained / "best.safetensors")
    assert card is not None
    assert list(card.names.values()) == ["circle", "square", "triangle", "star", "ring"]
    assert card.facts["seed"] == 5
    assert card.facts["options"]["batch"] == 3
    assert card.facts["metrics"]["bbox/AP"] >= 0
    assert load_model(trained / "best.safetensors").card == card


def test_evaluations_between_epochs(tmp_path: Path) -> None:
    for every, more, evaluated in ((0, ("--epochs", 2), [2]), (2, ("--epochs", 3, "--resume", tmp_path), [2, 3])):
        arguments = () if "--resume" in more else TINY
        result = run("train", *arguments, "--evaluate-every", every, "--output", tmp_path, *more)
        assert result.exit_code == 0, result.output
        history = json.loads((tmp_path / "metrics.json").read_text())["history"]
        assert [row["epoch"] for row in history if "bbox/AP" in row] == evaluated


def test_val_finds_the_same(trained: Path, tmp_path: Path) -> None:
    (row,) = json.loads((trained / "metrics.json").read_text())["history"]
    for arguments in (("--resume", trained), (*SCENES, "--weights", trained / "best.safetensors", "--batch", 3)):
        result = run("val", *arguments, "--output", tmp_path, "--device", "cpu")
        assert result.exit_code == 0, result.output
        assert "triangle" in result.stdout
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert metrics == pytest.approx({name: row[name] for name in metrics}, abs=1e-6)
    again = run("val", "--options", tmp_path / "options.yaml")
    assert again.stdout == result.stdout


def test_resume(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    assert_one_line(run("train", *TINY, "--output", trained), f"--resume {trained} goes on with it")
    result = run("train", "--resume", trained)
    assert result.exit_code == 0, result.output
    assert "is finished: more --epochs go on with it" in result.stdout
    result = run("train", "--resume", trained, "--epochs", 2, "--output", folder, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(str(folder))
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 4
    assert_one_line(run("train", "--resume", trained, "--batch", 2), "batch must be 3 to go on from", "got 2")
    assert_one_line(
        run("train", "--resume", trained, "--model", "maskrcnn_tiny_fpn"), "is a checkpoint of another model"
    )
    assert_one_line(run("train", "--resume", tmp_path), "--resume: there is no checkpoint", "last.pt")


def test_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed(Progress):
        def on_step(self, trainer: Any, losses: Any) -> None:
            if trainer.step == 3:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_module, "Progress", Pressed)
    result = run("train", *TINY, "--epochs", 2, "--output", tmp_path / "run")
    how = f"interrupted after step 3; fastcv train --resume {tmp_path / 'run'} goes on"
    assert_one_line(result, f"fastcv train: {how}", status=130)
    monkeypatch.undo()
    result = run("train", "--resume", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "epoch 2/2  step 4" in result.stdout


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    result = run("train", *TINY, "--epochs", 3, "--lr", 1e30, "--warmup", 0, "--output", tmp_path / "run")
    assert_one_line(result, "of step 2 is", "a lower learning rate or a longer warm-up may help")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_yolo(tmp_path: Path) -> None:
    small = ("--model-option", "width=0.125", "--size", 64, "--augment", "mosaic")
    result = run(
        "train", *SCENES, "--model", "yolov3-tiny", *small, "--steps", 1, "--output", tmp_path, "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert load_model(tmp_path / "last.safetensors").card.names[0] == "circle"
    assert "of 1" in result.stdout


def test_segmentation(tmp_path: Path) -> None:
    small = ("--model-option", "base_channels=4", "--model-option", "depth=2")
    result = run("train", *SCENES, "--model", "unet", *small, "--epochs", 1, "--output", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "mIoU 0." in result.stdout
    result = run("val", "--resume", tmp_path)
    assert result.exit_code == 0, result.output
    assert "background" in result.stdout


def test_options_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(
        "data: scenes\nmodel: fasterrcnn_tiny_fpn\nbatch: 3\nepochs: 7\ndata_options: {size: 64, count: 3}\n"
    )
    options = train_module.read_options(train_module.RunOptions, file, {"epochs": 2})
    assert (options.epochs, options.batch, options.data_options) == (2, 3, {"size": 64, "count": 3})
    file.write_text("data: scenes\nbathc: 3\n")
    assert_one_line(run("train", "--options", file), "there is no option 'bathc'; did you mean 'batch'?")
    file.write_text("data: scenes\nbatch: many\n")
    assert_one_line(run("train", "--options", file), "batch must be an integer, got str 'many'")
    assert_one_line(run("train", "--options", tmp_path / "none.yaml"), "there is no file", "none.yaml")


@pytest.mark.parametrize(("arguments", "parts"), [
    ((), ("DATA is missing",)),
    (("nowhere", "--model", "maskrcnn_tiny_fpn"), ("nowhere",)),
    (("scenes",), ("--model is needed: such as",)),
    (("scenes", "--model", "maskrcnn_tiny"), ("there is no such model; did you mean maskrcnn_tiny_fpn?",)),
    (("scenes", "--model", "unet", "--data-option", "colour=red"), ("colour",)),
    (("scenes", "--model", "maskrcnn_tiny_fpn", "--model-option", "heads=3"), ("has no option 'heads'",)),
    (("scenes", "--model", "maskrcnn_tiny_fpn", "--model-option", "heads"), ("--model-option must be NAME=VALUE",)),
    ((*TINY, "--model-option", "min_size=abc"), ("min_size must be positive numbers, got a, b, c",)),
    ((*TINY, "--model-option", "num_classes=-1"), ("num_classes must be an integer of at least 1, got -1",)),
    ((*TINY, "--data-option", "backgrounds=3"), ("backgrounds must be text, got 3",)),
    ((*TINY, "--batch", 10**9), ("batch times accumulate must be at most 1024 for 6 samples",)),
    ((*TINY, "--epochs", 0), ("epochs must be at least 1, got 0",)),
    ((*TINY, "--augment", "wild"), ("augment must be one of none, flip, strong, mosaic, turn, got 'wild'",)),
    ((*TINY, "--freeze", "neck"), ("the model has no part 'neck'", "backbone, rpn, roi_heads")),
    ((*TINY, "--rate", "neck=0.1"), ("the model has no part 'neck'",)),
    ((*TINY, "--rate", "backbone=slow"), ("learning_rates: backbone must be a number",)),
    ((*TINY, "--device", "tpu"), ("--device tpu",)),
    ((*TINY, "--weights", "none.safetensors"), ("there is no checkpoint none.safetensors",)),
    (("scenes", "--data-option", "count=0", "--model", "maskrcnn_tiny_fpn"), ("holds no images",)),
])  # fmt: skip
def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, parts: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(run("train", *arguments), "fastcv train: ", *parts)
    assert not list(tmp_path.iterdir()), "not even an empty folder is left"


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(run("train", *TINY, "--output", tmp_path / "file" / "run"), "cannot write to", "Not a directory")
    assert_one_line(run("train", *TINY, "--output", tmp_path / "file"), "cannot write to", "File exists")


@pytest.mark.parametrize(("arguments", "rate"), [
    (("--model", "fasterrcnn_tiny_fpn"), 3e-3), (("--model", "yolov2-tiny"), 3e-3), (("--model", "unet"), 1e-3),
    (("--model", "fasterrcnn_tiny_fpn", "--optimizer", "sgd"), 1e-3), (("--weights", "maskrcnn_scenes"), 1e-3),
    (("--model", "fasterrcnn_tiny_fpn", "--lr", 0.02), 0.02),
    (("--model", "fasterrcnn_tiny_fpn", "--options", "plain.yaml"), 3e-3), (("--options", "rate.yaml"), 1e-3),
    (("--options", "rate.yaml", "--lr", 0.5), 0.5),
])  # fmt: skip
def test_learning_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, rate: float) -> None:
    """That of the model, unless the command or its file says another."""
    monkeypatch.chdir(tmp_path)
    Path("plain.yaml").write_text("epochs: 3\n")
    Path("rate.yaml").write_text("model: maskrcnn_tiny_fpn\nlearning_rate: 1e-3\n")
    seen: list[float] = []

    def look(options: Any, *more: Any) -> None:
        seen.append(options.learning_rate)
        train_module.fail("stop here")

    monkeypatch.setattr(train_module, "_make_trainer", look)
    assert "stop here" in run("train", "scenes", *arguments).stderr
    assert seen == [rate]


def test_weights_of_other_classes(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_model(create_model("fasterrcnn_tiny_fpn", names=["cat", "dog"]), other)
    result = run("train", *TINY, "--weights", other, "--output", tmp_path / "refused")
    assert_one_line(result, "tells 2 classes apart, the data have 5", "--new-head")
    assert_one_line(run("val", *SCENES, "--weights", other), "tells 2 classes apart, the data have 5")
    assert_one_line(run("val", *SCENES, "--weights", other, "--model", "unet"), "holds weights of fasterrcnn_tiny_fpn")
    renamed = tmp_path / "renamed.safetensors"
    save_model(create_model("fasterrcnn_tiny_fpn", names=["circle", "square", "dog", "star", "ring"]), renamed)
    assert_one_line(run("val", *SCENES, "--weights", renamed), "class 3 is 'dog' in", "and 'triangle' in the data")
    folder = tmp_path / "run"
    result = run("train", *TINY, "--weights", other, "--new-head", "--freeze", "backbone.body", "--epochs", 1,
                 "--validation", "none", "--output", folder)  # fmt: skip
    assert result.exit_code == 0, result.output
    model, start = load_model(folder / "last.safetensors"), load_model(other)
    assert list(model.card.names.values()) == ["circle", "square", "triangle", "star", "ring"]
    assert torch.equal(model.backbone.body.conv1.weight, start.backbone.body.conv1.weight)
    assert not torch.equal(model.rpn.head.cls_logits.weight, start.rpn.head.cls_logits.weight)


def test_keypoints_of_the_data(tmp_path: Path) -> None:
    """The model gets as many keypoints as the data have: people five, not COCO's 17."""
    options = ["--data-option", "count=4", "--data-option", "held_out=2", "--data-option", "size=64", "--size", 64]
    result = run("train", "people", *options, "--model", "keypointrcnn_tiny_fpn", "--steps", 1, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "last.safetensors")
    assert model.roi_heads.keypoint_predictor.kps_score_lowres.out_channels == 5
    assert model.card.facts["skeleton"] == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert "keypoints/AP" in json.loads((tmp_path / "metrics.json").read_text())["history"][0]


def test_val_errors(tmp_path: Path) -> None:
    assert_one_line(run("val"), "DATA is missing")
    assert_one_line(run("val", "scenes"), "--weights is missing")
    assert_one_line(run("val", "--resume", tmp_path), "there is no file", "options.yaml")
    assert_one_line(run("val", "--resume", tmp_path / "none"), "--resume: there is no training", "none")
    assert_one_line(run("val", "scenes", "--weights", "maskrcnn_scenes", "--workers", -1), "workers must be at least 0")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    assert_one_line(run("val", "scenes", "--weights", tmp_path / "bad.safetensors"), "is not a safetensors file")
    torch.save({}, tmp_path / "plain.pth")
    assert_one_line(
        run("val", "scenes", "--weights", tmp_path / "plain.pth"), "--model is needed: the weights do not say"
    )


def test_help_shows_groups() -> None:
    text = run("--help").stdout
    places = [text.index(part) for part in ("Models", "│ predict", "│ train", "│ val", "Demonstration", "Installation")]
    assert places == sorted(places)
    assert "--install-completion" in text
    assert "What is trained" in run("train", "--help").stdout
