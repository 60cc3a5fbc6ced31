"""Data sets of point clouds: folders, generators by name, augmentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcv.data import STREET_CLASSES, CloudFolder, open_dataset, synthetic_streets, to_unit_ball, write_velodyne
from fastcv.data.cloud_transforms import (
    JitterPoints,
    PointDropout,
    RotateZ,
    ScalePoints,
    ShufflePoints,
    cloud_augmentation,
)
from fastcv.data.clouds import choose_points

TETRAHEDRON = "OFF\n4 4 0\n0 0 0\n9 0 0\n0 9 0\n0 0 9\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def modelnet(tmp_path: Path) -> Path:
    """ModelNet's layout: chairs and beds as surfaces."""
    for name, split, count in (("chair", "train", 2), ("chair", "test", 1), ("bed", "train", 1), ("bed", "test", 2)):
        folder = tmp_path / "net" / name / split
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{name}_{number:04}.off").write_text(TETRAHEDRON)
    (tmp_path / "net" / "README.txt").write_text("ModelNet")
    (tmp_path / "net" / "bed" / "train" / ".DS_Store").write_text("")
    (tmp_path / "net" / "bed" / "train" / "._bed_0000.off").write_text("")
    return tmp_path / "net"


def test_modelnet(modelnet: Path) -> None:
    data = open_dataset(modelnet, points=50)
    assert isinstance(data, CloudFolder)
    assert data.names == {0: "bed", 1: "chair"}
    assert [data[index][1] for index in range(len(data))] == [0, 1, 1]
    assert (data.task, data.points, data.model_options) == ("classification", 50, {"in_channels": 3})
    for points, _ in data:
        assert points.shape == (50, 3)
        assert points.dtype is torch.float32
        assert float(points.norm(dim=1).max()) == pytest.approx(1, abs=1e-5)
        assert float(points.mean(0).abs().max()) < 1e-5
    assert not torch.equal(data[1][0], data[2][0]), "each file has points of its own"
    held_out = open_dataset(modelnet, "val", first_label=4, points=50, unit_ball=False)
    assert [held_out[index][1] for index in (0, 1, -1)] == [4, 4, 5]
    x, y, z = held_out[0][0].T  # on one of the four faces
    assert bool((((x + y + z - 9).abs() < 1e-4) | (torch.stack([x, y, z]).amin(0) < 1e-4)).all())


def test_points_depend_on_the_seed_and_the_file_alone(modelnet: Path) -> None:
    before, other = CloudFolder(modelnet, points=20), CloudFolder(modelnet, points=20, seed=1)
    (modelnet / "bed" / "train" / "bed_0.off").write_text(TETRAHEDRON)  # the first in order
    after = CloudFolder(modelnet, points=20)
    assert len(after) == len(before) + 1
    for index in range(len(before)):
        points = before[index][0].clone()
        assert torch.equal(points, after[index + 1][0])
        assert not torch.equal(points, other[index][0])
        before[index][0].zero_()  # what is kept in memory is not what is returned
        assert torch.equal(points, before[index][0])


def test_a_folder_per_split_in_any_format(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("car", "tree"):
            (tmp_path / split / name).mkdir(parents=True)
    cloud = torch.arange(40, dtype=torch.float32).reshape(10, 4).abs() / 100
    np.save(tmp_path / "train" / "car" / "a.npy", cloud.numpy())
    write_velodyne(tmp_path / "train" / "tree" / "b.bin", cloud)
    (tmp_path / "val" / "tree" / "c.xyz").write_text("0 0 1 5\n0.5 0 2 6\n0 1 0 7\n")
    (tmp_path / "val" / "tree" / "notes.pdf").write_text("no cloud")
    data = open_dataset(tmp_path, points=6, features=1, columns=4, unit_ball=False)
    assert data.names == {0: "car", 1: "tree"}
    assert data.model_options == {"in_channels": 4}
    for index in (0, 1):
        rows = {tuple(row) for row in data[index][0].tolist()}
        assert len(rows) == 6, "no point twice"
        assert rows <= {tuple(row) for row in cloud.tolist()}
    held_out = open_dataset(tmp_path, "val", points=8, features=1)
    points, label = held_out[0]
    assert (len(held_out), label) == (1, 1)
    assert sorted(points[:, 3].tolist().count(value) for value in (5, 6, 7)) == [2, 3, 3], "each as often, or once more"


def test_bad_folders(modelnet: Path, tmp_path: Path) -> None:
    (modelnet / "bed" / "train" / "broken.off").write_text("OFF\n4 4 0\n0 0 0\n")
    (modelnet / "bed" / "train" / "thin.xyz").write_text("0 0 1\n0 1 0\n")
    data = CloudFolder(modelnet, points=20, features=1)
    with pytest.raises(ValueError, match=r"bed_0000.off must have at least 4 columns for features=1, got 3"):
        data[0]
    data = CloudFolder(modelnet, points=20)
    with pytest.raises(ValueError, match=r"broken.off: is truncated"):
        data[1]
    (modelnet / "bed" / "train" / "thin.xyz").unlink()
    with pytest.raises(FileNotFoundError):
        data[2]
    with pytest.raises(FileNotFoundError, match=r"has no clouds of the split valid: those are test, train"):
        open_dataset(modelnet, "valid")
    with pytest.raises(FileNotFoundError, match=r"has no clouds of the split train: no file ends in one of .off, .ply"):
        CloudFolder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        open_dataset(modelnet, points=0)
    with pytest.raises(ValueError, match="the options of a folder of point clouds are points, features, columns, seed"):
        open_dataset(modelnet, size=3)
    (tmp_path / "yolo" / "labels" / "train").mkdir(parents=True)
    (tmp_path / "yolo" / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ValueError, match=r"is not a data set that is known: .* for point clouds in CLASS/train"):
        open_dataset(tmp_path / "yolo")


def test_generators_by_name() -> None:
    train, val = (open_dataset("solids", split=split, points=32) for split in ("train", "val"))
    assert (len(train), len(val), min(train.names)) == (4000, 1000, 0)
    assert not torch.equal(train[0][0], val[0][0])
    assert open_dataset("solids", first_label=2)[0][1] == 2
    streets = open_dataset("streets", split="val", rings=4, columns=60)
    assert streets.names == dict(enumerate(STREET_CLASSES))
    assert streets.task == "point-segmentation"
    with pytest.raises(
        ValueError, match='the options of "solids" are count, points, seed, noise, tilt, occlusion, held_out, got'
    ):
        open_dataset("solids", size=3)
    assert [len(open_dataset("solids", split, count=30, held_out=7)) for split in ("train", "val")] == [30, 7]
    assert [len(open_dataset("streets", split, count=3, held_out=2)) for split in ("train", "val")] == [3, 2]


def test_kept_streets_are_not_changed_from_outside() -> None:
    data = synthetic_streets(2, rings=8, columns=90)
    points, labels = data[1]
    expected = points.clone(), labels.clone()
    points.zero_(), labels.zero_()
    assert all(torch.equal(*both) for both in zip(data[-1], expected, strict=True))


def test_streets_of_one_size() -> None:
    whole, part = synthetic_streets(1, rings=8, columns=90), synthetic_streets(1, rings=8, columns=90, points=100)
    points, labels = whole[0]
    label_of = {tuple(row): label for row, label in zip(points.tolist(), labels.tolist(), strict=True)}
    chosen, of_chosen = part[0]
    assert chosen.shape == (100, 4)
    assert len({tuple(row) for row in chosen.tolist()}) == 100
    assert [label_of[tuple(row)] for row in chosen.tolist()] == of_chosen.tolist()
    assert torch.equal(chosen, part[0][0])
    low, high = torch.tensor(part.model_options["point_cloud_range"]).view(2, 3)
    assert bool((points[:, :3] >= low).all() & (points[:, :3] < high).all())
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        synthetic_streets(1, points=0)


def test_a_choice_takes_no_point_twice_unless_it_has_to() -> None:
    random = np.random.default_rng(0)
    assert sorted(choose_points(10, 10, random).tolist()) == list(range(10))
    assert len(set(choose_points(10, 4, random).tolist())) == 4
    counts = choose_points(10, 24, random).bincount()
    assert sorted(counts.tolist()) == [2] * 6 + [3] * 4
    assert choose_points(1, 3, random).tolist() == [0, 0, 0]


POINTS = torch.randn(200, 5, generator=generator(3)) + torch.tensor([0.5, 0, 0, 0, 0])
LABELS = torch.arange(200)
TRANSFORMS: dict[str, Any] = {
    "turn": RotateZ(), "scale": ScalePoints(), "jitter": JitterPoints(), "dropout": PointDropout(),
    "shuffle": ShufflePoints(), "strong": cloud_augmentation("strong"),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_generator_decides(name: str) -> None:
    transform, before = TRANSFORMS[name], POINTS.clone()
    moved, labels = transform(POINTS, LABELS, generator(1))
    same, other = transform(POINTS, LABELS, generator(1)), transform(POINTS, LABELS, generator(2))
    assert torch.equal(moved, same[0])
    assert torch.equal(labels, same[1])
    assert not torch.equal(moved, other[0])
    assert torch.equal(POINTS, before)
    assert (moved.shape, moved.dtype) == (POINTS.shape, torch.float32)
    assert torch.equal(moved[:, 3:], POINTS[labels][:, 3:]), "points, further columns and labels stay together"
    cloud, label = transform(POINTS, 7, generator(1))
    assert torch.equal(cloud, moved)
    assert label == 7


def polar(points: Tensor) -> tuple[Tensor, Tensor]:
    return points[:, :2].norm(dim=1), torch.atan2(points[:, 1], points[:, 0])


def test_turns_are_around_z_and_of_all_angles() -> None:
    radius, angle = polar(POINTS)
    turns = []
    for seed in range(60):
        moved, _ = RotateZ(90)(POINTS, 0, generator(seed))
        assert torch.equal(moved[:, 2], POINTS[:, 2])
        torch.testing.assert_close(polar(moved)[0], radius)
        turn = (polar(moved)[1] - angle + math.pi).remainder(2 * math.pi) - math.pi
        assert float(turn.max() - turn.min()) < 1e-4
        turns.append(math.degrees(float(turn[0])))
    assert -90 <= min(turns) < -70
    assert 70 < max(turns) <= 90


def test_scale_jitter_and_dropout_keep_their_bounds() -> None:
    factors = [float((ScalePoints(0.5, 2)(POINTS, 0, generator(seed))[0] / POINTS)[0, 0]) for seed in range(60)]
    assert 0.5 <= min(factors) < 0.55
    assert 1.8 < max(factors) <= 2
    moved = torch.cat([JitterPoints(0.02, 0.03)(POINTS, 0, generator(seed))[0] - POINTS for seed in range(20)])[:, :3]
    assert float(moved.abs().max()) == pytest.approx(0.03, abs=1e-6)
    assert float(moved.clamp(-0.02, 0.02).abs().lt(0.0199).float().mean()) == pytest.approx(0.683, abs=0.02)
    left = []
    for seed in range(40):
        _, labels = PointDropout(0.6)(POINTS, LABELS, generator(seed))
        kept = labels[labels == LABELS]
        assert bool(((labels == LABELS) | (labels == kept[0])).all()), "the first one left stands in"
        left.append(len(kept) / 200)
    assert 0.3 < min(left) < 0.5
    assert max(left) > 0.95


@pytest.mark.parametrize(("make", "text"), [
    (lambda: RotateZ(181), "most must be 0 to 180 degrees, got 181"),
    (lambda: ScalePoints(0), "least and most must be positive and in order, got 0 and 1.25"),
    (lambda: JitterPoints(0.1), "deviation and most must not be negative and in order, got 0.1 and 0.05"),
    (lambda: PointDropout(1), "most must be from 0 to below 1, got 1"),
])  # fmt: skip
def test_bad_transforms(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_a_cloud_is_in_the_unit_ball_after_choosing(tmp_path: Path) -> None:
    """So that what the network sees is what ``to_unit_ball`` promises."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    np.save(tmp_path / "train" / "a" / "x.npy", POINTS[:, :3].numpy() * 30)
    points = CloudFolder(tmp_path, points=5)[0][0]
    torch.testing.assert_close(points, to_unit_ball(points))
