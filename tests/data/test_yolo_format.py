"""Data sets of YOLO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcv.data import YoloDataset, open_dataset

YAML = "path: {path}\ntrain: images/train\nval: [images/val, images/more]\nnames:\n  0: cat\n  1: dog\n"


pytest.importorskip("yaml")
SHAPE = "it must have a class and 4 numbers, or pairs for a polygon of at least 3 corners, got "


def write(folder: Path, yaml: str = YAML, **labels: str) -> Path:
    """Write images of 20x10, with the labels given for train/a and so on."""
    for split, name in (("train", "a"), ("train", "b"), ("val", "c"), ("more", "d")):
        for part in ("images", "labels"):
            (folder / "set" / part / split).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(folder / "set" / "images" / split / f"{name}.png")
        if name in labels:
            (folder / "set" / "labels" / split / f"{name}.txt").write_text(labels[name])
    path = folder / "data.yaml"
    path.write_text(yaml.format(path="set"))
    return path


def test_boxes(tmp_path: Path) -> None:
    path = write(tmp_path, a="1 0.5 0.5 0.5 0.2\n\n0 0.95 0.5 0.2 1.0\n0 1 1 0 0\n", d="1 .25 .5 .5 1\n")
    data = open_dataset(path, first_label=0)
    assert isinstance(data, YoloDataset)
    assert data.names == {0: "cat", 1: "dog"}
    assert data.category_ids == {0: 0, 1: 1}
    assert len(data) == 2
    image, target = data[0]
    assert image.shape == (3, 10, 20)
    np.testing.assert_allclose(target["boxes"], [[5, 4, 15, 6], [17, 0, 20, 10]], rtol=1e-6)
    assert target["labels"].tolist() == [1, 0]
    np.testing.assert_allclose(target["area"], [20, 30], rtol=1e-6)
    assert "masks" not in target
    assert data.dropped == {"without area in the image": 1}
    assert data[1][1]["boxes"].shape == (0, 4)  # without a label file
    val = open_dataset(path, "val")
    assert [record.path.name for record in val.records] == ["c.png", "d.png"]  # type: ignore[attr-defined]
    assert val[1][1]["boxes"].tolist() == [[0, 0, 10, 10]]
    assert val[1][1]["labels"].tolist() == [2]


def test_polygons(tmp_path: Path) -> None:
    data = YoloDataset(write(tmp_path, a="0 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8\n"))
    _, target = data[0]
    np.testing.assert_allclose(target["boxes"], [[2, 2, 10, 8]], rtol=1e-6)
    expected = np.zeros((1, 10, 20), np.uint8)
    expected[0, 2:8, 2:10] = 1
    assert np.array_equal(target["masks"], expected)
    assert data[1][1]["masks"].shape == (0, 10, 20)
    assert "masks" not in YoloDataset(tmp_path / "data.yaml", masks=False)[0][1]
    (tmp_path / "set" / "labels" / "train" / "b.txt").write_text("0 .5 .5 .1 .1")
    assert "masks" not in YoloDataset(tmp_path / "data.yaml")[0][1]
    with pytest.raises(ValueError, match="masks must be False: 1 of 2 objects have none"):
        YoloDataset(tmp_path / "data.yaml", masks=True)


def test_keypoints(tmp_path: Path) -> None:
    yaml = YAML + "kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\n"
    data = YoloDataset(write(tmp_path, yaml, a="0 .5 .5 1 1 .1 .2 2 .3 .4 1 0 0 0\n"))
    _, target = data[0]
    np.testing.assert_allclose(target["keypoints"], [[[2, 2, 2], [6, 4, 1], [0, 0, 0]]], rtol=1e-6)
    assert target["boxes"].tolist() == [[0, 0, 20, 10]]
    assert data.keypoint_pairs == [(1, 2)]
    assert data.keypoint_names == ["0", "1", "2"]


def test_folders_and_lists_without_yaml(tmp_path: Path) -> None:
    write(tmp_path, a="2 .5 .5 .5 .5", d="0 .5 .5 .5 .5")
    folder = tmp_path / "set"
    data = open_dataset(folder)
    assert data.names == {1: "0", 2: "1", 3: "2"}
    (folder / "classes.txt").write_text("x\ny\nz\n")
    assert open_dataset(folder).names == {1: "x", 2: "y", 3: "z"}
    assert open_dataset(folder, names=["p", "q", "r"]).names == {1: "p", 2: "q", 3: "r"}
    with pytest.raises(FileNotFoundError, match=r"the folders of .*images are: more, train, val"):
        open_dataset(folder, "test")
    (folder / "listed.txt").write_text("./images/more/d.png\nimages/train/a.png\n")
    path = tmp_path / "list.yaml"
    path.write_text("path: set\ntrain: listed.txt\nnames: [a, b, c]\nnc: 3\n")
    assert [target["labels"].tolist() for _, target in YoloDataset(path)] == [[1], [3]]
    (folder / "listed.txt").write_text("./images/more/d.png\nnone.png\n")
    with pytest.raises(FileNotFoundError, match=r"line 2 of .*listed.txt: there is no image"):
        YoloDataset(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .5", SHAPE + "4 numbers"),
        ("0 .5 .5 .5 .5 .9", SHAPE + "6 numbers"),
        ("2 .5 .5 .5 .5", "the class must be an integer from 0 to 1, got 2"),
        ("-1 .5 .5 .5 .5", "the class must be an integer from 0 to 1, got -1"),
        ("0.5 .5 .5 .5 .5", "the class must be an integer from 0 to 1, got 0.5"),
        ("0 10 5 4 4", "lengths must be fractions of the image, 0 to 1, got 10"),
        ("0 .5 .5 .5 nan", "it must have finite numbers, got [0.0, 0.5, 0.5, 0.5, NaN]"),
        ("cat .5 .5 .5 .5", "it must be numbers, got 'cat .5 .5 .5 .5'"),
    ],
)  # fmt: skip
def test_wrong_lines(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, a=f"0 .5 .5 .5 .5\n{line}\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        YoloDataset(path)
    assert str(error.value) == f"line 2 of {tmp_path / 'set' / 'labels' / 'train' / 'a.txt'}: {message}"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [a\n", "is not valid YAML"),
        ("names: [a, b]\n", "must have an entry train, got none"),
        ("[1]\n", "must hold names, train and val, got [1]"),
        ("train: images\n", "names must be a list of names or numbers with names, got nothing"),
        ("train: images\nnames: {0: a, 2: b}\n", "names must be numbered from 0 without gaps, got [0, 2]"),
        ("train: images\nnames: [a, b]\nnc: 3\n", "nc must be the number of names, 2, got 3"),
        ("train: 3\nnames: [a]\n", "train must be a folder, a file or a list of them, got 3"),
        ("path: nowhere\ntrain: images\nnames: [a]\n", "there is no folder or file"),
        ("path: set\ntrain: labels\nnames: [a]\n", "train must have at least one image, got none in"),
        ("path: set\ntrain: images/val\nnames: [a]\n", "no image of train has labels; looked for"),
        ("path: set\ntrain: [images/val, images/val]\nnames: [a]\n", "train must have each image once, got"),
        ("train: 2001-99-99\nnames: [a]\n", "is not valid YAML"),
        ("path: set\ntrain: images\nnames: [a]\nkpt_shape: [3]\n", "kpt_shape must have 2 numbers, got 1"),
    ],
)  # fmt: skip
def test_wrong_yaml(tmp_path: Path, yaml: str, message: str) -> None:
    path = write(tmp_path, a="0 .5 .5 .5 .5\n")
    path.write_text(yaml)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        YoloDataset(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a data set that is known: looked for a json in .*annotations"):
        open_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no generator of that name \(scenes, people, solids, streets\)"):
        open_dataset(tmp_path / "none")
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ValueError, match=r"x.csv must be a .json of COCO, a .yaml of YOLO or a folder"):
        open_dataset(tmp_path / "x.csv")
    (tmp_path / "instances_val2017.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"there is no json of train in .*: .*instances_val2017.json"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"instances_val2017.json must have a list of images"):
        open_dataset(tmp_path, "val")
    options = 'the options of "scenes" are count, size, seed, classes, most, held_out, backgrounds, got colour'
    with pytest.raises(ValueError, match=options):
        open_dataset("scenes", colour=1)
    with pytest.raises(ValueError, match="the options of a COCO json are images, masks, got size"):
        open_dataset(tmp_path / "instances_val2017.json", size=3)
