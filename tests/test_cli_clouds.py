"""``fastcv voxelize`` and ``fastcv classify``: what a person sees, and what lands on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")

from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.cli.classify import load_point_model, probabilities, trained_points
from fastcv.cli.voxelize import grid_around
from fastcv.data import (
    SOLIDS,
    STREET_CLASSES,
    labelled_street_scan,
    synthetic_solids,
    to_unit_ball,
    write_velodyne,
)
from fastcv.models import create_model, read_card, save_model


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, [str(argument) for argument in arguments])


def colourful(path: Path) -> tuple[int, int]:
    """Coloured pixels in the left and in the right half."""
    with Image.open(path) as picture:
        spread = np.ptp(np.asarray(picture.convert("RGB")).astype(int), axis=2) > 50
    middle = spread.shape[1] // 2
    return int(spread[:, :middle].sum()), int(spread[:, middle:].sum())


def test_voxelize_a_file(tmp_path: Path) -> None:
    points = synthetic_solids(5, points=500)[4][0] * 3 + 7
    np.save(tmp_path / "ring.npy", points.numpy())
    output, picture = tmp_path / "grid.npz", tmp_path / "both.png"
    result = run("voxelize", tmp_path / "ring.npy", "--output", output, "--picture", picture, "--mode", "count")
    assert result.exit_code == 0, result.output
    assert "500 points of 3 columns" in result.output
    with np.load(output) as held:
        grid, coords, size, span = (held[key] for key in ("grid", "coords", "voxel_size", "point_cloud_range"))
    assert max(grid.shape) == 32
    assert grid.sum() == 500  # no point is lost
    place = np.floor((points.double().numpy() - span[:3]) / size).astype(int)[:, ::-1]
    expected = np.zeros_like(grid)
    np.add.at(expected, tuple(place.T), 1)
    assert np.abs(grid - expected).sum() <= 4  # points on the border of two voxels
    assert np.array_equal(coords, np.argwhere(grid > 0))
    left, right = colourful(picture)
    assert left > 2000
    assert right > 10_000


def test_voxelize_a_street_and_a_single_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    street = torch.rand(2000, 4, generator=generator) * torch.tensor([80, 40, 3, 1.0])
    write_velodyne("scan.bin", street)
    result = run("voxelize", "scan.bin", "--voxel-size", 2)
    assert result.exit_code == 0, result.output
    assert "grid of 40 x 20 x 2 voxels of 2" in result.output
    Path("one.xyz").write_text("1 2 3\n")
    result = run("voxelize", "one.xyz")
    assert result.exit_code == 0, result.output
    assert "grid of 1 x 1 x 1 voxels of 1, 1 occupied" in result.output


@pytest.mark.parametrize("cells", [1, 2, 31, 100])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_every_point_is_in_the_grid(cells: int, scale: float) -> None:
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(cells)) * scale - 0.3 * scale
    size, span = grid_around(points, cells, None)
    xyz = points.double()
    assert bool(((xyz >= torch.tensor(span[:3])) & (xyz < torch.tensor(span[3:]))).all())
    assert size == pytest.approx(float((xyz.amax(0) - xyz.amin(0)).max()) / cells, rel=1e-5)


def classifier(path: Path) -> Any:
    """A small network whose answers differ."""
    torch.manual_seed(0)
    model = create_model("voxnet", names=list(SOLIDS), grid=16)
    torch.nn.init.normal_(model.fc2.weight, 0, 2.0)
    save_model(model, path, seed=0)
    return model.eval()


def test_classify(tmp_path: Path) -> None:
    model = classifier(tmp_path / "net.safetensors")
    np.save(tmp_path / "cloud.npy", (synthetic_solids(3, points=300)[2][0] * 50).numpy())
    picture = tmp_path / "found.png"
    result = run("classify", tmp_path / "cloud.npy", "--weights", tmp_path / "net.safetensors", "--output", picture)
    assert result.exit_code == 0, result.output
    cloud = torch.from_numpy(np.load(tmp_path / "cloud.npy"))
    scores = model(to_unit_ball(cloud)[None]).softmax(1)[0]  # more points than there are: all of them
    best = int(scores.argmax())
    lines = result.output.splitlines()
    assert lines[1].split() == ["class", "probability"]
    assert lines[2].split() == [list(SOLIDS)[best], f"{float(scores[best]):.1%}"]
    left, right = colourful(picture)
    assert left > 2000
    assert right > 100
    torch.testing.assert_close(probabilities(model, cloud, 1024, 0), scores)


def test_classify_a_shape_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    classifier(Path("net.safetensors"))
    result = run("classify", "cone", "--weights", "net.safetensors")
    assert result.exit_code == 0, result.output
    assert Path("classified.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["pointnet_solids", "pointnet2_solids", "voxnet_solids"])
def test_classify_by_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = [] if name == "pointnet_solids" else ["--weights", name]  # that is the usual one
    for shape in ("torus", "cone", "star"):
        result = run("classify", shape, *chosen)
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[2].split()[0] == shape


def test_as_many_points_as_in_the_training(tmp_path: Path) -> None:
    model = create_model("voxnet", names=list(SOLIDS), grid=16)
    for facts, points in (({}, 1024), ({"options": {"data_options": {"points": 77}}}, 77), ({"options": "odd"}, 1024)):
        save_model(model, tmp_path / "net.safetensors", **facts)
        assert trained_points(load_point_model(tmp_path / "net.safetensors")) == points


def test_classify_a_street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("classify", "street", "--labels", "labels.npy", "--output", "street.png")
    assert result.exit_code == 0, result.output
    points, expected = labelled_street_scan(0, 64, 1440)
    labels = np.load("labels.npy")
    assert labels.shape == expected.shape
    assert (labels == expected.numpy()).mean() > 0.98
    rows = [line.split() for line in result.output.splitlines()[2:-1]]
    assert {name for name, _ in rows} == set(STREET_CLASSES)
    assert [int(number.replace(",", "")) for _, number in rows] == sorted(np.bincount(labels).tolist(), reverse=True)
    assert all(side > 1000 for side in colourful(Path("street.png")))
    write_velodyne("scan.bin", points)
    again = run("classify", "scan.bin", "--columns", "4")  # scans get these weights unless told otherwise
    assert again.output.splitlines()[1:-1] == result.output.splitlines()[1:-1]


@pytest.mark.parametrize("model", ["pointnet", "octnet"])
def test_a_network_is_trained_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    count = ["--data-option", "count=20", "--data-option", "points=64"]
    result = run("train", "solids", "--model", model, "--steps", 2, "--batch", 10, *count, "--output", "run", "-q")
    assert result.exit_code == 0, result.output
    assert "run/best.safetensors: accuracy" in result.output
    card = read_card("run/best.safetensors")
    assert card is not None
    assert list(card.names.values()) == list(SOLIDS)
    result = run("classify", "torus", "--weights", "run/best.safetensors", "--points", 64)
    assert result.exit_code == 0, result.output
    assert sum(name in result.output for name in SOLIDS) >= 5


def test_a_street_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("yaml")
    monkeypatch.chdir(tmp_path)
    options = ["voxel_size=0.8", "point_cloud_range=[-40,-12,-2.4,40,12,4]", "in_channels=4", "channels=[4,8]"]
    pairs = [part for option in options for part in ("--model-option", option)]
    pairs += ["--data-option", "count=2", "--data-option", "rings=8", "--data-option", "columns=90"]
    result = run("train", "streets", "--model", "sparse_unet", "--steps", 2, "--batch", 2, *pairs, "--output", "run")
    assert result.exit_code == 0, result.output
    assert "run/best.safetensors: mIoU" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "cone", "--labels", "a.npy"], "--labels is for networks that classify each point"),
        (["classify", "street", "--labels", "a.txt"], "--labels a.txt has to end in .npy"),
        (["classify", "cone", "--weights", "sparse_unet_streets"], "the network wants 4 columns per point"),
        (["classify", "cone", "--weights", "none.safetensors"], "there is no checkpoint none.safetensors"),
        (["classify", "cone", "--weights", "unet.safetensors"], "unet.safetensors holds unet, for segmentation"),
        (["classify", "none.ply", "--weights", "net.safetensors"], "there is no file none.ply, and no such shape"),
        (["classify", "cone", "--weights", "net.safetensors", "--output", "a.jpg"], "has to end in .png"),
        (["voxelize", "none.ply"], "there is no file none.ply, and no such shape: those are ball, box"),
        (["voxelize", "odd.bin"], "odd.bin is not a Velodyne scan"),
        (["voxelize", "either.bin"], "(--columns 4: x, y, z, reflectance"),
        (["voxelize", "nan.xyz"], "give --drop-invalid to leave such points out"),
        (["voxelize", "mesh.obj"], "mesh.obj is of no known format"),
        (["voxelize", "cone", "--mode", "full"], "--mode full must be binary, count or density"),
        (["voxelize", "cone", "--voxel-size", "0"], "--voxel-size 0 must be positive"),
        (["voxelize", "cone", "--voxel-size", "1e-5"], "more than 512 x 512 x 512"),
        (["voxelize", "cone", "--output", "nowhere/a.npz"], "cannot write nowhere/a.npz"),
        (["voxelize", "cone", "--picture", "a.jpg"], "has to end in .png"),
    ],
)
def test_errors_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.bin").write_bytes(bytes(17))
    Path("either.bin").write_bytes(bytes(80))
    Path("nan.xyz").write_text("1 2 3\nnan 2 3\n")
    Path("mesh.obj").write_text("v 1 2 3\n")
    if "net.safetensors" in arguments:
        classifier(Path("net.safetensors"))
    if "unet.safetensors" in arguments:
        save_model(create_model("unet", num_classes=2, base_channels=2, depth=1), "unet.safetensors")
    before = set(Path().iterdir())
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert set(Path().iterdir()) == before  # nothing half-written
