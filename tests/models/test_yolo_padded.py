"""YOLO's decoding and suppression in fixed sizes, against the table of all boxes and scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv.models.yolo import YOLO, DarknetNetwork, make_config, yolov2_tiny, yolov3_tiny
from fastcv.ops import batched_nms

CONV = {"size": 1, "stride": 1, "activation": "linear"}
HEADS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "yolo": [
        ("conv", {"filters": 16, **CONV}),
        ("yolo", {"anchors": "10,14, 23,27, 37,58", "mask": "1,2", "num": 3, "classes": 3, "scale_x_y": 1.2}),
        ("route", {"layers": 0}),
        ("maxpool", {"size": 2, "stride": 2}),
        ("yolo", {"anchors": "10,14, 23,27", "num": 2, "classes": 3}),
    ],
    "region": [
        ("conv", {"filters": 16, **CONV}),
        ("region", {"anchors": "1,2, 3,1.5", "num": 2, "classes": 3, "softmax": 1}),
    ],
    "detection": [
        ("maxpool", {"size": 8, "stride": 8, "padding": 0}),
        ("connected", {"output": 4 * 4 * 13, "activation": "logistic"}),
        ("detection", {"side": 4, "num": 2, "classes": 3, "coords": 4, "sqrt": 1}),
    ],
}


def detector(kind: str, **options: Any) -> YOLO:
    torch.manual_seed(0)
    net: tuple[str, dict[str, Any]] = ("net", {"height": 32, "width": 64, "channels": 3})
    model = YOLO(DarknetNetwork(make_config([net, *HEADS[kind]])), **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 50, 70, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", list(HEADS))
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.9])
def test_equals_the_table_of_all_scores(kind: str, threshold: float) -> None:
    """Of thousands of candidates or none."""
    model = detector(kind, score_thresh=threshold, detections_per_img=20, nms_thresh=0.3)
    batch, placements = model.preprocess(list(images()))
    boxes, scores = model.decode(model.network(batch))
    found = model(images())
    assert sum(len(image["boxes"]) for image in found) > 10 or threshold == 0.9
    for index, (image, placement) in enumerate(zip(found, placements, strict=True)):
        row, label = (scores[index] >= threshold).nonzero(as_tuple=True)
        values = scores[index][row, label]
        kept = batched_nms(boxes[index][row], values, label, 0.3)
        inside = placement.boxes_in_image(boxes[index][row])
        kept = kept[(inside[kept, 2:] > inside[kept, :2]).all(1)][:20]
        assert image["labels"].tolist() == label[kept].tolist()
        torch.testing.assert_close(image["scores"], values[kept])
        torch.testing.assert_close(image["boxes"], inside[kept], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", list(HEADS))
def test_padded_results_are_those_of_forward(kind: str) -> None:
    model = detector(kind, score_thresh=0.2, detections_per_img=30)
    padded = model.forward_padded(images())
    assert {name: tuple(value.shape) for name, value in padded.items()} == {
        "boxes": (3, 30, 4), "labels": (3, 30), "scores": (3, 30), "count": (3,),
    }  # fmt: skip
    for index, (image, count) in enumerate(zip(model(images()), padded["count"].tolist(), strict=True)):
        assert len(image["boxes"]) == count > 0
        for name, value in image.items():
            torch.testing.assert_close(padded[name][index, :count], value, rtol=1e-5, atol=1e-4)
            assert not padded[name][index, count:].any()


@torch.no_grad()
def test_padded_detection_compiles_to_one_graph() -> None:
    model = detector("yolo", score_thresh=0.2, detections_per_img=30, candidates_per_img=100)
    expected = model.forward_padded(images())
    compiled = torch.compile(model.forward_padded, backend="aot_eager", fullgraph=True)
    for name, value in compiled(images()).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-4)


def test_the_best_candidates_go_into_the_suppression() -> None:
    model = detector("region", score_thresh=0.1, nms_thresh=1.0, detections_per_img=1000)
    (whole,) = model(images(1))
    model.candidates_per_img = 7
    (best,) = model(images(1))
    assert len(whole["scores"]) > 20
    assert len(best["scores"]) <= 7
    assert torch.equal(best["scores"], whole["scores"][: len(best["scores"])])


def test_bad_input() -> None:
    model = detector("region")
    with pytest.raises(TypeError, match=r"images must be a torch\.Tensor, got list"):
        model.forward_padded([images()])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, H, W\), got \(3, 4, 5\)"):
        model.forward_padded(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="anchors must be at most 32, got 33"):
        DarknetNetwork(make_config([("net", {}), ("region", {"anchors": ",".join(["1"] * 66), "num": 33})]))


def test_names_of_classes() -> None:
    with torch.device("meta"):
        assert yolov3_tiny().names[79] == "toothbrush"
        assert yolov2_tiny().names[14] == "person"
        assert yolov3_tiny(classes=2).names == {}
        assert yolov3_tiny(classes=2, names=["cat", "dog"]).names == {0: "cat", 1: "dog"}
        assert YOLO.first_label == 0
