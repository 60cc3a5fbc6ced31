"""YOLO learns: losses from images and targets, gradients everywhere, and a few images by heart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv.models.yolo import YOLO, fit_anchors, yolo_v1, yolov2_tiny, yolov3_tiny
from fastcv.ops import box_iou

SMALL: dict[str, tuple[Any, dict[str, Any]]] = {
    "v1": (yolo_v1, {"size": 192}),
    "v2": (yolov2_tiny, {"size": 96}),
    "v3": (yolov3_tiny, {"size": 96}),
}
TERMS = ["loss_coord", "loss_object", "loss_noobject", "loss_class"]


def scenes(count: int = 4) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Bright rectangles of two classes, by colour, on a dark ground; the sizes of images differ."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for index in range(count):
        image = torch.rand(3, 90 + 10 * index, 120, generator=generator) * 0.2
        boxes, labels = [], []
        for k in range(1 + index % 3):
            left, top = 4 + 38 * k, 10 + 9 * index
            box = [left, top, left + 22 + 4 * k, top + 30 - 5 * k]
            image[k % 2, box[1] : box[3], box[0] : box[2]] = 1
            boxes.append(box)
            labels.append(k % 2)
        images.append(image)
        targets.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)})
    return images, targets


def average_precision(model: YOLO, images: list[Tensor], targets: list[dict[str, Tensor]]) -> float:
    """AP at an IoU of 0.5 over all classes together, the area below precision and recall."""
    rows, total = [], sum(len(target["boxes"]) for target in targets)
    for found, target in zip(model(images), targets, strict=True):
        free = torch.ones(len(target["boxes"]), dtype=torch.bool)
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            overlap = box_iou(box[None], target["boxes"])[0] * free * (target["labels"] == label)
            best = int(overlap.argmax())
            hit = bool(overlap[best] >= 0.5)
            free[best] &= not hit
            rows.append((float(score), hit))
    hits, area = 0, 0.0
    for rank, (_, hit) in enumerate(sorted(rows, reverse=True), 1):
        hits += hit
        area += hit * hits / rank
    return area / total


@pytest.mark.parametrize("version", list(SMALL))
def test_gradients_reach_all_parameters(version: str) -> None:
    build, options = SMALL[version]
    torch.manual_seed(0)
    model = build(classes=2, width=1 / 16, **options).train()
    images, targets = scenes()
    losses = model(images, targets)
    assert list(losses) == TERMS
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    statistics = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(module.num_batches_tracked == 1 for module in statistics)


@pytest.mark.parametrize("version", [pytest.param("v1", marks=pytest.mark.slow), "v2", "v3"])
def test_four_images_are_learnt_by_heart(version: str) -> None:
    build, options = SMALL[version]
    torch.manual_seed(0)
    model = build(classes=2, width=1 / 8, score_thresh=0.1, **options).train()
    for module in model.modules():
        if hasattr(module, "probability"):
            module.probability = 0.0
    images, targets = scenes()
    optimizer = torch.optim.Adam(model.parameters(), 3e-4 if version == "v1" else 3e-3)
    for step in range(1, 161):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
        if step % 20 == 0:
            precision = average_precision(model.eval(), images, targets)
            if precision == 1:
                break
            model.train()
    assert precision == 1


def test_training_in_bfloat16_and_with_empty_images() -> None:
    model = yolov3_tiny(classes=2, width=1 / 16, size=64).train()
    images, _ = scenes(2)
    targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
    assert [losses[name].dtype for name in TERMS] == [torch.float32] * 4
    assert losses["loss_coord"] == losses["loss_class"] == 0
    losses["loss_noobject"].backward()


def test_bad_targets() -> None:
    model = yolov2_tiny(classes=2, width=1 / 16, size=32).train()
    images, targets = scenes(2)
    for change, error, text in (
        ({"labels": torch.tensor([2])}, ValueError, r"targets\[0\]\['labels'\] must be 0 to 1, got 2"),
        ({"labels": torch.tensor([-1])}, ValueError, r"targets\[0\]\['labels'\] must be 0 to 1, got -1"),
        ({"labels": torch.tensor([1.0])}, TypeError, r"targets\[0\]\['labels'\] must be int64, got torch.float32"),
        ({"labels": torch.tensor([1, 1])}, ValueError, r"\['labels'\] must have shape \(1,\), one per box, got \(2,\)"),
        ({"boxes": torch.tensor([4.0])}, ValueError, r"\['boxes'\] must have shape \(N, 4\), got \(1,\)"),
        ({"boxes": torch.tensor([[4.0, 5, 2, 9]])}, ValueError, r"must have finite corners, x1 < x2 and y1 < y2"),
        ({"boxes": torch.tensor([[4e3, 5, 5e3, 9]])}, ValueError, r"\['boxes'\] must overlap the image"),
    ):
        with pytest.raises(error, match=text):
            model(images, [{**targets[0], **change}, targets[1]])
    with pytest.raises(TypeError, match="targets must be a list of dictionaries, got NoneType"):
        model(images)
    with pytest.raises(ValueError, match=r"targets must have one dictionary per image \(2\), got 1"):
        model(images, targets[:1])
    with pytest.raises(KeyError, match=r"targets\[1\] must have 'labels'"):
        model(images, [targets[0], {"boxes": targets[1]["boxes"]}])
    with pytest.raises(RuntimeError, match="forward_padded is for evaluation"):
        model.forward_padded(torch.stack(images[:1]))


def test_anchors_of_a_data_set() -> None:
    """Found where they were hidden, in any order, scaled as the images are."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.tensor([[20.0, 40.0], [70.0, 30.0], [160.0, 190.0]])
    sizes = hidden.repeat(50, 1) * (0.9 + 0.2 * torch.rand(150, 2, generator=generator))
    found = fit_anchors(sizes[torch.randperm(150, generator=generator)], 3)
    torch.testing.assert_close(torch.tensor(found), hidden, rtol=0.03, atol=0)
    corner = torch.rand(150, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + sizes], 1)
    data = [(torch.zeros(3, 208, 832), {"boxes": part}) for part in boxes.split(7)]
    data.append((torch.zeros(3, 208, 832), {"boxes": torch.zeros(0, 4)}))
    torch.testing.assert_close(torch.tensor(fit_anchors(data, 3)), hidden / 2, rtol=0.03, atol=0)
    with pytest.raises(ValueError, match="data must have at least 4 boxes with an area, one per anchor, got 3"):
        fit_anchors(hidden, 4)
    with pytest.raises(ValueError, match="count must be positive, got 0"):
        fit_anchors(hidden, 0)


def test_options_of_the_builders() -> None:
    anchors = [(20, 40), (70, 30), (160.5, 190)]
    with torch.device("meta"):
        small = yolov2_tiny(classes=2, width=0.5, size=320, anchors=anchors)
        assert small.network.shapes[0] == (8, 320, 320)
        assert small.network.shapes[-1] == (21, 10, 10)
        (head,) = small.network.heads
        assert [(32 * w, 32 * h) for w, h in head.anchors] == anchors  # type: ignore[attr-defined]
        coarse, fine = yolov3_tiny(anchors=[*anchors, (200, 300)]).network.heads
        assert (fine.anchors, coarse.anchors) == (anchors[:2], [anchors[2], (200, 300)])  # type: ignore[attr-defined]
        assert yolo_v1(classes=2, width=0.25, size=128).network.shapes[-1] == (2 * 2 * 12, 1, 1)
        for options, text in (
            ({"width": 0}, "width must be above 0 and at most 64, got 0"),
            ({"size": 100}, "size must be a multiple of 32 pixels, got 100"),
            ({"anchors": anchors}, "anchors must be an even number of pairs, half of them for each map, got 3"),
            ({"anchors": [(1, -1)]}, r"anchors must be positive pairs \(width, height\) in pixels, got"),
        ):
            with pytest.raises(ValueError, match=text):
                yolov3_tiny(**options)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"anchors must be pairs \(width, height\) in pixels, got 3"):
            yolov3_tiny(anchors=3)  # type: ignore[arg-type]
