"""YOLO: shapes of the papers' networks, decoding against plain formulas, detections against OpenCV's network."""

from __future__ import annotations

import math
import os
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcv.models.yolo import (
    YOLO,
    DarknetNetwork,
    letterbox,
    make_config,
    stretch,
    write_config,
    yolo_v1,
    yolov2_tiny,
    yolov3_tiny,
)

FOLDER = os.environ.get("FASTCV_YOLOV3_TINY")
published = pytest.mark.skipif(
    FOLDER is None, reason="FASTCV_YOLOV3_TINY must name a folder with yolov3-tiny.cfg and yolov3-tiny.weights"
)

V3_SHAPES = [
    (16, 416), (16, 208), (32, 208), (32, 104), (64, 104), (64, 52), (128, 52), (128, 26), (256, 26), (256, 13),
    (512, 13), (512, 13), (1024, 13), (256, 13), (512, 13), (255, 13), (255, 13), (256, 13), (128, 13), (128, 26),
    (384, 26), (256, 26), (255, 26), (255, 26),
]  # fmt: skip
V2_SHAPES = [*V3_SHAPES[:12], (1024, 13), (1024, 13), (125, 13), (125, 13)]
V1_SHAPES = [
    (64, 224), (64, 112), (192, 112), (192, 56), (128, 56), (256, 56), (256, 56), (512, 56), (512, 28),
    *[(256, 28), (512, 28)] * 4, (512, 28), (1024, 28), (1024, 14),
    *[(512, 14), (1024, 14)] * 2, (1024, 14), (1024, 7), (1024, 7), (1024, 7),
    (4096, 1), (4096, 1), (1470, 1), (1470, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "size", "shapes"),
    [(yolov3_tiny, 416, V3_SHAPES), (yolov2_tiny, 416, V2_SHAPES), (yolo_v1, 448, V1_SHAPES)],
)
def test_every_layer_has_the_shape_of_the_paper(build: Any, size: int, shapes: list[tuple[int, int]]) -> None:
    """Said by the network, and found when it runs."""
    wanted = [(channels, side, side) for channels, side in shapes]
    with torch.device("meta"):
        network = build().network
        found = []
        for layer in network.layers:
            layer.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
        network(torch.empty(2, 3, size, size))
    assert network.shapes == wanted
    assert found == wanted


def test_numbers_of_boxes_and_anchors() -> None:
    with torch.device("meta"):
        assert [head.boxes for head in yolov2_tiny().network.heads] == [845]
        assert [head.boxes for head in yolov3_tiny().network.heads] == [13 * 13 * 3, 26 * 26 * 3]
        assert [head.boxes for head in yolo_v1().network.heads] == [98]
        coarse, fine = (head.anchors for head in yolov3_tiny().network.heads)  # type: ignore[attr-defined]
        assert coarse == [(81, 82), (135, 169), (344, 319)]
        assert fine == [(10, 14), (23, 27), (37, 58)]
        assert yolov3_tiny(classes=3).network.shapes[-1] == (24, 26, 26)
        assert yolo_v1(classes=1).network.shapes[-1] == (7 * 7 * 11, 1, 1)
    with pytest.raises(ValueError, match="classes must be an integer of at least 1, got 0"):
        yolov3_tiny(classes=0)


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def head_only(name: str, channels: int, cells: int, size: int, **options: object) -> YOLO:
    """A detector that decodes its image: a head alone."""
    net = ("net", {"channels": channels, "height": cells, "width": cells})
    model = YOLO(DarknetNetwork(make_config([net, (name, options)])), score_thresh=0.0)
    model.network.heads[0].image = (size, size)  # type: ignore[attr-defined]
    return model


@pytest.mark.parametrize("name", ["yolo", "region"])
def test_decoding_of_anchors(name: str) -> None:
    """Against the formulas of the papers, one number at a time."""
    anchors, classes, side, size = [(1.5, 2.0), (3.0, 0.75)], 3, 4, 64
    options = {"anchors": "1.5,2, 3,.75", "num": 2, "classes": classes, "softmax": 1}
    model = head_only(name, 16, side, size, **options)
    output = torch.randn(2, 16, side, side, generator=torch.Generator().manual_seed(0))
    boxes, scores = model.decode([output])
    assert boxes.shape == (2, 32, 4)
    assert scores.shape == (2, 32, 3)
    k = 0
    for row in range(side):
        for column in range(side):
            for a, (width, height) in enumerate(anchors):
                x, y, w, h, confidence, *logits = output[1, a * 8 : a * 8 + 8, row, column].tolist()
                cell = size / side
                unit = 1 if name == "yolo" else cell
                centre = ((column + logistic(x)) * cell, (row + logistic(y)) * cell)
                half = (math.exp(w) * width * unit / 2, math.exp(h) * height * unit / 2)
                wanted = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
                torch.testing.assert_close(boxes[1, k], torch.tensor(wanted), rtol=1e-4, atol=1e-4)
                total = sum(map(math.exp, logits))
                classes_ = [logistic(v) if name == "yolo" else math.exp(v) / total for v in logits]
                torch.testing.assert_close(scores[1, k], torch.tensor([logistic(confidence) * c for c in classes_]))
                k += 1


def test_decoding_of_version_1() -> None:
    side, count, classes, size = 3, 2, 4, 90
    options = {"side": side, "num": count, "classes": classes, "coords": 4, "sqrt": 1}
    model = head_only("detection", side * side * (classes + 5 * count), 1, size, **options)
    output = torch.rand(1, side * side * 14, 1, 1, generator=torch.Generator().manual_seed(0))
    boxes, scores = model.decode([output])
    numbers = output.flatten().tolist()
    for cell in range(side * side):
        for b in range(count):
            index = cell * count + b
            confidence = numbers[9 * classes + index]
            x, y, w, h = numbers[9 * (classes + count) + 4 * index :][:4]
            cx, cy = (cell % side + x) * size / side, (cell // side + y) * size / side
            wanted = [cx - w * w * size / 2, cy - h * h * size / 2, cx + w * w * size / 2, cy + h * h * size / 2]
            torch.testing.assert_close(boxes[0, index], torch.tensor(wanted), rtol=1e-4, atol=1e-4)
            products = [confidence * numbers[cell * classes + c] for c in range(classes)]
            torch.testing.assert_close(scores[0, index], torch.tensor(products))


def suppressed(model: YOLO, boxes: Tensor, scores: Tensor, placements: list[Any]) -> list[dict[str, Tensor]]:
    """What is left of boxes (N, K, 4) with scores (N, K, classes)."""
    labels = torch.arange(model.classes).expand_as(scores).flatten(1)
    scores = scores.masked_fill(scores < model.score_thresh, -torch.inf).flatten(1)
    model.candidates = lambda _: (boxes.repeat_interleave(model.classes, 1), scores, labels)  # type: ignore[method-assign]
    found = model.postprocess([], placements)
    counts = found.pop("count").tolist()
    return [{name: value[i, :count] for name, value in found.items()} for i, count in enumerate(counts)]


def test_suppression_is_per_class_and_per_image() -> None:
    model = head_only("yolo", 7, 1, 100, anchors="1,1", num=1, classes=2)
    model.score_thresh, model.nms_thresh = 0.3, 0.5
    boxes = torch.tensor([[10.0, 10, 50, 50], [11, 10, 51, 50], [60, 60, 90, 90], [200, 200, 210, 210]])
    scores = torch.tensor([[0.9, 0.5], [0.8, 0.6], [0.3, 0.29], [0.7, 0.0]])
    _, placement = stretch(torch.zeros(3, 100, 200), (100, 100))
    first, second = suppressed(
        model, torch.stack([boxes, boxes]), torch.stack([scores, scores.flip(1)]), [placement, placement]
    )
    torch.testing.assert_close(first["scores"], torch.tensor([0.9, 0.6, 0.3]))  # 0.7 lies outside of the image
    assert first["labels"].tolist() == [0, 1, 0]
    assert second["labels"].tolist() == [1, 0, 1]
    assert first["labels"].dtype is torch.int64
    assert first["boxes"].tolist() == [[20, 10, 100, 50], [22, 10, 102, 50], [120, 60, 180, 90]]
    model.detections_per_img = 1
    assert len(suppressed(model, boxes[None], scores[None], [placement])[0]["boxes"]) == 1
    model.score_thresh = 2.0
    assert suppressed(model, boxes[None], scores[None], [placement])[0]["boxes"].shape == (0, 4)


@pytest.mark.parametrize(("height", "width", "box"), [(50, 100, (0, 16, 64, 48)), (100, 25, (24, 0, 40, 64))])
def test_letterbox_keeps_the_aspect_ratio(height: int, width: int, box: tuple[int, int, int, int]) -> None:
    resized, placement = letterbox(torch.ones(3, height, width), (64, 64))
    x1, y1, x2, y2 = box
    assert (resized[:, y1:y2, x1:x2] == 1).all()
    assert resized.sum() == 3 * ((x2 - x1) * (y2 - y1) + 0.5 * (64 * 64 - (x2 - x1) * (y2 - y1)))
    back = placement.boxes_in_image(torch.tensor([[float(v) for v in box], [-9.0, -9, 99, 99]]))
    torch.testing.assert_close(back, torch.tensor([[0.0, 0, width, height]] * 2))


def test_a_batch_equals_its_images_one_by_one() -> None:
    torch.manual_seed(0)
    model = yolov3_tiny(classes=2, width=0.5, size=256, score_thresh=0.25)
    images = [torch.rand(3, 60, 90), torch.rand(3, 100, 40)]
    for layer in model.network.layers:
        if layer.shape[0] == 21 and layer.stored():
            torch.nn.init.normal_(layer.conv.bias)  # maps of random weights are too flat
    together = model(images)
    assert sum(len(found["boxes"]) for found in together)
    for image, found in zip(images, together, strict=True):
        (alone,) = model([image])
        assert len(alone["boxes"]) == len(found["boxes"])
        torch.testing.assert_close(alone["scores"], found["scores"])
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_are_copied_saved_and_converted(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = yolov3_tiny(classes=1, width=0.25, size=128)
    model.score_thresh = 0.0
    image = torch.rand(3, 32, 48)
    (found,) = pickle.loads(pickle.dumps(deepcopy(model)))([image])
    torch.testing.assert_close(found, model([image])[0], rtol=0, atol=0)
    (found,) = model.to(dtype)([image])
    assert len(found["boxes"]) == 100
    assert [value.dtype for value in found.values()] == [torch.float32, torch.int64, torch.float32]


def test_bad_input() -> None:
    model = head_only("yolo", 6, 1, 10, anchors="1,1", num=1, classes=1)
    with pytest.raises(TypeError, match="images must be a list of tensors"):
        model(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"images\[0\] must have shape \(6, H, W\), got \(3, 4, 4\)"):
        model([torch.zeros(3, 4, 4)])
    with pytest.raises(ValueError, match="resize must be one of letterbox, stretch, got 'crop'"):
        YOLO(model.network, resize="crop")
    no_head = DarknetNetwork(make_config([("net", {}), ("maxpool", {"size": 2})]))
    with pytest.raises(ValueError, match="network must have heads"):
        YOLO(no_head)
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, 416, 416\), got \(1, 3, 8, 8\)"):
        no_head(torch.zeros(1, 3, 8, 8))


def sample(kind: str) -> Tensor:
    if kind == "noise":
        return torch.rand(3, 300, 500, generator=torch.Generator().manual_seed(0))
    cbook = pytest.importorskip("matplotlib.cbook")
    image = pytest.importorskip("PIL.Image").open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255


@pytest.fixture(scope="module")
def both() -> tuple[YOLO, Any]:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip("OpenCV 5 does not read Darknet's files")
    folder = Path(str(FOLDER))
    text = (folder / "yolov3-tiny.cfg").read_text()
    config = text.replace("[yolo]", "[yolo]\nthresh=0.0001")  # below it OpenCV sets scores to 0
    net = cv2.dnn.readNetFromDarknet(
        np.frombuffer(config.encode(), np.uint8), np.fromfile(folder / "yolov3-tiny.weights", np.uint8)
    )
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    return yolov3_tiny(folder / "yolov3-tiny.weights"), net


@published
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("kind", ["portrait", "noise"])
def test_agreement_with_opencv(both: tuple[YOLO, Any], resize: str, kind: str) -> None:
    """Raw maps, decoded boxes and scores, and what is left of them after suppression."""
    model, net = both
    cv2, image = pytest.importorskip("cv2"), sample(kind)
    model.resize = resize
    batch, (placement,) = model.preprocess([image])
    net.setInput(batch.numpy())
    theirs = net.forward(["conv_15", "conv_22", "yolo_16", "yolo_23"])
    with torch.inference_mode():
        ours = model.network(batch)
        boxes, scores = model.decode(ours)
        (found,) = model([image])
        exact = deepcopy(model.network).double()(batch.double())
    for mine, other, truth in zip(ours, theirs[:2], exact, strict=True):
        assert (mine - truth).abs().max() < 1e-4  # OpenCV's own distance is 0.5e-4 to 1e-4, of values up to 27
        torch.testing.assert_close(mine, torch.from_numpy(other), rtol=1e-4, atol=1e-4)
    rows = np.concatenate([part.reshape(-1, 85) for part in theirs[2:]])
    half = rows[:, 2:4] / 2
    corners = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], 1)
    torch.testing.assert_close(boxes[0] / 416, torch.from_numpy(corners), rtol=1e-4, atol=1e-4)
    expected = torch.from_numpy(rows[:, 5:].copy())
    torch.testing.assert_close(scores[0], expected, rtol=1e-4, atol=1.1e-4)  # OpenCV's small ones are 0
    wanted = []
    for label in range(80):
        left = [[float(x), float(y), float(w), float(h)] for x, y, w, h in np.c_[corners[:, :2], 2 * half] * 416]
        for index in cv2.dnn.NMSBoxes(left, rows[:, 5 + label].tolist(), model.score_thresh, model.nms_thresh):
            wanted.append((float(rows[index, 5 + label]), label, corners[index] * 416))
    wanted.sort(key=lambda row: -row[0])
    assert found["labels"].tolist() == [label for _, label, _ in wanted]
    if kind == "portrait":
        names = (Path(str(FOLDER)) / "coco.names").read_text().split("\n")
        assert {"person", "tie"} & {names[label] for label in found["labels"].tolist()}
        torch.testing.assert_close(found["scores"], torch.tensor([row[0] for row in wanted]), rtol=1e-4, atol=1e-4)
        placed = placement.boxes_in_image(torch.tensor(np.array([row[2] for row in wanted], np.float32)))
        torch.testing.assert_close(found["boxes"], placed, rtol=1e-4, atol=1e-2)


def convolution(filters: int, size: int, activation: str, normalised: int = 1) -> tuple[str, dict[str, object]]:
    options = {"batch_normalize": normalised, "filters": filters, "size": size, "pad": 1, "activation": activation}
    return "convolutional", {"stride": 1, **options}


def test_layers_and_region_agree_with_opencv(tmp_path: Path) -> None:
    """A network of one of each layer, whose files are ours. OpenCV sets scores to 0 that it suppresses."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip("OpenCV 5 does not read Darknet's files")
    sections: list[tuple[str, dict[str, object]]] = [
        ("net", {"width": 64, "height": 96, "channels": 3}),
        convolution(8, 3, "leaky"),
        ("maxpool", {"size": 2, "stride": 2}),
        convolution(8, 3, "mish"),
        convolution(8, 1, "logistic"),
        ("shortcut", {"from": -2, "activation": "linear"}),
        ("route", {"layers": -1, "groups": 2, "group_id": 1}),
        convolution(4, 3, "swish"),
        ("maxpool", {"size": 2, "stride": 1}),
        ("maxpool", {"size": 5, "stride": 1}),
        ("maxpool", {"size": 2, "stride": 2}),
        ("upsample", {"stride": 2}),
        ("route", {"layers": "-1,4"}),
        convolution(16, 1, "linear", 0),
        ("region", {"anchors": "1,2, 3,1.5", "classes": 3, "coords": 4, "num": 2, "softmax": 1}),
    ]
    torch.manual_seed(0)
    network = DarknetNetwork(make_config(sections)).eval()
    for value in network.state_dict().values():
        if value.dim() == 1:
            value.copy_(torch.rand(value.shape) + 0.1)
    write_config(tmp_path / "a.cfg", network.config)
    network.save_weights(tmp_path / "a.weights")
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "a.cfg"), str(tmp_path / "a.weights"))
    images = torch.rand(1, 3, 96, 64)
    net.setInput(images.numpy())
    raw, rows = (torch.from_numpy(part) for part in net.forward(["conv_12", "detection_out"]))
    with torch.inference_mode():
        (ours,) = network(images)
        boxes, scores = network.heads[0].decode(ours)
    torch.testing.assert_close(ours, raw, rtol=1e-4, atol=1e-5)
    centres, half = rows[:, :2], rows[:, 2:4] / 2
    whole = torch.tensor([64.0, 96, 64, 96])
    torch.testing.assert_close(boxes[0] / whole, torch.cat([centres - half, centres + half], 1), rtol=1e-4, atol=1e-5)
    theirs = rows[:, 5:]
    assert (theirs > 0).sum() > 1000
    torch.testing.assert_close(scores[0][theirs > 0], theirs[theirs > 0], rtol=1e-4, atol=1e-5)
