"""Damaged annotation files: a readable error or a data set, never anything else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fastcv.data import CocoDataset, VocDataset, YoloDataset, coco_annotations, synthetic_scenes

pytest.importorskip("yaml")
pytest.importorskip("pycocotools")
SEEDS = 150
SPLICES = [
    b"", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"\xff", b"\x00",
    b"99999999999999999999", b"[[[[", b"&a;", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&x", b"*x",
    b"!!python/object:os.system ", b"../", b"\n", b"- ",
]  # fmt: skip


def mutated(data: bytes, seed: int) -> bytes:
    """Return data with one to four changes: bytes replaced, cut out, doubled, or something put in."""
    draw = random.Random(seed)
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(changed) + 1)
        end = min(len(changed), start + draw.choice([0, 1, 1, 2, 5, 40]))
        kind = draw.randrange(4)
        if kind == 0:
            changed[start:end] = bytes(draw.randrange(256) for _ in range(end - start))
        elif kind == 1:
            changed[start:end] = b""
        elif kind == 2:
            changed[start:end] = changed[start:end] * 2
        else:
            changed[start:end] = draw.choice(SPLICES)
    return bytes(changed)


def coco(folder: Path) -> tuple[Path, Callable[[], object]]:
    content = coco_annotations(synthetic_scenes(2, 24, seed=3, classes=("person", "star")))
    content["annotations"][0]["segmentation"] = [[1, 2, 20, 2, 20, 17.5]]
    content["annotations"][1]["segmentation"] = {"size": [24, 24], "counts": [100, 20, 456]}
    for image in content["images"]:
        Image.new("RGB", (24, 24)).save(folder / image["file_name"])
    path = folder / "instances.json"
    path.write_text(json.dumps(content))

    def read() -> None:
        data = CocoDataset(path)
        for record in data.records:
            data._target(record, record.size[1], record.size[0]) if max(record.size or (9999,)) < 9999 else None

    return path, read


def voc(folder: Path) -> tuple[Path, Callable[[], object]]:
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir()
    Image.new("RGB", (20, 10)).save(folder / "JPEGImages" / "a.jpg")
    path = folder / "Annotations" / "a.xml"
    path.write_text(
        "<?xml version='1.0' encoding='utf-8'?>\n<annotation><size><width>20</width><height>10</height></size><object>"
        "<name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
        "</bndbox></object></annotation>"
    )
    return path, lambda: list(VocDataset(folder))


def voc_list(folder: Path) -> tuple[Path, Callable[[], object]]:
    voc(folder)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    path = folder / "ImageSets" / "Main" / "train.txt"
    path.write_text("a 1\n")
    return path, lambda: list(VocDataset(folder))


def yolo_yaml(folder: Path) -> tuple[Path, Callable[[], object]]:
    Image.new("RGB", (20, 10)).save(folder / "a.png")
    (folder / "a.txt").write_text("0 .5 .5 .2 .2 .1 .2 2 .3 .4 1\n")
    path = folder / "data.yaml"
    path.write_text("path: .\ntrain: [a.png]\nnames: {0: cat, 1: dog}\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnc: 2\n")
    return path, lambda: list(YoloDataset(path))


def yolo_labels(folder: Path) -> tuple[Path, Callable[[], object]]:
    yolo_yaml(folder)
    (folder / "data.yaml").write_text("train: a.png\nnames: [cat, dog]\n")
    path = folder / "a.txt"
    path.write_text("0 0.5 0.5 0.2 0.2\n1 .1 .1 .9 .1 .9 .9 .1 .9\n")
    return path, lambda: list(YoloDataset(folder / "data.yaml"))


@pytest.mark.parametrize("make", [coco, voc, voc_list, yolo_yaml, yolo_labels], ids=lambda make: make.__name__)
def test_damaged_files(tmp_path: Path, make: Callable[[Path], tuple[Path, Callable[[], object]]]) -> None:
    path, read = make(tmp_path)
    read()
    good, errors = path.read_bytes(), []
    for seed in range(SEEDS):
        path.write_bytes(mutated(good, seed))
        try:
            read()
        except (ValueError, OSError) as error:
            errors.append(str(error))
        except BaseException as error:
            raise AssertionError(f"{seed}: {path.read_bytes()!r}") from error
    assert len(errors) > SEEDS / 10
    assert not [text for text in errors if not text or "\n" in text.strip() or len(text) > 1000]
