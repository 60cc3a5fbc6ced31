"""Sliced inference: objects are found once, at their places, whatever the borders of the tiles do to them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("scipy")

from scipy import ndimage

from fastcv import predict_sliced
from fastcv.models.registry import create_model
from fastcv.slicing import tiles


class Finder(nn.Module):
    """Finds connected bright areas, whose value is their label; parts of objects get the better scores."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self.find(image) for image in images]

    def find(self, image: Tensor) -> dict[str, Tensor]:
        self.sizes.append(tuple(image.shape[-2:]))
        areas, count = ndimage.label(image[0].numpy() > 0)
        places = ndimage.find_objects(areas)
        boxes = [[x.start, y.start, x.stop, y.stop] for y, x in places]
        labels = [int(image[0].numpy()[areas == i + 1][0]) for i in range(count)]
        masks = [torch.from_numpy(areas == i + 1)[None].float() for i in range(count)]
        centres = [[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, 1.0] for b in boxes]
        scores = [1 / (1 + (b[2] - b[0]) * (b[3] - b[1])) for b in boxes]
        return {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64), "scores": torch.tensor(scores),
            "masks": torch.stack(masks) if masks else torch.zeros(0, 1, *image.shape[-2:]),
            "keypoints": torch.tensor(centres).reshape(-1, 1, 3), "keypoints_scores": torch.ones(count, 1),
        }  # fmt: skip


def scene(seed: int, height: int = 300, width: int = 400, side: int = 18) -> tuple[Tensor, set[tuple[int, ...]]]:
    """An image with rectangles that do not touch, and their boxes with labels."""
    generator = np.random.default_rng(seed)
    image, truth = torch.zeros(3, height, width), set()
    for _ in range(200):
        h, w = generator.integers(6, side + 1, 2)
        y, x = generator.integers(0, height - h + 1), generator.integers(0, width - w + 1)
        if image[0, max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2].any():
            continue
        label = int(generator.integers(1, 4))
        image[:, y : y + h, x : x + w] = label
        truth.add((int(x), int(y), int(x + w), int(y + h), label))
    return image, truth


def rows(found: dict[str, Tensor]) -> list[tuple[int, ...]]:
    return [(*map(int, b), int(n)) for b, n in zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True)]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [64, 97, 150])
def test_objects_are_found_once_and_at_their_places(size: int, whole: bool) -> None:
    for seed in range(2):
        image, truth = scene(seed)
        found = predict_sliced(Finder(), image, size, 0.4, whole=whole, batch=3)  # overlaps of more than 18 + 2 pixels
        assert sorted(rows(found)) == sorted(truth), "none twice, none missing"
        assert len(found["scores"].unique_consecutive()) > 1
        assert torch.equal(found["scores"], found["scores"].sort(descending=True)[0])


def test_masks_and_keypoints_move_with_their_boxes() -> None:
    image, _ = scene(5)
    found = predict_sliced(Finder(), image, 80, 0.4)
    assert found["masks"].shape == (len(found["boxes"]), 1, 300, 400)
    for mask, box, points, label in zip(
        found["masks"], found["boxes"].int().tolist(), found["keypoints"], found["labels"], strict=True
    ):
        y, x = mask[0].nonzero().unbind(1)
        assert [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1] == box
        assert bool((image[0][mask[0] > 0] == label).all())
        assert points[0, :2].tolist() == [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    assert found["keypoints_scores"].shape == (len(found["boxes"]), 1)
    for size in (80, 400):
        smaller = predict_sliced(Finder(), image, size, 0.4, mask_threshold=0.5)
        assert smaller["masks"].dtype == torch.bool
        assert smaller["masks"].sum() == (image[0] > 0).sum()


def test_an_object_larger_than_a_tile() -> None:
    image = torch.zeros(3, 300, 400)
    image[:, 20:280, 30:370] = 1
    assert rows(predict_sliced(Finder(), image, 100, 0.2)) == [(30, 20, 370, 280, 1)]
    in_parts = predict_sliced(Finder(), image, 100, 0.2, whole=False)
    assert len(in_parts["boxes"]) > 1


def test_one_tile_is_plain_inference() -> None:
    torch.manual_seed(0)
    model: Any = create_model("maskrcnn_tiny_fpn", num_classes=3, min_size=96, box_score_thresh=0.0)
    model.eval()
    image = torch.rand(3, 90, 120)
    with torch.no_grad():
        (plain,) = model([image])
    assert len(plain["boxes"]) > 0
    for size in (120, 4000):
        sliced = predict_sliced(model, image, size)
        assert plain.keys() == sliced.keys()
        assert all(torch.equal(plain[name], sliced[name]) for name in plain)
    parts = predict_sliced(model, image, 64)
    assert parts["masks"].shape[1:] == (1, 90, 120)


def test_nothing_found() -> None:
    found = predict_sliced(Finder(), torch.zeros(3, 200, 200), 64)
    assert {name: len(value) for name, value in found.items()} == dict.fromkeys(found, 0)
    assert found["masks"].shape == (0, 1, 200, 200)


@pytest.mark.parametrize(("height", "width", "size", "overlap"), [
    (100, 100, 100, 0.2), (101, 100, 100, 0.2), (1000, 30, 64, 0.5), (500, 700, 128, 0.0), (33, 65, 32, 0.9),
    (7, 9, 1, 0.0), (300, 400, 97, 0.4),
])  # fmt: skip
def test_tiles_cover_the_image_and_overlap(height: int, width: int, size: int, overlap: float) -> None:
    covered = np.zeros((height, width), int)
    places = tiles(height, width, size, overlap)
    for x1, y1, x2, y2 in places:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(size, width), min(size, height))
        covered[y1:y2, x1:x2] += 1
    assert covered.min() >= 1
    assert len(set(places)) == len(places)
    columns = sorted({(x1, x2) for x1, _, x2, _ in places})
    for (_, end), (start, _) in pairwise(columns):
        assert end - start >= int(size * overlap) - 1
        assert size == 1 or end - start < size


@pytest.mark.parametrize(("options", "message"), [
    ({"size": 0}, "size must be at least 1, got 0"), ({"overlap": 0.95}, "overlap must be from 0 to 0.9, got 0.95"),
    ({"batch": 0}, "batch must be at least 1, got 0"),
    ({"image": torch.zeros(3, 4)}, r"image must be a tensor \(3, H, W"),
    ({"image": "photo.jpg"}, "got str"),
])  # fmt: skip
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_sliced(Finder(), **({"image": torch.zeros(3, 50, 50)} | options))


LARGE, SMALL = (65, 10, 95, 90), (70, 20, 90, 40)


@pytest.mark.parametrize(("first", "second", "kept"), [  # rows of a tile: box in the image, score, label
    ([(LARGE, 0.9, 1)], [(SMALL, 0.5, 1)], [(LARGE, 0.9, 1)]),
    ([(LARGE, 0.9, 1)], [(LARGE, 0.8, 1), (SMALL, 0.5, 1)], [(LARGE, 0.9, 1), (SMALL, 0.5, 1)]),
    ([(LARGE, 0.9, 1)], [(SMALL, 0.95, 1)], [(SMALL, 0.95, 1), (LARGE, 0.9, 1)]),
    ([(LARGE, 0.9, 1)], [(SMALL, 0.5, 2)], [(LARGE, 0.9, 1), (SMALL, 0.5, 2)]),
    ([(LARGE, 0.9, 1), (SMALL, 0.5, 1)], [], [(LARGE, 0.9, 1), (SMALL, 0.5, 1)]),
    ([((80, 30, 100, 60), 0.99, 1)], [((80, 28, 120, 62), 0.6, 1)], [((80, 28, 120, 62), 0.6, 1)]),
    ([((80, 30, 98, 60), 0.99, 1)], [((110, 30, 130, 60), 0.6, 1)],
     [((80, 30, 98, 60), 0.99, 1), ((110, 30, 130, 60), 0.6, 1)]),
])  # fmt: skip
def test_parts_of_objects(first: Any, second: Any, kept: Any) -> None:
    """Two tiles, from 0 to 100 and from 60 to 160. A part is dropped unless its tile has the whole object, too."""

    def find(rows: Any, left: int) -> dict[str, Tensor]:
        boxes = torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 0::2] -= left
        return {
            "boxes": boxes, "scores": torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
            "labels": torch.tensor([label for _, _, label in rows], dtype=torch.int64),
        }  # fmt: skip

    replies = iter([[find(first, 0)], [find(second, 60)]])
    found = predict_sliced(lambda images: next(replies), torch.zeros(3, 100, 160), 100, 0.4, whole=False)  # type: ignore[arg-type]
    assert rows(found) == [(*box, label) for box, _, label in kept]
    assert found["scores"].tolist() == pytest.approx([score for _, score, _ in kept])
