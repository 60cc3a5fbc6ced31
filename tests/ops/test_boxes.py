"""The small box functions against torchvision, and masks_to_boxes on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import ops, reference

INF = float("inf")
FORMATS = ("xyxy", "xywh", "cxcywh")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)


def random_boxes(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(*shape, 2, generator=generator) * 60 - 10
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * 30], -1).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (0,), (2, 3), ()])
def test_agree_with_torchvision(torchvision_ops: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Half types are compared with what torchvision makes of the same numbers in float32, rounded once."""
    boxes = random_boxes(*shape, dtype=dtype)
    wide = boxes.float() if dtype.itemsize == 2 and dtype.is_floating_point else boxes
    for fmt in FORMATS:
        area = torchvision_ops.box_area(wide, fmt)
        expected = area if dtype.is_floating_point else area.long()
        torch.testing.assert_close(ops.box_area(boxes, fmt), expected, rtol=0, atol=0)
        for out in FORMATS:
            result_dtype = torchvision_ops.box_convert(boxes, fmt, out).dtype
            expected = torchvision_ops.box_convert(wide, fmt, out).to(result_dtype)
            torch.testing.assert_close(ops.box_convert(boxes, fmt, out), expected, rtol=0, atol=0)
    expected = torchvision_ops.clip_boxes_to_image(boxes, (30, 40))
    torch.testing.assert_close(ops.clip_boxes_to_image(boxes, (30, 40)), expected, rtol=0, atol=0)
    if len(shape) == 1:
        for least in (9, 9.5):
            assert torch.equal(ops.remove_small_boxes(boxes, least), torchvision_ops.remove_small_boxes(wide, least))


def test_areas_do_not_overflow() -> None:
    for dtype, box, area in (
        (torch.int32, [0, 0, 60000, 60000], 3_600_000_000),
        (torch.int32, [-(2**31), 0, 2**31 - 1, 1], 2**32 - 1),
        (torch.int16, [-30000, -30000, 30000, 30000], 3_600_000_000),
        (torch.uint8, [0, 0, 255, 255], 65025),
        (torch.int8, [-128, -128, 127, 127], 65025),
        (torch.float16, [-60000, 0, 60000, 2], 240_000),
    ):
        assert ops.box_area(torch.tensor(box, dtype=dtype)).item() == area
    assert ops.box_area(torch.tensor([0, 0, 60000, 60000], dtype=torch.int32), "xywh").item() == 3_600_000_000


def test_conversions_do_not_overflow_in_between() -> None:
    for dtype, box, formats, converted in (
        (torch.float16, [60000, 0, 60064, 64], ("xyxy", "cxcywh"), [60032, 32, 64, 64]),
        (torch.float16, [60000, 0, 65472, 64], ("xyxy", "cxcywh"), [62720, 32, 5472, 64]),
        (torch.uint8, [200, 10, 220, 30], ("xyxy", "cxcywh"), [210, 20, 20, 20]),
        (torch.uint8, [200, 10, 100, 30], ("xywh", "cxcywh"), [250, 25, 100, 30]),
        (torch.int8, [100, 100, 120, 126], ("xyxy", "cxcywh"), [110, 113, 20, 26]),
        (torch.int16, [30000, 0, 32000, 9], ("xyxy", "cxcywh"), [31000, 4.5, 2000, 9]),
        (torch.int32, [2_000_000_000, 0, 2_000_000_256, 8], ("xyxy", "cxcywh"), [2_000_000_128, 4, 256, 8]),
    ):
        result = ops.box_convert(torch.tensor(box, dtype=dtype), *formats)
        assert result.dtype is (dtype if dtype.is_floating_point else torch.float32)
        assert result.tolist() == converted


def test_sides_do_not_overflow() -> None:
    """An inverted box is small, whatever the dtype."""
    inverted = torch.tensor([[20, 0, 10, 30], [0, 0, 20, 30]])
    assert ops.remove_small_boxes(inverted.byte(), 5).tolist() == [1]
    wide = torch.tensor([[-30000, -30000, 30000, 30000]], dtype=torch.int16)
    assert ops.remove_small_boxes(wide, 50000).tolist() == [0]


def test_sizes_of_images() -> None:
    """Of any type of number, and beyond what the dtype of the boxes holds."""
    boxes = torch.tensor([[10, 20, 200, 210]])
    for size in ((150, 100), [150, 100], np.array([150, 100]), (np.int32(150), np.uint8(100)), torch.Size([150, 100])):
        assert ops.clip_boxes_to_image(boxes, size).tolist() == [[10, 20, 100, 150]]
    assert ops.clip_boxes_to_image(boxes.float(), (150.5, 100.25)).tolist() == [[10, 20, 100.25, 150.5]]
    for dtype in (torch.uint8, torch.int16, torch.float16, torch.bfloat16):
        clipped = ops.clip_boxes_to_image(boxes.to(dtype), (10**5, 150))
        assert clipped.dtype is dtype
        assert clipped.tolist() == [[10, 20, 150, boxes.to(dtype)[0, 3].item()]]
    infinite = torch.tensor([[0.0, 0.0, INF, INF]], dtype=torch.float16)
    assert ops.clip_boxes_to_image(infinite, (100, 70000)).tolist() == [[0, 0, INF, 100]]


def test_convert_copies_and_differentiates() -> None:
    boxes = random_boxes(3, dtype=torch.float64)
    assert ops.box_convert(boxes, "xyxy", "xyxy").data_ptr() != boxes.data_ptr()
    leaf = boxes.requires_grad_()
    for out in FORMATS:
        assert torch.autograd.gradcheck(lambda b, out=out: ops.box_area(ops.box_convert(b, "xyxy", out), out), leaf)
    assert torch.autograd.gradcheck(lambda b: ops.clip_boxes_to_image(b, (30, 40)), leaf)


def test_small_boxes_with_nan() -> None:
    boxes = torch.tensor([[0, 0, 5, 5], [0, 0, float("nan"), 5], [0, 0, 1, 5], [0, 0, 2, 2]])
    assert ops.remove_small_boxes(boxes, 2).tolist() == [0, 3]


@pytest.mark.parametrize("width", [1, 15, 16, 17, 31, 32, 33, 64, 515, 1040])
def test_masks_equal_the_reference_and_torchvision(backend: Any, torchvision_ops: Any, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    for height in (1, 2, 9, 33):
        masks = torch.zeros(7, height, width, dtype=torch.uint8)
        for index in range(6):  # the last stays empty
            y = torch.randint(0, height, (index + 1,), generator=generator)
            x = torch.randint(0, width, (index + 1,), generator=generator)
            masks[index, y, x] = 1 if index % 2 else 128
        expected = reference.masks_to_boxes(masks)
        assert not expected[-1].any()
        assert torch.equal(expected[:-1], torchvision_ops.masks_to_boxes(masks[:-1]))  # before 0.29, no empty ones
        forms = (
            masks,
            masks.bool(),
            masks.float(),
            masks.long(),
            masks.short(),
            -masks.double(),
            masks.mT.contiguous().mT,
        )
        for form in forms:
            assert torch.equal(ops.masks_to_boxes(form.to(backend.device)).cpu(), expected)
        storage = torch.zeros(masks.numel() + 1, dtype=torch.uint8, device=backend.device)
        shifted = storage[1:].view(masks.shape).copy_(masks)
        assert torch.equal(ops.masks_to_boxes(shifted).cpu(), expected)


@pytest.mark.parametrize("shape", [(2, 0, 5), (2, 4, 0)])
def test_masks_without_pixels_give_zeros(backend: Any, shape: tuple[int, ...]) -> None:
    assert not ops.masks_to_boxes(torch.zeros(shape, dtype=torch.bool, device=backend.device)).any()


def test_batching_rule(backend: Any) -> None:
    masks = (torch.rand(3, 2, 8, 9, generator=torch.Generator().manual_seed(0)) < 0.1).to(backend.device)
    expected = torch.stack([ops.masks_to_boxes(m) for m in masks])
    for form in (masks, masks.float()):
        assert torch.equal(torch.vmap(ops.masks_to_boxes)(form), expected)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mask_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, limit)) for limit in (3, 20, 70)]
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    masks = masks < data.draw(st.sampled_from([0.002, 0.02, 0.5]))
    assert torch.equal(ops.masks_to_boxes(masks.to(backend.device)).cpu(), reference.masks_to_boxes(masks))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_fmt", ["cxcywhr", "xywhr", "xyxyxyxy"])
def test_rotated_formats_agree_with_torchvision(torchvision_ops: Any, dtype: torch.dtype, in_fmt: str) -> None:
    """Values, dtypes and the rounding of integers; half types as above."""
    generator = torch.Generator().manual_seed(0)
    turned = torch.rand(2, 9, 5, generator=generator) * torch.tensor([60, 60, 30, 30, 360]) - torch.tensor(
        [10, 10, 0, 0, 180]
    )
    whole = not dtype.is_floating_point
    wide = dtype if whole or dtype.itemsize > 2 else torch.float32
    boxes = torchvision_ops.box_convert(turned, "cxcywhr", in_fmt).to(dtype)
    for out_fmt in ("cxcywhr", "xywhr", "xyxyxyxy"):
        expected = torchvision_ops.box_convert(boxes.to(wide), in_fmt, out_fmt).to(dtype)
        actual = ops.box_convert(boxes, in_fmt, out_fmt)
        assert actual.dtype is torchvision_ops.box_convert(boxes, in_fmt, out_fmt).dtype
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert ops.box_convert(boxes, in_fmt, in_fmt).data_ptr() != boxes.data_ptr()
    back = ops.box_convert(ops.box_convert(turned.double(), "cxcywhr", in_fmt), in_fmt, "cxcywhr")
    torch.testing.assert_close(back, turned.double(), rtol=1e-12, atol=1e-11)
