"""Generated scenes: repeatable, consistent, learnable; and data sets by name."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from fastcv.data import open_dataset, summary, synthetic_scenes
from fastcv.data.figures import SHAPES, figure
from fastcv.data.scenes import figures_on_photograph
from fastcv.data.textures import Random


def same(first: tuple[Tensor, dict], second: tuple[Tensor, dict]) -> bool:  # type: ignore[type-arg]
    (image, target), (other, read) = first, second
    return torch.equal(image, other) and all(
        value == read[name] if name == "image_id" else torch.equal(value, read[name]) for name, value in target.items()
    )


def test_an_image_depends_on_seed_and_index_alone() -> None:
    data, more = synthetic_scenes(3, 40, seed=1), synthetic_scenes(9, 40, seed=1)
    assert same(data[2], more[2])
    assert same(data[-1], more[2])
    torch.manual_seed(5)
    assert same(data[2], more[2])
    assert not same(data[1], data[2])
    assert not same(data[2], synthetic_scenes(3, 40, seed=2)[2])
    with pytest.raises(IndexError, match="index must be less than 3, got 3"):
        data[3]
    assert len(list(data)) == 3
    for batch in DataLoader(data, num_workers=2, collate_fn=list):
        ((image, target),) = batch
        assert same((image, target), data[target["image_id"]])


def test_the_first_image_of_seed_0() -> None:
    """Written once from a picture that was looked at: training can be repeated only if the images stay."""
    _, target = synthetic_scenes(1)[0]
    assert target["labels"].tolist() == [3, 5]
    assert target["boxes"].tolist() == [[43, 34, 83, 86], [27, 17, 71, 61]]


def test_photographs_as_backgrounds(tmp_path: Path) -> None:
    """The first pixels of the ground are those of a photograph, of which there is one that is red, in other gains."""
    Image.new("RGB", (300, 200), (250, 0, 0)).save(tmp_path / "red.png")
    (tmp_path / "notes.txt").write_text("no photograph")
    data = synthetic_scenes(40, 48, seed=3, backgrounds=tmp_path)
    assert same(data[5], synthetic_scenes(6, 48, seed=3, backgrounds=tmp_path)[5])
    pure = 0
    for image, target in data:
        behind = image[:, ~target["masks"].bool().any(0)]
        darkest, brightest = behind.median(1).values.sort().values[[1, 2]]
        pure += bool(darkest < 0.1 and brightest > 0.4)  # one channel alone
    assert 20 <= pure <= 36, "seven of ten"
    opened = open_dataset("scenes", "val", size=48, count=6, seed=3, backgrounds=str(tmp_path))
    assert same(opened[2], synthetic_scenes(3, 48, seed=1_000_006, backgrounds=tmp_path)[2])
    (tmp_path / "red.png").unlink()
    with pytest.raises(ValueError, match="backgrounds must be a folder with images"):
        synthetic_scenes(1, backgrounds=tmp_path)
    with pytest.raises(FileNotFoundError):
        synthetic_scenes(1, backgrounds=tmp_path / "none")


@pytest.mark.parametrize("shape", [(90, 200), (200, 90), (128, 128)])
def test_figures_on_a_photograph_are_whole_and_the_rest_stays(shape: tuple[int, int]) -> None:
    photo = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        before = photo.clone()
        image, target = figures_on_photograph(photo, 5, seed)
        assert torch.equal(photo, before)
        masks, (height, width) = target["masks"].bool(), shape
        assert len(masks) >= 3
        assert len(set(target["labels"].tolist())) == len(masks)
        for mask, box in zip(masks, target["boxes"].tolist(), strict=True):
            y, x = mask.nonzero().unbind(1)
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        side = min(shape)
        top, left = (height - side) // 2, (width - side) // 2
        inner = torch.zeros(shape, dtype=torch.bool)
        inner[top + 1 : top + side - 1, left + 1 : left + side - 1] = True
        assert not masks[:, ~inner].any(), "no figure is cut"
        outer = torch.ones(shape, dtype=torch.bool)
        outer[top : top + side, left : left + side] = False
        assert torch.equal(image[:, outer], photo[:, outer])
        assert (image != photo).any(0)[masks.any(0)].float().mean() > 0.95


@pytest.mark.parametrize("size", [16, 61, 128])
def test_targets_are_consistent(size: int) -> None:
    data = synthetic_scenes(30, size, seed=4, classes=("person", "ring", "square"))
    assert data.names == {1: "person", 2: "ring", 3: "square"}
    found, hidden = 0, 0
    for image, target in data:
        masks, boxes = target["masks"].bool(), target["boxes"]
        count = len(masks)
        assert image.shape == (3, size, size)
        assert image.dtype == boxes.dtype == torch.float32
        assert torch.equal((image * 255).round() / 255, image), "as an 8-bit file keeps it"
        assert 0.1 < image.std() + image.mean() < 1.5
        assert masks.shape == (count, size, size)
        assert (masks.sum(0) <= 1).all(), "visible parts do not overlap"
        assert torch.equal(target["area"], masks.flatten(1).sum(1).float())
        for box, mask in zip(boxes.tolist(), masks, strict=True):
            y, x = mask.nonzero().unbind(1)
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert target["keypoints"].shape == (count, 5, 3)
        for label, mask, points in zip(target["labels"].tolist(), masks, target["keypoints"], strict=True):
            assert points.any() == (data.names[label] == "person")
            for x, y, visible in points.tolist():
                if visible:
                    assert mask[int(y), int(x)] == (visible == 2)
                    hidden += visible == 1
        found += count
    assert found > 40
    assert hidden or size < 128
    if size == 128:
        assert len(set(np.concatenate([data.labels(index) for index in range(30)]).tolist())) == 3


def test_hands_and_feet_are_where_the_person_ends() -> None:
    """Seen from the front and upright, the left hand is right of the right one, the head above the feet."""
    for index in range(40):
        outline = figure("person", Random(0, index), 400, 60.0)
        assert outline.keypoints is not None
        head, left_hand, right_hand, left_foot, right_foot = outline.keypoints
        assert head[1] < min(left_foot[1], right_foot[1])
        assert left_foot[0] > right_foot[0] or left_hand[0] > right_hand[0]
        for x, y in outline.keypoints:
            row, column = int(y) - outline.rows.start, int(x) - outline.columns.start
            if 0 <= row < outline.distance.shape[0] and 0 <= column < outline.distance.shape[1]:
                assert outline.distance[row, column] > 0, "on the figure"


@pytest.mark.parametrize("name", SHAPES)
def test_outlines_have_the_areas_of_geometry(name: str) -> None:
    radius = 50.0
    areas = []
    for index in range(200):
        outline = figure(name, Random(1, index), 400, radius)
        rows, columns = outline.distance.shape
        if rows >= 150 and columns >= 150:  # not cut by the image's edge
            border = np.concatenate([outline.distance[[0, -1]].ravel(), outline.distance[:, [0, -1]].ravel()])
            assert (border < -3).all(), "the window holds the whole figure with its shadow"
            areas.append((outline.distance > 0).sum() / radius**2)
    pi = np.pi
    overlap = _lens(1, 0.8, 0.5)
    fifth = np.sin(pi / 5) * 1.1 * 0.48 / 2
    upright = {
        "circle": pi * 0.81, "square": 1.6**2, "triangle": 3 * np.sqrt(3) * 0.55**2, "star": 10 * fifth,
        "ring": pi * (0.94**2 - 0.46**2), "cross": 2 * 0.6 * 1.96 - 0.6**2, "moon": pi - overlap,
        "heart": 1.16**2 + pi * 0.58**2,
    }[name]  # fmt: skip
    # The height is 0.78 to 1 of the width, evenly.
    assert len(areas) > 30
    assert max(areas) <= upright * 1.01
    assert min(areas) >= upright * 0.77
    assert np.mean(areas) == pytest.approx(0.89 * upright, rel=0.03)


def _lens(first: float, second: float, apart: float) -> float:
    """Return the area that two circles share."""
    a = np.arccos((apart**2 + first**2 - second**2) / (2 * apart * first))
    b = np.arccos((apart**2 + second**2 - first**2) / (2 * apart * second))
    return float(first**2 * (a - np.sin(2 * a) / 2) + second**2 * (b - np.sin(2 * b) / 2))


def test_colour_does_not_tell_the_class() -> None:
    data = synthetic_scenes(150, 64, seed=9, classes=("circle", "star"))
    colours: dict[int, list[Tensor]] = {1: [], 2: []}
    for image, target in data:
        for label, mask in zip(target["labels"].tolist(), target["masks"].bool(), strict=True):
            colours[label].append(image[:, mask].mean(1))
    first, second = (torch.stack(colours[label]) for label in (1, 2))
    assert (first.mean(0) - second.mean(0)).abs().max() < 4 * first.std(0).max() * (2 / len(first)) ** 0.5


def test_names_of_generators() -> None:
    data = open_dataset("scenes", first_label=0, count=5, size=32)
    assert list(data.names) == [0, 1, 2, 3, 4]
    assert same(data[1], synthetic_scenes(5, 32, first_label=0)[1])
    held_out = open_dataset("scenes", "val")
    assert len(held_out) == 200
    assert len(open_dataset("scenes")) == 2000
    assert same(held_out[3], synthetic_scenes(200, seed=1_000_003)[3])
    people = open_dataset("people", count=4, size=64)
    assert people.names == {1: "person"}
    assert people.keypoint_names == ["head", "left_hand", "right_hand", "left_foot", "right_foot"]
    assert len(people.keypoint_sigmas) == 5
    assert summary(people).startswith("4 images, ")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="count must not be negative, got -1"):
        synthetic_scenes(-1)
    with pytest.raises(ValueError, match="size must be at least 16, got 15"):
        synthetic_scenes(1, 15)
    with pytest.raises(ValueError, match="seed must not be negative, got -2"):
        synthetic_scenes(1, seed=-2)
    with pytest.raises(ValueError, match="classes must be 1 to 8, got 9"):
        synthetic_scenes(1, classes=9)
    with pytest.raises(ValueError, match=r"classes must be different names out of circle, .*person, got"):
        synthetic_scenes(1, classes=["circle", "circle"])
    with pytest.raises(ValueError, match="most must be at least 1, got 0"):
        synthetic_scenes(1, most=0)


def test_an_image_is_drawn_fast() -> None:
    data = synthetic_scenes(100)
    start = time.process_time()
    for index in range(40):
        data[index]
    assert (time.process_time() - start) / 40 < 0.05, "5 ms on a quiet machine"


def test_counts_of_splits() -> None:
    for name in ("scenes", "people"):
        counts = [len(open_dataset(name, split, count=7, held_out=3)) for split in ("train", "val")]
        assert counts == [7, 3]
        assert len(open_dataset(name, "val", count=7)) == 7
