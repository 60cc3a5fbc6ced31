"""roi_align_rotated against its definition, grid_sample, torchvision's upright boxes and the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv import reference
from fastcv.nn import RoIAlignRotated
from fastcv.ops import roi_align, roi_align_rotated

NAN, INF = float("nan"), float("inf")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def random_boxes(count: int, batch: int, height: float, width: float, seed: int = 0, side: float = 1.2) -> Tensor:
    """Boxes of all sizes and angles, some of them partly or wholly outside the image."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.tensor([width, height], dtype=torch.float64)
    centre = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2) * image
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * side * image
    angle = torch.rand(count, 1, generator=generator, dtype=torch.float64) * 1000 - 500
    index = torch.randint(0, batch, (count, 1), generator=generator).double()
    return torch.cat([index, centre, sides, angle], dim=1)


def random_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def upright(boxes: Tensor) -> Tensor:
    """Rows of batch index, x1, y1, x2, y2: the boxes before they are turned."""
    return torch.cat([boxes[:, :1], boxes[:, 1:3] - boxes[:, 3:5] / 2, boxes[:, 1:3] + boxes[:, 3:5] / 2], dim=1)


def by_definition(input: Tensor, boxes: Tensor, size: tuple[int, int], scale: float, ratio: int) -> Tensor:
    """One sample after the other, as detectron2's loop has it."""
    height, width = input.shape[2:]
    result = torch.zeros(len(boxes), input.shape[1], *size, dtype=torch.float64)
    for k, (index, cx, cy, w, h, angle) in enumerate(boxes.tolist()):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        bin_h, bin_w = h * scale / size[0], w * scale / size[1]
        grid_h, grid_w = (ratio, ratio) if ratio > 0 else (math.ceil(bin_h), math.ceil(bin_w))
        for p, q in ((p, q) for p in range(size[0]) for q in range(size[1])):
            for i, j in ((i, j) for i in range(grid_h) for j in range(grid_w)):
                yy = -h * scale / 2 + (p + (i + 0.5) / grid_h) * bin_h
                xx = -w * scale / 2 + (q + (j + 0.5) / grid_w) * bin_w
                y, x = yy * cosine - xx * sine + cy * scale - 0.5, yy * sine + xx * cosine + cx * scale - 0.5
                if y < -1 or y > height or x < -1 or x > width:
                    continue
                y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                for row in {int(y), min(int(y) + 1, height - 1)}:
                    for column in {int(x), min(int(x) + 1, width - 1)}:
                        weight = (1 - abs(y - row)) * (1 - abs(x - column))
                        result[k, :, p, q] += weight * input[int(index), :, row, column]
            result[k, :, p, q] /= max(grid_h * grid_w, 1)
    return result


@pytest.mark.parametrize("sampling_ratio", [-1, 1, 2])
def test_values_equal_the_definition(backend: Any, sampling_ratio: int) -> None:
    input, boxes = random_input(2, 5, 8, 10), random_boxes(6, 2, 32, 40)
    expected = by_definition(input, boxes, (3, 2), 0.25, sampling_ratio)
    actual = roi_align_rotated(input.to(backend.device), boxes.to(backend.device), (3, 2), 0.25, sampling_ratio)
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampling_ratio", [-1, 0, 1, 2, 3, 23])
def test_values_and_gradient_equal_the_reference(backend: Any, sampling_ratio: int) -> None:
    input = random_input(2, 5, 18, 11).requires_grad_()
    boxes = random_boxes(12, 2, 72, 44, seed=sampling_ratio)
    boxes = torch.cat([boxes, random_boxes(4, 2, 72, 44, seed=1, side=20.0), random_boxes(4, 2, 72, 44, side=0.05)])
    expected = reference.roi_align_rotated(input, boxes, (3, 2), 0.25, sampling_ratio)
    weight = random_input(*expected.shape, seed=1)
    (expected_gradient,) = torch.autograd.grad(expected, input, weight)
    moved = input.detach().to(backend.device).requires_grad_()
    actual = roi_align_rotated(moved, boxes.to(backend.device), (3, 2), 0.25, sampling_ratio)
    (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sampling_ratio", [1, 2, 5])
def test_boxes_inside_equal_grid_sample(backend: Any, sampling_ratio: int) -> None:
    """Torch's own sampling, on the grid that an affine map makes of the box."""
    input = random_input(1, 4, 40, 50)
    boxes = random_boxes(8, 1, 6, 10, seed=3) + torch.tensor([0, 20.0, 17, 0, 0, 0], dtype=torch.float64)
    size = 3 * sampling_ratio
    for box in boxes:
        _, cx, cy, w, h, angle = box.tolist()
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # grid_sample counts from -1 to 1 over the edges of the map (align_corners=False), so pixels need no shift.
        theta = torch.tensor(
            [
                [w * cosine / 50, h * sine / 50, 2 * cx / 50 - 1],
                [-w * sine / 40, h * cosine / 40, 2 * cy / 40 - 1],
            ],
            dtype=torch.float64,
        )
        grid = torch.nn.functional.affine_grid(theta[None], [1, 4, size, size], align_corners=False)
        samples = torch.nn.functional.grid_sample(input, grid, align_corners=False)
        expected = torch.nn.functional.avg_pool2d(samples, sampling_ratio)
        actual = roi_align_rotated(input.to(backend.device), box[None].to(backend.device), 3, 1.0, sampling_ratio)
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("turns", [0, 4, -8])
@pytest.mark.parametrize("sampling_ratio", [-1, 2])
def test_without_a_turn_it_is_torchvisions_roi_align(
    backend: Any, torchvision_ops: Any, sampling_ratio: int, turns: int
) -> None:
    input = random_input(2, 19, 20, 25, dtype=torch.float32).requires_grad_()
    boxes = random_boxes(30, 2, 80, 100).float()
    boxes[:, 5] = 90.0 * turns
    expected = torchvision_ops.roi_align(input, upright(boxes), (7, 5), 0.25, sampling_ratio, True)
    weight = random_input(*expected.shape, seed=1, dtype=torch.float32)
    (expected_gradient,) = torch.autograd.grad(expected, input, weight)
    moved = input.detach().to(backend.device).requires_grad_()
    actual = roi_align_rotated(moved, boxes.to(backend.device), (7, 5), 0.25, sampling_ratio)
    (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turns", [1, 2, 3, -1, 5])
def test_a_quarter_turn_turns_the_map(backend: Any, turns: int) -> None:
    """A box turned counter-clockwise sees what an upright box sees on the map turned clockwise."""
    input = random_input(2, 6, 12, 17).to(backend.device)
    boxes = random_boxes(20, 2, 12, 17).to(backend.device)
    boxes[:, 5] = 90.0 * turns
    actual = roi_align_rotated(input, boxes, (4, 3))
    for _ in range(turns % 4):
        height = input.shape[2]
        input = input.rot90(-1, (2, 3))
        boxes = torch.cat([boxes[:, :1], height - boxes[:, 2:3], boxes[:, 1:2], boxes[:, 3:]], dim=1)
    torch.testing.assert_close(actual, roi_align(input, upright(boxes), (4, 3), aligned=True), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 4, 16, 31, 130])
def test_dtypes_layouts_and_channel_counts(
    backend: Any, dtype: torch.dtype, channels_last: bool, channels: int
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = random_input(2, channels, 9, 17, dtype=dtype).to(memory_format=layout)
    boxes = random_boxes(6, 2, 36, 68).to(torch.promote_types(dtype, torch.float32))
    expected = reference.roi_align_rotated(input.double(), boxes.double(), (4, 5), 0.25, 2)
    moved = input.to(backend.device).requires_grad_()
    actual = roi_align_rotated(moved, boxes.to(backend.device), (4, 5), 0.25, 2)
    assert actual.dtype is dtype
    assert actual.is_contiguous(memory_format=layout)
    torch.testing.assert_close(actual.double().cpu(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    weight = random_input(*actual.shape, seed=1, dtype=dtype).to(memory_format=layout)
    (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
    assert gradient.is_contiguous(memory_format=layout)
    wide = input.double().requires_grad_()
    value = reference.roi_align_rotated(wide, boxes.double(), (4, 5), 0.25, 2)
    (expected_gradient,) = torch.autograd.grad(value, wide, weight.double())
    tolerance = 10 * TOLERANCE[dtype]
    torch.testing.assert_close(gradient.double().cpu(), expected_gradient, rtol=tolerance, atol=tolerance)


def test_list_of_boxes_equals_rows_with_batch_index(backend: Any) -> None:
    input = random_input(3, 4, 8, 10).to(backend.device)
    per_image = [random_boxes(n, 1, 32, 40, seed=n)[:, 1:].to(backend.device) for n in (2, 0, 3)]
    rows = torch.cat([torch.nn.functional.pad(b, (1, 0), value=float(i)) for i, b in enumerate(per_image)])
    expected = roi_align_rotated(input, rows, 2, 0.25)
    assert torch.equal(roi_align_rotated(input, per_image, 2, 0.25), expected)
    assert torch.equal(RoIAlignRotated(2, 0.25, -1)(input, per_image), expected)


def test_strided_input_and_gradient(backend: Any) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    boxes = random_boxes(9, 2, 40, 44).to(backend.device)
    for view in (wide[1:3, 2:20, 3:15, 5:20], wide[::2, ::2, ::2, ::2], wide.mT[:2], wide[:1, :1].expand(2, 7, 20, 22)):
        leaf = view.detach().requires_grad_()
        output = roi_align_rotated(leaf, boxes, 3, 0.5, 2)
        expected = roi_align_rotated(view.contiguous(), boxes, 3, 0.5, 2)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        weight = output.detach().mT.clone().mT
        (gradient,) = torch.autograd.grad(output, leaf, weight, retain_graph=True)
        (expected,) = torch.autograd.grad(output, leaf, weight.contiguous())
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38, -1e38, 3e9, -3e9, -1.0, 0.0])
@pytest.mark.parametrize("column", range(1, 6))
def test_extreme_numbers(backend: Any, value: float, column: int) -> None:
    """One strange number in a box: what the reference says, where it is a number that positions can be made of."""
    input = random_input(2, 3, 8, 8, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 4, 4, 5, 5, 30], [1.0, 4, 4, 5, 5, 90]])
    boxes[:, column] = value
    for ratio in (-1, 2):
        output = roi_align_rotated(input, boxes.to(backend.device), 2, 1.0, ratio)
        assert output.isfinite().all()
        assert torch.autograd.grad(output.sum(), input)[0].isfinite().all()
        if not math.isfinite(value) or (column in (3, 4) and (value < 0 or value > 1e30)):
            assert not output.any()
        elif abs(value) < 1e3:
            expected = reference.roi_align_rotated(input.detach().cpu().double(), boxes.double(), 2, 1.0, ratio)
            torch.testing.assert_close(output.detach().cpu().double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [-1.0, 2.0, 1e30, NAN, INF])
def test_batch_index_outside(backend: Any, index: float) -> None:
    input = random_input(2, 3, 8, 10).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 4, 4, 5, 5, 9], [index, 4, 4, 5, 5, 9]], dtype=torch.float64, device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=r"boxes\[1\] has batch index .* outside \[0, 2\)"):
            roi_align_rotated(input, boxes, 2)
        return
    output = roi_align_rotated(input, boxes, 2)
    assert output[0].any()
    assert not output[1].any()
    (gradient,) = torch.autograd.grad(output[1].sum(), input)
    assert not gradient.any()


@pytest.mark.parametrize("shape", [(1, 3, 0, 8), (1, 3, 8, 0), (1, 20, 0, 0)])
def test_a_map_without_pixels_gives_zeros(backend: Any, shape: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    output = roi_align_rotated(input, torch.tensor([[0.0, 1, 1, 4, 4, 7]] * 2, device=backend.device), (2, 3))
    assert output.shape == (2, shape[1], 2, 3)
    assert not output.any()
    assert torch.autograd.grad(output.sum(), input)[0].shape == shape


def test_nothing_is_left_over_from_uninitialised_memory(backend: Any) -> None:
    """Outputs are written whole: two calls into recycled memory full of NaN agree."""
    input = random_input(1, 33, 16, 17, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 3, 3, 5, 5, 9], [0, 9, 9, -2, 2, 9], [0, 400, 400, 50, 50, 9]], device=backend.device)
    for _ in range(2):
        del_me = [torch.full((3, 33, 7, 7), NAN, device=backend.device) for _ in range(8)]
        del del_me
        output = roi_align_rotated(input, boxes, 7)
        (gradient,) = torch.autograd.grad(output.sum(), input)
        assert torch.isfinite(output).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("output_size", [1, 17, (2, 70)])
def test_sizes_around_the_edges_of_tiles(backend: Any, output_size: Any) -> None:
    for height, width in ((1, 1), (7, 9), (8, 8), (16, 33)):
        input = random_input(1, 18, height, width).to(backend.device).requires_grad_()
        boxes = random_boxes(3, 1, height, width, seed=height).to(backend.device)
        output = roi_align_rotated(input, boxes, output_size, 1.0, 1)
        expected = reference.roi_align_rotated(input.cpu(), boxes.cpu(), output_size, 1.0, 1).to(backend.device)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(output.square().sum(), input)
        (expected_gradient,) = torch.autograd.grad(expected.square().sum(), input)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)


def test_many_rois_equal_a_few_at_a_time(backend: Any) -> None:
    count = 60 if backend.name == "emulated" else 2000
    input = random_input(3, 20, 32, 40, dtype=torch.float32).to(backend.device)
    boxes = random_boxes(count, 3, 32, 40, side=0.5).float().to(backend.device)
    boxes[7, 3] = NAN
    actual = roi_align_rotated(input, boxes, (7, 9), 1.0, 2)
    for begin in (0, 6, count // 2, count - 2):
        assert torch.equal(
            actual[begin : begin + 2], roi_align_rotated(input, boxes[begin : begin + 2], (7, 9), 1.0, 2)
        )


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in a view of memory that is mostly never touched."""
    apart = 2**31 + 4096
    storage = torch.empty(apart + 4096, dtype=torch.float16, device=backend.device)
    input = storage.as_strided((2, 3, 8, 9), (apart, 100, 10, 1))
    input.copy_(random_input(2, 3, 8, 9, dtype=torch.float16))
    boxes = torch.tensor([[1.0, 3, 3, 5, 6, 20], [0.0, 4, 4, 8, 7, 70]], device=backend.device)
    assert torch.equal(roi_align_rotated(input, boxes, 3), roi_align_rotated(input.contiguous(), boxes, 3))


def test_function_transforms(backend: Any) -> None:
    input = random_input(3, 2, 2, 6, 7).to(backend.device)
    boxes = torch.stack([random_boxes(4, 2, 12, 14, seed=s) for s in range(3)]).to(backend.device)

    def function(x: Tensor, b: Tensor) -> Tensor:
        return roi_align_rotated(x, b, 2, 0.5, 2)

    stacked = torch.stack([function(x, b) for x, b in zip(input, boxes, strict=True)])
    assert torch.equal(torch.vmap(function)(input, boxes), stacked)
    tangent = random_input(*input[0].shape, seed=3).to(backend.device)
    value, derivative = torch.func.jvp(lambda x: function(x, boxes[0]), (input[0],), (tangent,))
    assert torch.equal(value, stacked[0])
    torch.testing.assert_close(derivative, function(tangent, boxes[0]), rtol=1e-12, atol=1e-12)
