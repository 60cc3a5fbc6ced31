"""YOLO's losses against plain loops over objects and boxes, written from the papers in Python floats."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv.models.yolo import YOLO, DarknetNetwork, Truth, make_config

SIZE = (96, 64)  # height and width of the input
ANCHORS = [(10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (60.0, 20.0)]
Losses = dict[str, float]
Box = tuple[float, float, float, float]


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bce(p: float, wanted: float) -> float:
    return -(wanted * math.log(p) + (1 - wanted) * math.log(1 - p))


def iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / area


def centred(x: float, y: float, w: float, h: float) -> Box:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def objects(truth: Truth, image: int) -> list[tuple[Box, int]]:
    found = zip(truth.boxes[image].tolist(), truth.labels[image].tolist(), truth.valid[image].tolist(), strict=True)
    return [(tuple(box), label) for box, label, valid in found if valid]


def anchor_losses(output: Tensor, truth: Truth, mask: list[int], o: dict[str, Any]) -> Losses:
    """Versions 2 and 3: ``o`` holds the options of the section."""
    three = "mask" in o
    total = dict.fromkeys(("loss_coord", "loss_object", "loss_noobject", "loss_class"), 0.0)
    rows, columns = output.shape[2:]
    step = SIZE[1] / columns, SIZE[0] / rows
    stretch = o.get("scale_x_y", 1)
    for image in range(len(output)):
        values = output[image].unflatten(0, (len(mask), -1)).tolist()
        taken: dict[tuple[int, int, int], int] = {}
        for t, (box, _) in enumerate(objects(truth, image)):
            w, h = box[2] - box[0], box[3] - box[1]
            best = max(range(4), key=lambda a: iou(centred(0, 0, w, h), centred(0, 0, *ANCHORS[a])))
            column = min(int((box[0] + box[2]) / 2 / step[0]), columns - 1)
            row = min(int((box[1] + box[3]) / 2 / step[1]), rows - 1)
            if best in mask:
                taken.setdefault((row, column, mask.index(best)), t)
        for row in range(rows):
            for column in range(columns):
                for a, anchor in enumerate(mask):
                    x, y, w, h, confidence, *classes = (v[row][column] for v in values[a])
                    spread = [stretch * logistic(v) - (stretch - 1) / 2 for v in (x, y)]
                    predicted = centred(
                        (column + spread[0]) * step[0],
                        (row + spread[1]) * step[1],
                        math.exp(w) * ANCHORS[anchor][0],
                        math.exp(h) * ANCHORS[anchor][1],
                    )
                    sure = logistic(confidence)
                    if (row, column, a) not in taken:
                        if all(iou(predicted, box) <= o["ignore"] for box, _ in objects(truth, image)):
                            total["loss_noobject"] += -math.log(1 - sure) if three else sure**2
                        continue
                    box, label = objects(truth, image)[taken[row, column, a]]
                    bw, bh = box[2] - box[0], box[3] - box[1]
                    place = (box[0] + box[2]) / 2 / step[0] - column, (box[1] + box[3]) / 2 / step[1] - row
                    coord = sum(
                        (v - math.log(side / prior)) ** 2
                        for v, side, prior in zip((w, h), (bw, bh), ANCHORS[anchor], strict=True)
                    )
                    for v, wanted in zip((x, y), place, strict=True):
                        s = min(max((wanted + (stretch - 1) / 2) / stretch, 0), 1)
                        coord += bce(logistic(v), s) if three else (logistic(v) - wanted) ** 2
                    total["loss_coord"] += coord * (2 - bw * bh / (SIZE[0] * SIZE[1]))
                    wanted = iou(predicted, box) if o.get("rescore") else 1
                    total["loss_object"] += -math.log(sure) if three else 5 * (sure - wanted) ** 2
                    if o.get("softmax"):
                        total["loss_class"] += math.log(sum(map(math.exp, classes))) - classes[label]
                    else:
                        total["loss_class"] += sum(bce(logistic(v), k == label) for k, v in enumerate(classes))
    return {name: value / len(output) for name, value in total.items()}


def first_losses(output: Tensor, truth: Truth, side: int, count: int, kinds: int, root: bool) -> Losses:
    """Version 1, equation 3."""
    total = dict.fromkeys(("loss_coord", "loss_object", "loss_noobject", "loss_class"), 0.0)
    cells = side * side
    for image in range(len(output)):
        numbers = output[image].flatten().tolist()
        for cell in range(cells):
            confidences = numbers[cells * kinds + cell * count :][:count]
            boxes = [numbers[cells * (kinds + count) + 4 * (cell * count + b) :][:4] for b in range(count)]
            inside = []
            for box, label in objects(truth, image):
                place = (box[0] + box[2]) / 2 / SIZE[1] * side, (box[1] + box[3]) / 2 / SIZE[0] * side
                if min(int(place[1]), side - 1) * side + min(int(place[0]), side - 1) == cell:
                    inside.append((box, label, place[0] - cell % side, place[1] - cell // side))
            responsible = -1
            if inside:
                box, label, x, y = inside[0]
                w, h = (box[2] - box[0]) / SIZE[1], (box[3] - box[1]) / SIZE[0]
                sizes = [(v[2] ** 2, v[3] ** 2) if root else (max(v[2], 0), max(v[3], 0)) for v in boxes]
                predicted = [(v[0] / side, v[1] / side, *s) for v, s in zip(boxes, sizes, strict=True)]
                true = (x / side, y / side, w, h)
                overlaps = [iou(centred(*p), centred(*true)) for p in predicted]
                near = [-sum((a - b) ** 2 for a, b in zip(p, true, strict=True)) for p in predicted]
                responsible = max(range(count), key=lambda b: overlaps[b] or near[b])
                wanted = (x, y, math.sqrt(w), math.sqrt(h)) if root else (x, y, w, h)
                total["loss_coord"] += 5 * sum((a - b) ** 2 for a, b in zip(boxes[responsible], wanted, strict=True))
                total["loss_object"] += (confidences[responsible] - overlaps[responsible]) ** 2
                chances = numbers[cell * kinds : (cell + 1) * kinds]
                total["loss_class"] += sum((p - (k == label)) ** 2 for k, p in enumerate(chances))
            total["loss_noobject"] += 0.5 * sum(c**2 for b, c in enumerate(confidences) if b != responsible)
    return {name: value / len(output) for name, value in total.items()}


def make_truth(seed: int, images: int, kinds: int, least: float = 4, most: float = 60) -> Truth:
    """Three images of 6, 0 and 3 objects; two of the first in one place, one at the far corner."""
    generator = torch.Generator().manual_seed(seed)
    sizes = least + (most - least) * torch.rand(images, 6, 2, generator=generator, dtype=torch.float64)
    whole = torch.tensor([SIZE[1], SIZE[0]])
    centres = torch.rand(images, 6, 2, generator=generator, dtype=torch.float64) * whole
    centres[0, 1], sizes[0, 1] = centres[0, 0], sizes[0, 0] * 1.01
    centres[0, 2] = whole
    counts = torch.tensor([6, 0, 3])[:images, None]
    valid = torch.arange(6).expand(images, 6) < counts
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], -1) * valid[..., None]
    labels = torch.randint(kinds, (images, 6), generator=generator) * valid
    return Truth(boxes, labels, valid)


def make_head(name: str, channels: int, shape: tuple[int, int], **options: Any) -> Any:
    net = ("net", {"channels": channels, "height": shape[0], "width": shape[1]})
    (head,) = YOLO(DarknetNetwork(make_config([net, (name, options)]))).network.heads
    head.image = SIZE  # type: ignore[attr-defined]
    return head


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(found: dict[str, Tensor], wanted: Losses, all_terms: bool = True) -> None:
    assert list(found) == list(wanted)
    assert not all_terms or all(value > 0 for value in wanted.values())
    for name, value in wanted.items():
        assert found[name].shape == ()
        torch.testing.assert_close(found[name].item(), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stretch", [1, 1.2])
@pytest.mark.parametrize("mask", [[0, 2], [1, 3], [3, 2, 1, 0]])
def test_version_3(mask: list[int], stretch: float) -> None:
    flat = ",".join(f"{w},{h}" for w, h in ANCHORS)
    options = {"mask": ",".join(map(str, mask)), "scale_x_y": stretch}
    head = make_head("yolo", 8 * len(mask), (6, 4), anchors=flat, num=4, classes=3, ignore_thresh=0.3, **options)
    for seed in range(3):
        truth, output = make_truth(seed, 3, 3), numbers(seed, 3, 8 * len(mask), 6, 4)
        wanted = anchor_losses(output, truth, mask, {**options, "ignore": 0.3})
        check(head.losses(output, truth), wanted)


@pytest.mark.parametrize(("softmax", "rescore"), [(1, 1), (0, 0)])
def test_version_2(softmax: int, rescore: int) -> None:
    cells = ",".join(f"{w / 16},{h / 16}" for w, h in ANCHORS)
    options = {"softmax": softmax, "rescore": rescore}
    head = make_head("region", 32, (6, 4), anchors=cells, num=4, classes=3, thresh=0.25, object_scale=5, **options)
    for seed in range(3):
        truth, output = make_truth(seed, 3, 3), numbers(seed, 3, 32, 6, 4)
        check(head.losses(output, truth), anchor_losses(output, truth, [0, 1, 2, 3], {**options, "ignore": 0.25}))


@pytest.mark.parametrize("root", [True, False])
def test_version_1(root: bool) -> None:
    """Of boxes that overlap the objects and, for small ones, of boxes that do not."""
    options = {"side": 4, "num": 2, "classes": 3, "coords": 4, "sqrt": int(root), "rescore": 1}
    head = make_head("detection", 16 * 13, (1, 1), coord_scale=5, noobject_scale=0.5, **options)
    for seed in range(4):
        truth = make_truth(seed, 3, 3, most=60 if seed % 2 else 6)
        output = numbers(seed, 3, 16 * 13, 1, 1) * 0.4
        check(head.losses(output, truth), first_losses(output, truth, 4, 2, 3, root))


@pytest.mark.parametrize("name", ["yolo", "region", "detection"])
def test_gradients_and_images_without_objects(name: str) -> None:
    cells = ",".join(f"{w},{h}" for w, h in ANCHORS[:2])
    if name == "detection":
        head = make_head(name, 4 * 12, (1, 1), side=2, num=2, classes=2, coords=4, sqrt=1, coord_scale=5)
        output = numbers(0, 2, 48, 1, 1) * 0.4
    else:  # without rescore, and nothing to ignore: those are constants for the gradient
        options = {"ignore_thresh": 1, "thresh": 1}
        head = make_head(name, 14, (3, 2), anchors=cells, num=2, classes=2, **options)
        output = numbers(0, 2, 14, 3, 2)
    truth = make_truth(0, 2, 2)
    torch.autograd.gradcheck(lambda x: tuple(head.losses(x, truth).values()), output.requires_grad_())
    nothing = Truth(torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.bool))
    losses = head.losses(output, nothing)
    assert [losses[name].item() for name in ("loss_coord", "loss_object", "loss_class")] == [0, 0, 0]
    assert losses["loss_noobject"] > 0


@pytest.mark.parametrize("name", ["yolo", "region", "detection"])
def test_a_perfect_prediction_costs_nothing(name: str) -> None:
    """One object in one cell, whose numbers say exactly that."""
    box = torch.tensor([[[16.0, 24.0, 48.0, 72.0]]])
    truth = Truth(box, torch.tensor([[1]]), torch.tensor([[True]]))
    if name == "detection":
        head = make_head(name, 7, (1, 1), side=1, num=1, classes=2, coords=4, sqrt=1, rescore=1)
        root = math.sqrt(0.5)
        output = torch.tensor([0, 1, 1, 0.5, 0.5, root, root]).view(1, 7, 1, 1)
    else:
        unit = {"yolo": "32,48", "region": "0.5,0.5"}[name]
        head = make_head(name, 7, (1, 1), anchors=unit, num=1, classes=2, softmax=1, rescore=1)
        output = torch.tensor([0.0, 0, 0, 0, 30, -30, 30]).view(1, 7, 1, 1)
    losses = head.losses(output, truth)
    if name == "yolo":  # cross entropy of a place at 0.5 is ln 2 at the least, twice, times 2 - 1/4
        losses["loss_coord"] = losses["loss_coord"] - 2 * math.log(2) * 1.75
    assert sum(losses.values()).abs() < 1e-6  # type: ignore[union-attr]
