"""The small box functions against torchvision, and masks_to_boxes on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import _C, ops, reference

FORMATS = ("xyxy", "xywh", "cxcywh")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)


def random_boxes(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(*shape, 2, generator=generator) * 60 - 10
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * 30], -1).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (0,), (2, 3), ()])
def test_agree_with_torchvision(torchvision_ops: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    boxes = random_boxes(*shape, dtype=dtype)
    for fmt in FORMATS:
        torch.testing.assert_close(ops.box_area(boxes, fmt), torchvision_ops.box_area(boxes, fmt), rtol=0, atol=0)
        for out in FORMATS:
            expected = torchvision_ops.box_convert(boxes, fmt, out)
            torch.testing.assert_close(ops.box_convert(boxes, fmt, out), expected, rtol=0, atol=0)
    expected = torchvision_ops.clip_boxes_to_image(boxes, (30, 40))
    torch.testing.assert_close(ops.clip_boxes_to_image(boxes, (30, 40)), expected, rtol=0, atol=0)
    if len(shape) == 1:
        assert torch.equal(ops.remove_small_boxes(boxes, 9.5), torchvision_ops.remove_small_boxes(boxes, 9.5))


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


def test_compile() -> None:
    boxes = random_boxes(5)

    def everything(b: Tensor) -> tuple[Tensor, ...]:
        clipped = ops.clip_boxes_to_image(ops.box_convert(b, "xyxy", "cxcywh"), (30, 40))
        return clipped, ops.box_area(clipped)

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(boxes), everything(boxes), strict=True):
        assert torch.equal(got, want)


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
        assert torch.equal(expected, torchvision_ops.masks_to_boxes(masks))
        for form in (masks, masks.bool(), masks.float(), masks.long(), -masks.double(), masks.mT.contiguous().mT):
            assert torch.equal(ops.masks_to_boxes(form.to(backend.device)).cpu(), expected)
        storage = torch.zeros(masks.numel() + 1, dtype=torch.uint8, device=backend.device)
        shifted = storage[1:].view(masks.shape).copy_(masks)
        assert torch.equal(ops.masks_to_boxes(shifted).cpu(), expected)


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0, 0)])
def test_empty_masks(backend: Any, shape: tuple[int, ...]) -> None:
    boxes = ops.masks_to_boxes(torch.zeros(shape, dtype=torch.bool, device=backend.device))
    assert boxes.shape == (shape[0], 4)
    assert not boxes.any()


def test_masks_to_boxes_as_an_operator(backend: Any) -> None:
    masks = (torch.rand(3, 2, 8, 9, generator=torch.Generator().manual_seed(0)) < 0.1).to(backend.device)
    expected = torch.stack([ops.masks_to_boxes(m) for m in masks])
    torch.library.opcheck(torch.ops.fastcv.masks_to_boxes.default, (masks[0],))
    assert torch.equal(torch.vmap(ops.masks_to_boxes)(masks), expected)
    compiled = torch.compile(ops.masks_to_boxes, fullgraph=True, backend="aot_eager", dynamic=True)
    assert torch.equal(compiled(masks[0]), expected[0])
    assert torch.equal(compiled(masks[0].float()), expected[0])
    assert ops.masks_to_boxes(masks[0].to("meta")).shape == (2, 4)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(ops.masks_to_boxes(masks[0]), expected[0])
    finally:
        torch.set_num_threads(threads)


def test_bad_arguments(backend: Any) -> None:
    boxes = torch.zeros(2, 4, device=backend.device)
    for function in (
        ops.box_area,
        lambda b: ops.box_convert(b, "xyxy", "xywh"),
        lambda b: ops.clip_boxes_to_image(b, (3, 4)),
        lambda b: ops.remove_small_boxes(b, 1),
    ):
        with pytest.raises(TypeError, match=r"boxes must be a torch\.Tensor, got list"):
            function([1])
        with pytest.raises(ValueError, match=r"boxes must have shape \(\.\.\., 4\), got \(2, 3\)"):
            function(boxes[:, :3])
        with pytest.raises(TypeError, match=r"boxes must be of a floating or an integer dtype, got torch\.bool"):
            function(boxes.bool())
    with pytest.raises(ValueError, match="fmt must be one of xyxy, xywh, cxcywh, got 'xy'"):
        ops.box_area(boxes, "xy")
    with pytest.raises(ValueError, match="in_fmt must be one of"):
        ops.box_convert(boxes, "xywhr", "xyxy")
    with pytest.raises(ValueError, match="out_fmt must be one of"):
        ops.box_convert(boxes, "xyxy", None)
    with pytest.raises(TypeError, match=r"size must be \(height, width\), got 3"):
        ops.clip_boxes_to_image(boxes, 3)
    with pytest.raises(TypeError, match=r"masks must be a torch\.Tensor, got NoneType"):
        ops.masks_to_boxes(None)
    with pytest.raises(ValueError, match=r"masks must have shape \(N, H, W\), got \(2, 4\)"):
        ops.masks_to_boxes(boxes)
    with pytest.raises(TypeError, match="masks must not be complex"):
        ops.masks_to_boxes(boxes[None].to(torch.complex64))


def test_the_compiled_module_refuses_what_does_not_fit() -> None:
    masks, boxes = torch.zeros(2, 3, 4, dtype=torch.bool), torch.zeros(2, 4)
    wrong = [masks.float(), masks.mT, masks[0], boxes, None, 3]
    for bad in wrong:
        with pytest.raises((TypeError, ValueError)):
            _C.masks_to_boxes(boxes, bad)
    for bad in [boxes[:1], boxes.double(), torch.zeros(4, 2).T, masks, None]:
        with pytest.raises((TypeError, ValueError)):
            _C.masks_to_boxes(bad, masks)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mask_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, limit)) for limit in (3, 20, 70)]
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    masks = masks < data.draw(st.sampled_from([0.002, 0.02, 0.5]))
    assert torch.equal(ops.masks_to_boxes(masks.to(backend.device)).cpu(), reference.masks_to_boxes(masks))
