"""Data sets of COCO: values against pycocotools and Pillow's polygons, errors, and the round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from fastcv.data import CocoDataset, coco_annotations, open_dataset, summary, synthetic_scenes, write_coco

mask_coder = pytest.importorskip("pycocotools.mask")
from pycocotools.coco import COCO  # noqa: E402

WIDTH, HEIGHT = 40, 30
POLYGON = [4.0, 3.0, 30.0, 3.0, 30.0, 20.0, 4.0, 20.0]


def content() -> dict[str, Any]:
    """Two images, categories 3 and 90, an object of each form of masks."""
    disk = np.hypot(*np.mgrid[-10:20, -12:28]) < 8
    runs = mask_coder.encode(np.asfortranarray(disk.astype(np.uint8)))
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8)
    crowd[5:9, 7:30] = 1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], crowd.ravel(order="F"), [0]])))
    counts = np.diff(np.concatenate([[0], edges, [crowd.size]])).tolist()
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 5, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [
            {"id": 90, "name": "disk", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2], [1, 3]]},
            {"id": 3, "name": "box"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 3, 26, 17], "segmentation": [POLYGON], "area": 442},
            {"id": 2, "image_id": 7, "category_id": 90, "bbox": [4.5, 2.5, 15, 15], "area": 190.5,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()},
             "keypoints": [12, 10, 2, 9, 8, 1, 0, 0, 0]},
            {"id": 9, "image_id": 7, "category_id": 3, "bbox": [7, 5, 23, 4], "iscrowd": 1, "area": 92,
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
        ],
    }  # fmt: skip


def written(folder: Path, what: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT), (255, 0, 51)).save(folder / name)
    return path


def test_values_are_those_of_pycocotools(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    data = CocoDataset(path)
    assert data.names == {1: "box", 2: "disk"}
    assert data.category_ids == {1: 3, 2: 90}
    assert data.keypoint_names == ["nose", "left_eye", "right_eye"]
    assert data.keypoint_pairs == [(1, 2)]
    assert data.skeleton == [(0, 1), (0, 2)]
    assert len(data) == 2
    image, target = data[0]
    assert image.shape == (3, HEIGHT, WIDTH)
    torch.testing.assert_close(image[:, 3, 4], torch.tensor([1.0, 0.0, 0.2]))
    assert target["boxes"].tolist() == [[4, 3, 30, 20], [4.5, 2.5, 19.5, 17.5], [7, 5, 30, 9]]
    assert target["labels"].tolist() == [1, 2, 1]
    assert target["image_id"] == 7
    assert target["area"].tolist() == [442, 190.5, 92]
    assert target["iscrowd"].tolist() == [0, 0, 1]
    peer = COCO(str(path))
    for mask, annotation in zip(target["masks"].numpy(), peer.loadAnns(peer.getAnnIds(7)), strict=True):
        assert np.array_equal(mask, peer.annToMask(annotation))
    assert target["masks"].dtype is torch.uint8
    drawing = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(drawing).polygon([4, 3, 29, 3, 29, 19, 4, 19], fill=1)
    assert np.array_equal(target["masks"][0].numpy(), np.array(drawing))
    assert target["keypoints"][1].tolist() == [[12, 10, 2], [9, 8, 1], [0, 0, 0]]
    assert not target["keypoints"][[0, 2]].any()


def test_an_image_without_objects(tmp_path: Path) -> None:
    _, target = CocoDataset(written(tmp_path, content()))[1]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in target.items() if name != "image_id"}
    assert shapes == {
        "boxes": ((0, 4), torch.float32), "labels": ((0,), torch.int64), "area": ((0,), torch.float32),
        "iscrowd": ((0,), torch.int64), "masks": ((0, HEIGHT, WIDTH), torch.uint8),
        "keypoints": ((0, 3, 3), torch.float32),
    }  # fmt: skip


def test_boxes_are_clipped_and_empty_ones_counted(tmp_path: Path) -> None:
    what = content()
    what["annotations"] = [
        {"id": number, "image_id": 5, "category_id": 3, "bbox": box}
        for number, box in enumerate([[-5, -5, 15, 10], [30, 20, 50, 50], [3, 3, 0, 5], [41, 3, 5, 5], [3, 3, 1e-9, 4]])
    ]
    data = CocoDataset(written(tmp_path, what), first_label=0)
    _, target = data[1]
    assert target["boxes"].tolist() == [[0, 0, 10, 5], [30, 20, 40, 30]]
    assert target["area"].tolist() == [50, 100]
    assert target["labels"].tolist() == [0, 0]
    assert "masks" not in target
    assert data.dropped == {"without area in the image": 3}
    assert summary(data).splitlines() == [
        "2 images, 1 without objects, 2 objects: 2 box, 0 disk", "left out: 3 without area in the image",
    ]  # fmt: skip
    what["annotations"][0]["segmentation"] = [[1, 1, 5, 5]]
    assert CocoDataset(written(tmp_path, what)).dropped["with polygons of less than three corners"] == 1


def change(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(what: dict[str, Any]) -> None:
        place: Any = what
        for step in path[:-1]:
            place = place[step]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("annotations", 1, "bbox", to=[1, 2, 3]), "annotations[1]: bbox must have 4 numbers, got 3"),
        (change("annotations", 0, "bbox", to=None), "annotations[0]: bbox must be a list of numbers, got nothing"),
        (change("annotations", 0, "bbox", to=[1, 2, float("nan"), 3]),
         "annotations[0]: bbox must have finite numbers, got [1, 2, NaN, 3]"),
        (change("annotations", 0, "bbox", to=[1, 2, -3, 3]),
         "annotations[0]: bbox must be x, y, width, height with sizes that are not negative, got [1, 2, -3, 3]"),
        (change("annotations", 2, "category_id", to=4),
         "annotations[2]: category_id must be the id of a category, got 4"),
        (change("annotations", 2, "image_id", to=4), "annotations[2]: image_id must be the id of an image, got 4"),
        (change("annotations", 2, "id", to=1),
         "annotations[2]: id must differ from the other annotations', got 1 again"),
        (change("images", 1, "id", to=7), "images[1]: id must differ from the other images', got 7 again"),
        (change("images", 1, "id", to=True), "images[1]: id must be an integer, got True"),
        (change("categories", 1, "id", to=90),
         "categories[1]: id must differ from the other categories', got 90 again"),
        (change("images", 0, "width", to=0), "images[0]: width and height must be 1 to 1048575, got 0 and 30"),
        (change("annotations", 0, to=3), "annotations[0]: it must be an object, got 3"),
        (change("annotations", 0, "iscrowd", to=2), "annotations[0]: iscrowd must be 0 or 1, got 2"),
        (change("annotations", 0, "area", to=-1), "annotations[0]: area must be a number that is not negative, got -1"),
        (change("annotations", 1, "keypoints", to=[1, 2]), "annotations[1]: keypoints must have 9 numbers, got 2"),
        (change("annotations", 1, "keypoints", to=[1, 2, 3] * 3),
         "annotations[1]: keypoints must have 0, 1 or 2 as each third number, got [3.0, 3.0, 3.0]"),
        (change("annotations", 0, "segmentation", to=[[1, 2, 3, 4, 5, 6, 7]]),
         "annotations[0]: segmentation[0] must have pairs of x and y, got 7 numbers"),
        (change("annotations", 2, "segmentation", "counts", to=[5]),
         "annotations[2]: segmentation must have counts of 1200 pixels in all, got 5"),
        (change("annotations", 1, "segmentation", "counts", to="oooo"),
         "annotations[1]: segmentation must have counts in COCO's compressed form, got a string that ends too early"),
        (change("annotations", 1, "segmentation", "size", to=[40, 30]),
         "annotations[1]: segmentation must have size [30, 40], got [40, 30]"),
        (change("annotations", 0, "segmentation", to="x"),
         "annotations[0]: segmentation must be a list of polygons or an object with size and counts, got 'x'"),
        (change("images", to=[]), "FILE must have at least one image, got none"),
        (change("images", to=None), "FILE must have a list of images, got nothing"),
    ],
)  # fmt: skip
def test_wrong_entries(tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str) -> None:
    what = content()
    edit(what)
    path = written(tmp_path, what)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        CocoDataset(path)
    assert str(error.value) == message.replace("]: ", f"] of {path}: ", 1).replace("FILE", str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, '{"images": [')
    with pytest.raises(ValueError, match=r"instances.json is not valid json: Expecting value: line 1 column 13"):
        CocoDataset(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not valid json"):
        CocoDataset(path)
    path.write_bytes(b'{"images": "\xff"}')
    with pytest.raises(ValueError, match="must be a text in UTF-8, got byte 0xff at 12"):
        CocoDataset(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CocoDataset(tmp_path / "nowhere.json")
    data = CocoDataset(written(tmp_path, content()))
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png"):
        data[0]
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png must have the annotated size 40x30, got 30x40"):
        data[0]
    (tmp_path / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        data[1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no image a.png of .* tell the folder with images="):
        CocoDataset(tmp_path / "instances.json")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        CocoDataset(tmp_path / "instances.json", images=tmp_path / "none")


def test_images_are_turned_as_exif_says(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    picture = Image.new("RGB", (HEIGHT, WIDTH))
    picture.putpixel((0, WIDTH - 1), (255, 255, 255))  # bottom left becomes top left
    picture.save(tmp_path / "a.png", exif=exif)
    image, _ = CocoDataset(path)[0]
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image[0].nonzero().tolist() == [[0, 0]]


def test_round_trip(tmp_path: Path) -> None:
    data = synthetic_scenes(6, size=48, seed=2, classes=("star", "person"), first_label=0)
    path = write_coco(data, tmp_path / "deep" / "set", split="val")
    again = open_dataset(tmp_path / "deep" / "set", split="val", first_label=0)
    assert again.names == data.names
    assert again.keypoint_names == data.keypoint_names
    assert again.keypoint_pairs == data.keypoint_pairs
    assert again.skeleton == data.skeleton
    assert len(again) == 6
    for (image, target), (other, read) in zip(data, again, strict=True):
        assert torch.equal(image, other)
        assert target.keys() == read.keys()
        for name, value in target.items():
            assert value == read[name] if name == "image_id" else torch.equal(value, read[name]), name
    assert len(COCO(str(path)).anns) == sum(len(target["labels"]) for _, target in data)
    source = CocoDataset(written(tmp_path, content()))  # gaps between category ids, crowds, polygons
    write_coco(source, tmp_path / "copy")
    copy = open_dataset(tmp_path / "copy")
    assert copy.category_ids == {1: 3, 2: 90}  # type: ignore[attr-defined]
    for name, value in source[0][1].items():
        assert value == 7 if name == "image_id" else torch.equal(value, copy[0][1][name]), name
    assert coco_annotations(source)["annotations"] == coco_annotations(copy)["annotations"]
    with pytest.raises(FileExistsError, match="exists already; remove it or write another split"):
        write_coco(source, tmp_path / "copy")
    with pytest.raises(ValueError, match=r"split must be a name of letters and digits, got '\.\./x'"):
        write_coco(source, tmp_path, split="../x")


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_failed_writing(tmp_path: Path, there: bool) -> None:
    class Broken(CocoDataset):
        def __getitem__(self, index: int) -> Any:
            if index == 1:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    source = Broken(written(tmp_path, content()))
    folder = tmp_path / "new" / "set"
    if there:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        write_coco(source, folder)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.parent != tmp_path)
    assert left == (["new/set", "new/set/notes.txt"] if there else [])
    assert (tmp_path / "new").exists() == there
