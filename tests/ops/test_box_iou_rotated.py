"""box_iou_rotated and the rotated formats of box_iou against shapely, the reference and torchvision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import ops, reference
from fastcv.ops import box_iou, box_iou_rotated

NAN, INF = float("nan"), float("inf")
SQUARE = [10.0, 10, 4, 4, 0]
HARD = {
    "identical": [[3.0, 5, 7, 2, 33], [3.0, 5, 7, 2, 33], [3.0, 5, 7, 2, 213], [3.0, 5, 2, 7, 123]],
    "nearly equal": [[3.0, 5, 7, 2, 33], [3.0 + 1e-9, 5, 7, 2, 33], [3.0, 5, 7 + 1e-9, 2, 33 - 1e-9]],
    "touching": [SQUARE, [14.0, 10, 4, 4, 0], [14.0, 14, 4, 4, 0], [10 + 2 + 2 * math.sqrt(2), 10, 4, 4, 45]],
    "nested": [SQUARE, [10.0, 10, 1, 1, 30], [11.5, 10, 1, 4, 0], [10.0, 10, 40, 50, 12], [10.0, 12, 2, 8, 90]],
    "crossing at corners": [SQUARE, [12.0, 12, 4, 4, 45], [12.0, 8, math.sqrt(8), 9, 45], [10.0, 10, 4, 4, 45]],
    "thin": [[0.0, 0, 1000, 1e-3, 0], [0.0, 0, 1000, 1e-3, 1e-4], [5.0, 0, 1000, 1e-3, 90], [0.0, 0, 1e-3, 1000, 89]],
    "huge coordinates": [[1e8, -1e8, 7, 2, 33], [1e8 + 1, -1e8, 7, 2, 20], [1e8, 1 - 1e8, 2, 7, -70]],
    "huge sides": [[0.0, 0, 1e9, 2e9, 33], [5e8, 0, 1e9, 1e9, 80], [0.0, 0, 1.0, 1.0, 5]],
    "right angles": [[0.0, 0, 6, 2, angle] for angle in (0, 90, -90, 180, 270, 360, -720, 3690)],
    "sides of either sign": [[0.0, 0, -6, -2, 30], [1.0, 0, 6, 2, 30]],
}


def random_boxes(count: int, seed: int, place: float = 30.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    low = torch.tensor([0, 0, 0.1, 0.1, -400], dtype=torch.float64)
    return low + numbers * torch.tensor([place, place, 20, 20, 800], dtype=torch.float64)


def by_shapely(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    polygons = pytest.importorskip("shapely").geometry.Polygon

    def polygon(box: list[float], origin: list[float]) -> Any:
        x, y, w, h, degrees = box
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        half = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
        return polygons([(x - origin[0] + u * cos + v * sin, y - origin[1] - u * sin + v * cos) for u, v in half])

    rows = []
    for a in boxes1.tolist():
        mine, others = polygon(a, a), [polygon(b, a) for b in boxes2.tolist()]
        rows.append([mine.intersection(other).area / mine.union(other).area for other in others])
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize("kind", HARD)
def test_hard_pairs_equal_shapely(backend: Any, kind: str) -> None:
    boxes = torch.tensor(HARD[kind], dtype=torch.float64)
    moved = boxes.to(backend.device)
    expected = by_shapely(boxes, boxes)
    torch.testing.assert_close(box_iou_rotated(moved, moved).cpu(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(reference.box_iou_rotated(boxes, boxes), expected, rtol=0, atol=1e-6)


def test_random_pairs_equal_shapely(backend: Any) -> None:
    boxes1, boxes2 = random_boxes(40, 0), random_boxes(101, 1)
    actual = box_iou_rotated(boxes1.to(backend.device), boxes2.to(backend.device)).cpu()
    torch.testing.assert_close(actual, by_shapely(boxes1, boxes2), rtol=0, atol=1e-6)
    assert 0.1 < (actual > 0).float().mean() < 0.9


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 15), (2, 17), (5, 257), (1, 2049), (40, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sizes_and_dtypes(backend: Any, n: int, m: int, dtype: torch.dtype) -> None:
    boxes1, boxes2 = random_boxes(n, 2).to(dtype), random_boxes(m, 3).to(dtype)
    expected = reference.box_iou_rotated(boxes1, boxes2)
    odd = boxes2.to(backend.device).t().contiguous().t()
    actual = box_iou_rotated(boxes1.to(backend.device), odd).cpu()
    tolerance = 1e-6 if dtype is torch.float64 else 2e-5  # thin boxes, turned in float32
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_boxes_that_overlap_nothing(backend: Any) -> None:
    dead = [[10.0, 10, 0, 4, 0], [10.0, 10, 4, 0, 30], [10.0, 10, -4, 4, 0], [10.0, 10, 1e-8, 1e-8, 0]]
    dead += [[NAN, 10, 4, 4, 0], [10.0, INF, 4, 4, 0], [10.0, 10, INF, 4, 0], [10.0, 10, NAN, 4, 0]]
    dead += [[10.0, 10, 4, 4, NAN], [10.0, 10, 4, 4, -INF], [10.0, 10, 1e200, 1e200, 0]]
    boxes = torch.tensor([*dead, SQUARE], dtype=torch.float64, device=backend.device)
    expected = torch.zeros(len(boxes), len(boxes))
    expected[-1, -1] = 1
    for dtype in (torch.float64, torch.float32):
        assert torch.equal(box_iou_rotated(boxes.to(dtype), boxes.to(dtype)).cpu(), expected)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_pair_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    """Whole numbers make many boxes that share sides and corners."""
    number, side = st.integers(-4, 4), st.integers(1, 6)
    angle = st.one_of(st.sampled_from([0, 30, 45, 60, 90, 135]), st.floats(-360, 360))
    row = st.tuples(number, number, side, side, angle)
    boxes = [torch.tensor(data.draw(st.lists(row, min_size=1, max_size=5)), dtype=torch.float64) for _ in range(2)]
    actual = box_iou_rotated(boxes[0].to(backend.device), boxes[1].to(backend.device)).cpu()
    torch.testing.assert_close(actual, reference.box_iou_rotated(*boxes), rtol=0, atol=1e-6)


def test_same_bits_on_all_devices(backend: Any, emulated_module: Any) -> None:
    for dtype in (torch.float32, torch.float64):
        boxes = torch.cat([random_boxes(90, 4), torch.tensor(HARD["touching"] + HARD["thin"])]).to(dtype)
        expected = emulated_module.box_iou_rotated(boxes, boxes)
        assert torch.equal(box_iou_rotated(boxes.to(backend.device), boxes.to(backend.device)).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fmt", ["cxcywhr", "xywhr", "xyxyxyxy"])
def test_formats_equal_torchvision(backend: Any, newest_torchvision_ops: Any, fmt: str, dtype: torch.dtype) -> None:
    """torchvision clips with a tolerance of 1e-5 and more."""
    sets = [newest_torchvision_ops.box_convert(random_boxes(n, n).to(dtype), "cxcywhr", fmt) for n in (30, 70)]
    expected = newest_torchvision_ops.box_iou(*sets, fmt=fmt)
    actual = box_iou(*(boxes.to(backend.device) for boxes in sets), fmt=fmt).cpu()
    assert actual.dtype is expected.dtype
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)


def test_no_gradient() -> None:
    boxes = random_boxes(3, 0).requires_grad_()
    for overlap in (box_iou_rotated(boxes, boxes.detach()), box_iou(boxes, boxes, fmt="cxcywhr")):
        with pytest.raises(NotImplementedError, match=r"the IoU of rotated boxes cannot be differentiated"):
            overlap.sum().backward()
    with torch.no_grad():
        assert not ops.box_iou_rotated(boxes, boxes).requires_grad
