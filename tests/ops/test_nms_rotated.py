"""nms_rotated and batched_nms_rotated against the reference and the IoU matrix, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv import reference
from fastcv.ops import batched_nms_rotated, box_iou_rotated, nms, nms_rotated

NAN, INF = float("nan"), float("inf")


def random_boxes(count: int, seed: int, place: float = 100.0, side: float = 20.0) -> tuple[Tensor, Tensor]:
    """Boxes of all sizes in a crowd, and scores with ties."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    scale = torch.tensor([place, place, 1, 1, 800], dtype=torch.float64)
    boxes = numbers * scale - torch.tensor([0, 0, 0, 0, 400], dtype=torch.float64)
    boxes[:, 2:4] = 0.5 + side * numbers[:, 2:4] ** 2
    return boxes, torch.randint(0, count, (count,), generator=generator).double() / count


def greedy(boxes: Tensor, scores: Tensor, idxs: Tensor, threshold: float) -> Tensor:
    """Suppression by the matrix of overlaps, whose values are tested by themselves."""
    overlaps = box_iou_rotated(boxes, boxes)
    order = scores.sort(descending=True, stable=True).indices
    kept: list[int] = []
    dropped = torch.zeros(len(boxes), dtype=torch.bool)
    for index in order.tolist():
        if not dropped[index]:
            kept.append(index)
            dropped |= (overlaps[index].double().cpu() > threshold) & (idxs == idxs[index])
    return torch.tensor(kept, dtype=torch.int64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 17, 64, 90])
def test_equals_the_reference(backend: Any, count: int, dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(count, count, place=40)
    boxes, idxs = boxes.to(dtype), torch.arange(count) % 3 * 2**40
    boxes[::5, 4] = (boxes[::5, 4] / 45).round() * 45
    moved = boxes.to(backend.device), scores.to(backend.device)
    for threshold in (0.0, 0.2, 0.5, 1.0):
        assert torch.equal(nms_rotated(*moved, threshold).cpu(), reference.nms_rotated(boxes, scores, threshold))
        expected = reference.batched_nms_rotated(boxes, scores, idxs, threshold)
        assert torch.equal(batched_nms_rotated(*moved, idxs.to(backend.device), threshold).cpu(), expected)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [1, 3, 500])
def test_many_boxes(backend: Any, dtype: torch.dtype, threshold: float, classes: int) -> None:
    """Enough for the grid of the CPU kernel and for several tiles of the CUDA kernel; sizes that differ by far."""
    count = 700 if backend.is_emulated else 2500
    boxes, scores = random_boxes(count, 5, place=400)
    boxes[count // 2 :: 2] = boxes[: count - count // 2 : 2] + 0.1  # nearly the same
    boxes[::29, 2:4] *= 15
    boxes[::31, 2] = 1e-2
    boxes[::37, 0] += 5e4
    boxes = boxes.to(dtype)
    idxs = torch.arange(count) % classes
    expected = greedy(boxes, scores, idxs, threshold)
    moved = boxes.to(backend.device), scores.to(backend.device)
    assert torch.equal(batched_nms_rotated(*moved, idxs.to(backend.device), threshold).cpu(), expected)
    if classes == 1:
        assert torch.equal(nms_rotated(*moved, threshold).cpu(), expected)
        assert 0 < len(expected) < count


def test_without_a_turn_it_is_nms(backend: Any) -> None:
    """Also where rotated by whole quarters, with sides exchanged."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randint(0, 60, (600, 2), generator=generator).double()
    sides = torch.randint(1, 12, (600, 2), generator=generator).double() * 2
    upright = torch.cat([centre - sides / 2, centre + sides / 2], 1).to(backend.device)
    scores = torch.rand(600, generator=generator, dtype=torch.float64).to(backend.device)
    quarters = torch.arange(600) % 4
    turned = torch.where((quarters % 2 == 1)[:, None], sides.flip(1), sides)
    boxes = torch.cat([centre, turned, 90.0 * quarters[:, None].double()], 1).to(backend.device)
    for threshold in (0.013, 0.31, 0.77):
        assert torch.equal(nms_rotated(boxes, scores, threshold), nms(upright, scores, threshold))


def test_boxes_and_scores_that_are_not_finite(backend: Any) -> None:
    """Such boxes stay and leave others alone; NaN scores come last, ties by index."""
    boxes, _ = random_boxes(300, 6, place=50)
    for i, value in enumerate((NAN, INF, -INF)):
        for column in range(5):
            boxes[5 * column + i, column] = value
    boxes[30:40, 2] = 0
    boxes[40:50, 3] *= -1
    scores = torch.arange(300).double() % 7
    scores[::11] = NAN
    scores[5], scores[8] = INF, -INF
    stays = {5 * column + i for column in range(5) for i in range(3)} | set(range(30, 50))
    for count in (60, 300):
        kept = nms_rotated(boxes[:count].to(backend.device), scores[:count].to(backend.device), 0.1).cpu()
        assert torch.equal(kept, reference.nms_rotated(boxes[:count], scores[:count], 0.1))
        assert stays <= set(kept.tolist())


def test_huge_coordinates_and_sides(backend: Any) -> None:
    for dtype, shift in ((torch.float32, 1e7), (torch.float64, -1e15), (torch.float64, 1e200)):
        boxes, scores = random_boxes(400, 3, place=60)
        boxes[:, :2] += shift
        boxes[::50, 2:4] = 1e150 if dtype is torch.float64 else 1e18
        boxes = boxes.to(dtype)
        expected = greedy(boxes, scores, torch.zeros(400), 0.2)
        assert torch.equal(nms_rotated(boxes.to(backend.device), scores.to(backend.device), 0.2).cpu(), expected)


def test_strided(backend: Any) -> None:
    boxes, scores = random_boxes(300, 2)
    expected = reference.nms_rotated(boxes, scores, 0.2)
    wide = torch.full((300, 11), NAN, dtype=torch.float64)
    wide[:, 1::2] = boxes
    columns = torch.stack([scores, -scores], dim=1).to(backend.device)
    for view in (wide.to(backend.device)[:, 1::2], boxes.T.contiguous().to(backend.device).T):
        assert torch.equal(nms_rotated(view, columns[:, 0], 0.2).cpu(), expected)
