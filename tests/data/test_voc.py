"""Data sets of Pascal VOC."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fastcv.class_names import VOC_20
from fastcv.data import VocDataset, open_dataset

OBJECT = """
    <object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
    <bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""
DOG = OBJECT.format(name="dog", difficult=0, box=(1, 1, 20, 10))
HARD_CAT = OBJECT.format(name="cat", difficult=1, box=(3, 4, 3, 4))


def write(folder: Path, name: str, objects: str, size: tuple[int, int] = (20, 10)) -> Path:
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (0, 255, 0)).save(folder / "JPEGImages" / f"{name}.png")
    path = folder / "Annotations" / f"{name}.xml"
    width, height = size
    path.write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )
    with (folder / "ImageSets" / "Main" / "train.txt").open("a") as file:
        file.write(f"{name}  1\n")
    return path


def test_pixels_count_from_one(tmp_path: Path) -> None:
    write(tmp_path, "2007_000032", DOG + HARD_CAT)
    write(tmp_path, "2007_000001", "")
    data = open_dataset(tmp_path)
    assert isinstance(data, VocDataset)
    assert list(data.names) == list(range(1, 21))
    assert list(data.names.values()) == list(VOC_20.values())
    image, target = data[0]
    assert image.shape == (3, 10, 20)
    assert image[:, 0, 0].tolist() == [0, 1, 0]
    assert target["boxes"].tolist() == [[0, 0, 20, 10], [2, 3, 3, 4]]  # the whole image, and one pixel
    assert [data.names[label] for label in target["labels"].tolist()] == ["dog", "cat"]
    assert target["iscrowd"].tolist() == [0, 1]
    assert target["area"].tolist() == [200, 1]
    assert target["image_id"] == 0
    assert data[1][1]["boxes"].shape == (0, 4)
    assert VocDataset(tmp_path, difficult="keep")[0][1]["iscrowd"].tolist() == [0, 0]
    without = VocDataset(tmp_path, difficult="drop")
    assert len(without[0][1]["labels"]) == 1
    assert without.dropped == {"marked as difficult": 1}


def test_other_classes_and_boxes_outside(tmp_path: Path) -> None:
    boxes = [(-4.0, 2, 6, 30), (25, 1, 30, 5)]
    write(tmp_path, "a", "".join(OBJECT.format(name="zebra", difficult=0, box=box) for box in boxes))
    write(tmp_path, "b", OBJECT.format(name="ant", difficult=0, box=(1, 1, 2, 2)))
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("a\n\n")
    data = VocDataset(tmp_path, "val", first_label=0)
    assert data.names == {0: "ant", 1: "zebra"}  # all classes of the folder, those of other splits too
    assert len(data) == 1
    assert data[0][1]["boxes"].tolist() == [[0, 1, 6, 10]]
    assert data.dropped == {"without area in the image": 1}
    assert VocDataset(tmp_path, "val", names=["zebra", "x"])[0][1]["labels"].tolist() == [1]
    with pytest.raises(ValueError, match=r"object\[0\] of .*a.xml: name must be one of \[\"ant\"\], got 'zebra'"):
        VocDataset(tmp_path, "val", names=["ant"])
    (tmp_path / "Annotations" / "c.xml").write_text("<annotation/>")
    with pytest.raises(FileNotFoundError, match=r"the lists of .*Main are: train, val"):
        VocDataset(tmp_path, "test")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<ymin>1</ymin><xmax>20", "<ymin>1</ymin><xmax>", "xmax must be a text, got nothing"),
        ("<xmax>20", "<xmax>nan", "object[0] of {}: xmax must be a number, got 'nan'"),
        ("<xmax>20", "<xmax>0", "object[0] of {}: bndbox must have xmin <= xmax and ymin <= ymax, got 1, 1, 0, 10"),
        ("<name>dog</name>", "", "object[0] of {}: name must be a text, got nothing"),
        ("<difficult>0", "<difficult>2", "object[0] of {}: difficult must be 0 or 1, got '2'"),
        ("<width>20", "<width>0", "{}: size must be at least 1x1, got 0x10"),
        ("<size>", "<size><width>1e99</width>", "{}: width must be a number, got '1e99'"),
        ("</annotation>", "", "{} is not valid XML: no element found"),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'b'>]><annotation>&b;", "{} must not declare a document type"),
        ("<annotation>", "<annotation>" + "<a>" * 40, "{} must have elements at most 32 deep"),
        ("<annotation>", "<?xml version='1.0' encoding='x'?><annotation>", "{} is not valid XML: unknown encoding"),
    ],
)  # fmt: skip
def test_wrong_entries(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, "a", DOG)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        VocDataset(tmp_path)
    assert message.format(path) in str(error.value)


def test_entities_are_refused_in_other_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, "a", DOG)
    path.write_bytes("<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a []><annotation/>".encode("utf-16"))
    with pytest.raises(ValueError, match="must not declare a document type or entities"):
        VocDataset(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there are no annotations"):
        VocDataset(tmp_path)
    write(tmp_path, "a", DOG)
    listed = tmp_path / "ImageSets" / "Main" / "train.txt"
    listed.write_text("a\nb\n")
    with pytest.raises(FileNotFoundError, match=r"there is no annotation .*b\.xml, which train lists"):
        VocDataset(tmp_path)
    listed.write_text("a\na\n")
    with pytest.raises(ValueError, match="must list each image once, got 'a' again"):
        VocDataset(tmp_path)
    listed.write_text("\n")
    with pytest.raises(ValueError, match="must list at least one image, got none"):
        VocDataset(tmp_path)
    listed.unlink()
    (tmp_path / "ImageSets" / "Main").rmdir()
    assert torch.equal(VocDataset(tmp_path)[0][0], torch.tensor([0.0, 1, 0])[:, None, None].expand(3, 10, 20))
    (tmp_path / "JPEGImages" / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no image .*a with an ending of .jpg .jpeg .png"):
        VocDataset(tmp_path)
    with pytest.raises(ValueError, match="difficult must be crowd, keep or drop, got 'x'"):
        VocDataset(tmp_path, difficult="x")
