"""Names of classes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastcv.class_names import COCO_80, COCO_91, VOC_20

FOLDER = os.environ.get("FASTCV_YOLOV3_TINY")
DARKNET = {  # what Darknet's list calls otherwise
    "aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv",
}  # fmt: skip


def test_numbers() -> None:
    assert list(COCO_80) == list(range(80))
    assert list(VOC_20) == list(range(20))
    assert (COCO_91[1], COCO_91[90], COCO_80[0], COCO_80[79]) == ("person", "toothbrush", "person", "toothbrush")
    assert len(COCO_91) == 81
    assert {DARKNET.get(name, name) for name in VOC_20.values()} < set(COCO_80.values())


@pytest.mark.skipif(FOLDER is None, reason="FASTCV_YOLOV3_TINY must name a folder with coco.names")
def test_order_is_that_of_the_published_weights() -> None:
    names = (Path(str(FOLDER)) / "coco.names").read_text().split("\n")[:80]
    assert [DARKNET.get(name, name) for name in names] == list(COCO_80.values())


def test_order_is_that_of_torchvision() -> None:
    meta = pytest.importorskip("torchvision.models.detection").FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta
    theirs = {i: name for i, name in enumerate(meta["categories"]) if name not in ("__background__", "N/A")}
    assert theirs == {i: name for i, name in COCO_91.items() if i}
