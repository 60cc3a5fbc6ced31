"""paste_masks against the reference and torchvision, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import paste_masks

INF, NAN = float("inf"), float("nan")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture
def peer(torchvision_ops: Any) -> Any:
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    return paste_masks_in_image


def sample(
    count: int, side: int, image: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Masks, and boxes that partly lie outside of the image."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 1, side, side, generator=generator, dtype=torch.float64)
    size = torch.tensor([image[1], image[0]], dtype=torch.float64)
    corner = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 1.2 - 0.3) * size
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size * 0.8
    # torchvision cannot paste a box that ends before the image begins
    boxes = torch.cat([corner, (corner + sides).maximum(corner.clamp(min=1) + 1)], 1)
    return masks.to(dtype), boxes.to(torch.float64 if dtype is torch.float64 else torch.float32)


def check(
    backend: Any, masks: Tensor, boxes: Tensor, image: tuple[int, int], expected: Tensor, padding: int = 1
) -> None:
    actual = paste_masks(masks.to(backend.device), boxes.to(backend.device), image, padding).cpu()
    assert actual.dtype is masks.dtype
    assert actual.shape == expected.shape
    tolerance = TOLERANCE[masks.dtype]
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_equals_the_reference(backend: Any, dtype: torch.dtype, padding: int) -> None:
    masks, boxes = sample(4, 5, (23, 31), seed=padding, dtype=dtype)
    expected = reference.paste_masks(masks, boxes, (23, 31), padding)
    check(backend, masks, boxes, (23, 31), expected, padding)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_torchvision(backend: Any, peer: Any, dtype: torch.dtype) -> None:
    for index, (side, image) in enumerate(
        [(28, (60, 77)), (14, (64, 64)), (1, (9, 40)), (7, (100, 3)), (56, (33, 48))]
    ):
        masks, boxes = sample(5, side, image, seed=index, dtype=dtype)
        expected = peer(masks.double(), boxes, image)  # in half types torchvision rounds on the way
        if dtype in (torch.float64, torch.float32):
            expected = peer(masks, boxes, image)
        check(backend, masks, boxes, image, expected)
    masks, boxes = sample(3, 9, (30, 41), dtype=dtype)
    check(backend, masks, boxes, (30, 41), peer(masks.double(), boxes, (30, 41), padding=2), 2)


def test_integer_boxes_and_equal_sizes(backend: Any, peer: Any) -> None:
    """Sizes at which the mask is copied, doubled and halved, without rounding."""
    masks = torch.rand(4, 1, 8, 8)
    boxes = torch.tensor([[3.0, 4, 10, 11], [3, 4, 18, 19], [3, 4, 6, 7], [0, 0, 31, 15]])
    for padding in (0, 1):
        check(backend, masks, boxes, (16, 32), peer(masks, boxes, (16, 32), padding=padding), padding)
    exact = paste_masks(masks[:1].to(backend.device), boxes[:1].to(backend.device), (16, 32), 0).cpu()
    assert torch.equal(exact[0, 0, 4:12, 3:11], masks[0, 0])


def test_oblong_masks(backend: Any, peer: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for rows, columns in ((5, 12), (12, 5), (1, 7)):
        masks = torch.rand(3, 1, rows, columns, generator=generator)
        _, boxes = sample(3, 1, (40, 50), seed=rows)
        check(backend, masks, boxes, (40, 50), peer(masks, boxes, (40, 50)))


def test_more_rows_than_one_task_has(backend: Any, peer: Any) -> None:
    masks, boxes = sample(2, 28, (700, 400), seed=3)
    check(backend, masks, boxes, (700, 400), peer(masks, boxes, (700, 400)))


def test_a_box_much_larger_than_the_image(backend: Any, peer: Any) -> None:
    masks = torch.rand(2, 1, 6, 6)
    boxes = torch.tensor([[-900.0, -1500.0, 1200.0, 2000.0], [-4000.5, 3, 4000, 9]])
    check(backend, masks, boxes, (40, 30), peer(masks, boxes, (40, 30)))


EMPTY_BOXES = {
    "left of the image": [-50.0, 5, -10, 20],
    "above": [5.0, -90, 20, -30],
    "right": [500.0, 5, 520, 20],
    "below": [5.0, 600, 20, 640],
    "inverted": [20.0, 20, 5, 5],
    "not a number": [NAN, 0, 10, 10],
    "infinite": [0.0, 0, INF, 10],
    "infinite both ways": [-INF, -INF, INF, INF],
    "overflowing": [-3e38, 0, 3e38, 10],
    "far away": [0.0, 0, 1e12, 10],
}


@pytest.mark.parametrize("kind", EMPTY_BOXES)
def test_boxes_without_pixels(backend: Any, kind: str) -> None:
    boxes = torch.tensor([EMPTY_BOXES[kind], [2.0, 2, 12, 9]])
    masks = torch.ones(2, 1, 4, 4)
    for box_dtype in (torch.float32, torch.float64):
        pasted = paste_masks(masks.to(backend.device), boxes.to(backend.device, box_dtype), (30, 20)).cpu()
        assert not pasted[0].any()
        assert pasted[1].any()


def test_boxes_without_area(backend: Any, peer: Any) -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [3.2, 7.9, 3.2, 12.0], [0, 0, 0.4, 0.4], [-0.6, -0.6, 0.3, 0.3]])
    masks = torch.rand(4, 1, 6, 6)
    check(backend, masks, boxes, (20, 20), peer(masks, boxes, (20, 20)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.5, 0.0, -0.25, 1.5, 0.123456789, NAN])
def test_threshold(backend: Any, dtype: torch.dtype, threshold: float) -> None:
    masks, boxes = sample(4, 7, (31, 45), seed=5, dtype=dtype)
    masks, boxes = masks.to(backend.device), boxes.to(backend.device)
    decided = paste_masks(masks, boxes, (31, 45), threshold=threshold)
    assert decided.dtype is torch.bool
    if dtype in (torch.float16, torch.bfloat16):
        masks = masks.float()
    assert torch.equal(decided, paste_masks(masks, boxes, (31, 45)) > threshold)


def test_decides_alike_on_all_devices(backend: Any) -> None:
    """Bits, against the arithmetic written out in torch: each operation rounded by itself."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(1, 1, 8, 8, generator=generator)
    pasted = paste_masks(mask.to(backend.device), torch.tensor([[2.0, 3, 38, 40]], device=backend.device), (50, 48), 0)
    source = (torch.arange(37.0) + 0.5) * (torch.tensor(8.0) / 37.0) - 0.5
    source = source.clamp(min=0)
    low = source.long().clamp(max=7)
    high, weight = (low + 1).clamp(max=7), (source - source.long().clamp(max=7)).clamp(max=1)
    rows = (1 - weight) * mask[0, 0][:, low] + weight * mask[0, 0][:, high]
    source_y = ((torch.arange(38.0) + 0.5) * (torch.tensor(8.0) / 38.0) - 0.5).clamp(min=0)
    low_y = source_y.long().clamp(max=7)
    high_y, weight_y = (low_y + 1).clamp(max=7), (source_y - low_y).clamp(max=1)[:, None]
    expected = (1 - weight_y) * rows[low_y] + weight_y * rows[high_y]
    assert torch.equal(pasted[0, 0, 3:41, 2:39].cpu(), expected)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 70), st.integers(1, 70), st.integers(0, 999))
def test_random_shapes(backend: Any, peer: Any, count: int, side: int, height: int, width: int, seed: int) -> None:
    masks, boxes = sample(count, side, (height, width), seed)
    check(backend, masks, boxes, (height, width), peer(masks, boxes, (height, width)))


@pytest.mark.parametrize("shape", [(2, 1, 0, 0), (2, 1, 3, 0), (2, 1, 0, 3)])
def test_masks_of_nothing(backend: Any, shape: tuple[int, ...]) -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5]] * 2, device=backend.device)
    assert not paste_masks(torch.ones(shape, device=backend.device), boxes, (7, 9)).any()


def test_strided_and_unaligned_input(backend: Any) -> None:
    masks, boxes = sample(6, 8, (40, 44), seed=8)
    masks, boxes = masks.to(backend.device), boxes.to(backend.device)
    expected = paste_masks(masks, boxes, (40, 44))
    wide = torch.cat([masks, masks], 3)[..., 8:]
    assert torch.equal(paste_masks(wide, boxes, (40, 44)), expected)
    turned = masks.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(paste_masks(turned, boxes.t().contiguous().t(), (40, 44)), expected)
    assert torch.equal(paste_masks(masks[::2], boxes[::2], (40, 44)), expected[::2])
    odd = torch.cat([masks.new_zeros(1), masks.flatten()])[1:].view_as(masks)
    assert torch.equal(paste_masks(odd, boxes, (40, 44)), expected)


def test_batching_rule_and_no_gradient(backend: Any) -> None:
    masks, boxes = sample(6, 5, (20, 30))
    masks, boxes = masks.to(backend.device), boxes.to(backend.device)
    stacked = torch.vmap(lambda m, b: paste_masks(m, b, (20, 30)))(masks.view(2, 3, 1, 5, 5), boxes.view(2, 3, 4))
    assert torch.equal(stacked.flatten(0, 1), paste_masks(masks, boxes, (20, 30)))
    assert not paste_masks(masks.requires_grad_(), boxes, (20, 30)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_boxes_of_half_types(backend: Any, dtype: torch.dtype) -> None:
    masks, boxes = (tensor.to(backend.device) for tensor in sample(3, 5, (20, 30)))
    boxes = boxes.to(dtype)
    assert torch.equal(paste_masks(masks, boxes, (20, 30)), paste_masks(masks, boxes.float(), (20, 30)))


def test_the_worst_numbers_do_no_harm(in_new_process: Callable[[str], str]) -> None:
    """Coordinates at every power of two and beyond, in a process of their own."""
    script = """
import torch
from fastcv.ops import paste_masks
values = torch.tensor([s * 2.0**e for e in range(-149, 128, 7) for s in (-1, 1)]
    + [float("inf"), -float("inf"), float("nan"), 0.0, 2.0**29, -(2.0**29), 536870848.0])
generator = torch.Generator().manual_seed(0)
boxes = values[torch.randint(0, len(values), (3000, 4), generator=generator)]
for dtype in (torch.float32, torch.float64):
    pasted = paste_masks(torch.ones(3000, 1, 3, 3), boxes.to(dtype), (9, 11), padding=2)
    assert ((pasted >= 0) & (pasted <= 1.0001)).all()
for padding in (1 << 28, 1 << 20):
    pasted = paste_masks(torch.ones(1, 1, 3, 3), torch.tensor([[0.0, 0, 5, 5]]), (8, 8), padding=padding)
    assert not pasted.isnan().any()
print("unharmed")
"""
    printed = in_new_process(script)
    assert printed == "unharmed\n"
