"""Detections of trained detectors before and after optimize(): Winograd's filtering and folding move nothing."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv.data import synthetic_scenes
from fastcv.models import load_model
from fastcv.models.detection import create, generalized_rcnn
from fastcv.models.yolo import yolov3_tiny
from fastcv.nn import Conv2d

FOLDER = os.environ.get("FASTCV_YOLOV3_TINY")
MOVED, SCORE = 0.05, 1e-3  # pixels; of a score


def assert_unmoved(before: list[dict[str, Tensor]], after: list[dict[str, Tensor]], threshold: float) -> int:
    """Every detection whose score is away from the threshold has a partner of its class. Returns how many there are.

    Rows of nearly equal scores may change places, so partners are looked for.
    """
    count = 0
    for old, new in zip(before, after, strict=True):
        for a, b in ((old, new), (new, old)):
            for label, box, score in zip(a["labels"], a["boxes"], a["scores"], strict=True):
                if score < threshold + SCORE:
                    continue
                near = (b["labels"] == label) & ((b["scores"] - score).abs() <= SCORE)
                assert bool(((b["boxes"] - box).abs().amax(1) <= MOVED)[near].any()), (label, box, score)
                count += 1
    return count // 2


def found_before_and_after(model: Any, images: list[Tensor]) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    with torch.inference_mode():
        before = model(images)
    model.optimize()
    with torch.inference_mode():
        return before, model(images)


def tiles(model: torch.nn.Module) -> set[int]:
    """Of the convolutions that have run."""
    return {
        tile
        for module in model.modules()
        if isinstance(module, Conv2d) and module._packed is not None
        for tile in module._packed.packed or {}
    }


@pytest.mark.parametrize("name", ["maskrcnn_scenes", "yolov2_scenes"])
def test_shipped_detectors(name: str) -> None:
    data = synthetic_scenes(24, 128, 1_000_003)
    images = [data[index][0] for index in range(len(data))]
    model: Any = load_model(name).eval()
    before, after = found_before_and_after(model, images)
    threshold = getattr(model, "score_thresh", None) or getattr(model.roi_heads, "score_thresh", 0.05)
    assert assert_unmoved(before, after, threshold) >= 24
    assert 4 in tiles(model)
    if "masks" in before[0]:
        for old, new in zip(before, after, strict=True):
            if torch.equal(old["labels"], new["labels"]):
                changed = (old["masks"] >= 0.5) != (new["masks"] >= 0.5)
                assert int(changed.sum()) <= 1e-4 * changed.numel()


@pytest.mark.skipif(FOLDER is None, reason="FASTCV_YOLOV3_TINY names no folder with published weights")
def test_published_weights() -> None:
    assert FOLDER is not None
    data = synthetic_scenes(8, 416, 1_000_003)
    images = [data[index][0] for index in range(len(data))]
    model: Any = yolov3_tiny(Path(FOLDER) / "yolov3-tiny.weights", score_thresh=0.02)
    model.eval()
    before, after = found_before_and_after(model, images)
    assert assert_unmoved(before, after, 0.02) >= 8
    assert 4 in tiles(model)


@pytest.mark.parametrize(
    ("dtype", "products", "slow"),
    [
        (torch.bfloat16, "instruction", False),
        (torch.bfloat16, "float32", True),
        (torch.bfloat16, "emulated", True),
        (torch.float16, "instruction", True),
        (torch.float32, "float32", False),
        (None, "float32", False),
    ],
)
def test_a_dtype_of_no_use_is_said(monkeypatch: pytest.MonkeyPatch, dtype: Any, products: str, slow: bool) -> None:
    monkeypatch.setattr(generalized_rcnn, "build_info", lambda: {"bf16_products": products})
    model = create("fasterrcnn_tiny_fpn", num_classes=2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.optimize(dtype)
    texts = [str(each.message) for each in said]
    assert [f"{str(dtype)[6:]} is slower than float32 on this CPU" in text for text in texts] == [True] * slow
