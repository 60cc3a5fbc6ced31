"""``fastcv train`` and ``fastcv val`` on point clouds: solids, streets, folders; and what they say to bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
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
from fastcv.cli.recipes import with_recipe
from fastcv.cli.run_options import RunOptions
from fastcv.data import SOLIDS, STREET_CLASSES, open_dataset
from fastcv.engine import Progress
from fastcv.models import create_model, load_model, model_names, save_model

SMALL = ("--data-option", "count=20", "--data-option", "points=64", "--device", "cpu")
SOLID = ("solids", *SMALL, "--model", "voxnet", "--model-option", "grid=12", "--batch", 10)
SCANS = ("--data-option", "count=3", "--data-option", "rings=6", "--data-option", "columns=90", "--device", "cpu")
STREET = ("streets", *SCANS, "--model", "sparse-unet", "--model-option", "channels=[4,8]", "--batch", 2)


@pytest.fixture(autouse=True)
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcv.engine.plots.can_plot", lambda: False)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, [str(argument) for argument in arguments])


def assert_one_line(result: Any, *parts: str, status: int = 2) -> None:
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def trained(folder: Path, *arguments: Any) -> Path:
    result = run("train", *arguments, "--output", folder)
    assert result.exit_code == 0, result.output
    return folder / "best.safetensors"


def test_solids(tmp_path: Path) -> None:
    """A short training; val finds the same, with the accuracy of each class; the weights know their model."""
    best = trained(tmp_path / "run", *SOLID, "--epochs", 2, "--augment", "strong")
    options = yaml.safe_load((tmp_path / "run" / "options.yaml").read_text())
    assert (options["augment"], options["model"]) == ("strong", "voxnet")
    history = json.loads((tmp_path / "run" / "metrics.json").read_text())["history"]
    row = next(row for row in reversed(history) if row["best"])
    result = run("val", "solids", *SMALL, "--weights", best, "--output", tmp_path / "val")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert metrics == pytest.approx({name: row[name] for name in metrics}, abs=1e-6)
    assert {f"accuracy/class/{name}" for name in SOLIDS} <= metrics.keys()
    for name in SOLIDS:
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"{name} "))
        assert line.split()[1] == f"{metrics[f'accuracy/class/{name}']:.3f}"
    model = load_model(best).eval()
    held_out = open_dataset("solids", "val", count=20, points=64)
    hits = [int(model(points[None]).argmax()) == label for points, label in held_out]
    assert sum(hits) / 20 == pytest.approx(metrics["accuracy"])
    assert model.card.names == dict(enumerate(SOLIDS))


def test_streets(tmp_path: Path) -> None:
    best = trained(tmp_path / "run", *STREET, "--epochs", 1)
    result = run("val", "--resume", tmp_path / "run", "--output", tmp_path / "val")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "val" / "metrics.json").read_text())
    assert f"{metrics['mIoU']:.3f}" in result.stdout
    assert "vegetation" in result.stdout
    model = load_model(best).eval()
    options = model.card.options
    assert (options["in_channels"], options["channels"], options["num_classes"]) == (4, [4, 8], len(STREET_CLASSES))
    right = total = 0
    for points, labels in open_dataset("streets", "val", count=3, rings=6, columns=90):
        right, total = right + int((model(points).argmax(1) == labels).sum()), total + len(labels)
    assert right / total == pytest.approx(metrics["accuracy"], abs=1e-6)
    again = run("val", "streets", *SCANS, "--weights", best)  # voxels are those of the card
    assert again.stdout.splitlines()[1:] == result.stdout.splitlines()[1:]


@pytest.mark.parametrize("arguments", [SOLID, STREET], ids=["solids", "streets"])
def test_resume_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any) -> None:
    class Stopped(Progress):
        def on_step(self, trainer: Any, losses: Any) -> None:
            if trainer.step == 3:
                raise KeyboardInterrupt

    more = (*arguments, "--epochs", 2, "--augment", "strong", "--save-steps", 1)
    whole = trained(tmp_path / "whole", *more)
    monkeypatch.setattr(train_module, "Progress", Stopped)
    assert run("train", *more, "--output", tmp_path / "part").exit_code == 130
    monkeypatch.undo()
    result = run("train", "--resume", tmp_path / "part")
    assert result.exit_code == 0, result.output
    first, second = (load_model(path).state_dict() for path in (whole, tmp_path / "part" / "best.safetensors"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def make_folder(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for name, scale in (("flat", (1, 1, 0.05)), ("round", (1, 1, 1)), ("tall", (0.1, 0.1, 1))):
        for split, count in (("train", 4), ("test", 2)):
            (folder / name / split).mkdir(parents=True)
            for number in range(count):
                cloud = random.normal(size=(80, 3)) * scale
                np.save(folder / name / split / f"{number}.npy", cloud.astype(np.float32))
    return folder


def test_a_folder_of_clouds_and_another_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_folder(tmp_path / "data")
    start = tmp_path / "start.safetensors"
    save_model(create_model("voxnet", names=["cat", "dog"], grid=12), start)
    points = ("--data-option", "points=64", "--device", "cpu")
    assert_one_line(run("train", folder, *points, "--weights", start), "tells 2 classes apart, the data have 3")
    best = trained(tmp_path / "run", folder, *points, "--weights", start, "--new-head", "--epochs", 1, "--batch", 6)
    model = load_model(best)
    assert model.card.names == {0: "flat", 1: "round", 2: "tall"}
    assert model.grid == 12
    result = run("val", folder, *points, "--weights", best)
    assert result.exit_code == 0, result.output
    assert "(val, 6 samples)" in result.stdout
    (folder / "round" / "train" / "2.npy").write_bytes(b"no array")
    again = (folder, *points, "--model", "voxnet", "--epochs", 1, "--output", tmp_path / "again")
    assert_one_line(run("train", *again), str(folder / "round" / "train" / "2.npy"))
    (folder / "round" / "test" / "1.npy").unlink()
    (folder / "round" / "test" / "1.npy").symlink_to(tmp_path / "nowhere.npy")
    result = run("val", folder, *points, "--weights", best)
    assert "(val, 5 samples)" in result.stdout, "a dangling link is no cloud"


@pytest.mark.parametrize("name", [*model_names("classification"), *model_names("point-segmentation")])
def test_all_models_are_made_for_the_data(name: str) -> None:
    """With the columns, and the voxels, that the data's clouds need."""
    source = "solids" if name in model_names("classification") else "streets"
    data = open_dataset(source, points=32, **({} if source == "solids" else {"rings": 4, "columns": 60}))
    options = train_module.RunOptions(data=source)
    train_module.check_fits(name, data, source, options)
    model = train_module.make_model(options, name, data.names, fitting=train_module.fitting_options(name, data)).eval()
    logits = model(torch.stack([data[0][0], data[1][0]]))
    assert logits.shape == ((2, 10) if source == "solids" else (2, 32, 6))
    assert model.card.task == data.task


@pytest.mark.parametrize(("arguments", "parts"), [
    ((*SOLID, "--augment", "flip"), ("--augment flip is for images; for point clouds there are none, turn, strong",)),
    ((*SOLID, "--augment", "mosaic"), ("--augment mosaic is for images",)),
    (("scenes", "--model", "unet", "--augment", "turn"),
     ("--augment turn is for point clouds; for images there are none, flip, strong, mosaic",)),
    ((*SOLID, "--size", 64), ("--size is for images, not for point clouds",)),
    (("solids", *SMALL, "--model", "unet"),
     ("solids holds point clouds with one label each: --model must be one for them, as pointnet, ", "got unet")),
    (("streets", *SCANS, "--model", "pointnet"),
     ("streets holds labelled points: --model must be one for them, as pointnet_segmentation, ", "got pointnet")),
    (("scenes", "--model", "pointnet"), ("scenes holds images: --model must be one for them", "got pointnet")),
    (("streets", *SCANS, "--model", "pointnet2_segmentation"), ("clouds of one size", "--data-option points=4096")),
    (("solids", "--model", "pointnet", "--data-option", "count=0"), ("solids (train) holds no point clouds",)),
    (("solids", "--model", "pointnet", "--data-option", "size=3"), ("the options of \"solids\" are count, points",)),
    (("solids", "--model", "pointnet", "--data-option", "points=many"), ("points must be an integer, got 'many'",)),
    (("solids", "--model", "point_net"), ("there is no such model; did you mean pointnet?",)),
    (("solids", *SMALL, "--model", "pointnet", "--batch", 1), ("--batch must be at least 2 for pointnet",)),
    ((*STREET, "--model-option", "voxel_size=-1"), ("voxel_size",)),
])  # fmt: skip
def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, parts: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line(run("train", *arguments), "fastcv train: ", *parts)
    assert not list(tmp_path.rglob("last*"))


def test_recipes() -> None:
    """What is given stands; a count is that of all splits; options of data are for the generator alone."""
    assert with_recipe("unet", "scenes", {"batch": 2}) == {"batch": 2}
    short = with_recipe("pointnet", "solids", {"data": "solids"})
    assert (short["batch"], short["data_options"]["points"], short["data_options"]["held_out"]) == (32, 256, 1000)
    other = with_recipe("pointnet", "solids", {"batch": 5, "data_options": {"count": 30}})
    assert (other["batch"], other["data_options"]) == (5, {"points": 256, "count": 30})
    assert "data_options" not in with_recipe("pointnet", "modelnet", {})
    for name in model_names():
        RunOptions.from_dict(with_recipe(name, "solids", {}))


def test_weights_for_clouds_are_not_for_images(tmp_path: Path) -> None:
    save_model(create_model("voxnet", names=list(SOLIDS)), tmp_path / "a.safetensors")
    assert_one_line(run("val", "scenes", "--weights", tmp_path / "a.safetensors"), "scenes holds images", "got voxnet")
    (tmp_path / "a.png").write_bytes(b"")
    assert_one_line(
        run("predict", tmp_path / "a.png", "--weights", tmp_path / "a.safetensors"), "voxnet is no detector"
    )
