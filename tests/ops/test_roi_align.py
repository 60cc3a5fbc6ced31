"""roi_align against the reference and torchvision, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.nn import RoIAlign
from fastcv.ops import roi_align

NAN, INF = float("nan"), float("inf")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def random_boxes(count: int, batch: int, height: float, width: float, seed: int = 0) -> Tensor:
    """Boxes of all sizes, some of them partly or wholly outside the image."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    corners *= torch.tensor([width, height, width, height], dtype=torch.float64)
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    index = torch.randint(0, batch, (count, 1), generator=generator).double()
    return torch.cat([index, low, high], dim=1)


def random_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


SPECIAL_BOXES = {
    "degenerate": [[0, 3, 3, 3, 3], [0, 2, 5, 9, 5]],
    "whole image": [[0, 0, 0, 40, 32]],
    "far outside": [[0, 500, 500, 600, 600], [0, -300, -300, -200, -200]],
    "half outside": [[0, -20, -20, 12, 12], [0, 30, 22, 60, 50]],
    "huge": [[0, -3000, -2000, 5000, 4000]],
    "smaller than a pixel": [[0, 8.2, 8.3, 8.4, 8.5]],
    "on the border": [[0, -1, -1, 0, 0], [0, 40, 32, 41, 33], [0, 36, 28, 40, 32]],
    "inverted": [[0, 20, 20, 10, 10], [0, 5, 20, 15, 10]],
    "not finite": [
        [0, float("nan"), 1, 5, 5],
        [0, 1, float("inf"), 5, float("inf")],
        [0, -float("inf"), 0, float("inf"), 5],
    ],
    "overflowing": [[0, -1e308, 0, 1e308, 10]],
}


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 0, 1, 2, 3])
def test_values_and_gradient_equal_the_reference(backend: Any, sampling_ratio: int, aligned: bool) -> None:
    input = random_input(2, 5, 8, 10).requires_grad_()
    boxes = random_boxes(6, 2, 32, 40)
    expected = reference.roi_align(input, boxes, (3, 2), 0.25, sampling_ratio, aligned)
    weight = random_input(*expected.shape, seed=1)
    (expected_gradient,) = torch.autograd.grad(expected, input, weight)
    moved = input.detach().to(backend.device).requires_grad_()
    actual = roi_align(moved, boxes.to(backend.device), (3, 2), 0.25, sampling_ratio, aligned)
    (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("kind", SPECIAL_BOXES)
def test_special_boxes(backend: Any, kind: str, aligned: bool) -> None:
    boxes = torch.tensor(SPECIAL_BOXES[kind], dtype=torch.float64)
    input = random_input(1, 3, 8, 10).requires_grad_()
    for sampling_ratio in (-1, 2):
        if kind == "huge" and sampling_ratio == -1:
            expected = reference.roi_align(input, boxes, 7, 0.05, sampling_ratio, aligned)
            actual_scale = 0.05
        else:
            expected = reference.roi_align(input, boxes, 7, 0.25, sampling_ratio, aligned)
            actual_scale = 0.25
        moved = input.detach().to(backend.device).requires_grad_()
        actual = roi_align(moved, boxes.to(backend.device), 7, actual_scale, sampling_ratio, aligned)
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=1e-12)
        (expected_gradient,) = torch.autograd.grad(expected.sum() + 0 * input.sum(), input)
        (gradient,) = torch.autograd.grad(actual.sum(), moved)
        torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 0, 1, 2, 3])
def test_agrees_with_torchvision(backend: Any, torchvision_ops: Any, sampling_ratio: int, aligned: bool) -> None:
    input = random_input(2, 19, 20, 25, dtype=torch.float32).requires_grad_()
    boxes = random_boxes(12, 2, 80, 100).float()
    special = [row for kind, rows in SPECIAL_BOXES.items() for row in rows if kind in ("degenerate", "half outside")]
    outside = [row for kind in ("far outside", "whole image", "on the border") for row in SPECIAL_BOXES[kind]]
    boxes = torch.cat([boxes, torch.tensor(special + outside, dtype=torch.float32)])
    boxes = torch.cat([boxes, torch.tensor([[1.0, -2000, -1000, 3000, 1500]])])  # huge
    if not aligned or sampling_ratio > 0:  # mirrored samples; where the grid is adaptive torchvision raises an error
        inverted = [[0, 70, 60, 20, 25], [1, 5, 70, 90, 10], [0, 90, 5, 60, 30], [1, 130, 95, -40, -30]]
        boxes = torch.cat([boxes, torch.tensor([*SPECIAL_BOXES["inverted"], *inverted])])
    expected = torchvision_ops.roi_align(input, boxes, (7, 5), 0.25, sampling_ratio, aligned)
    weight = random_input(*expected.shape, seed=1, dtype=torch.float32)
    (expected_gradient,) = torch.autograd.grad(expected, input, weight)
    moved = input.detach().to(backend.device).requires_grad_()
    actual = roi_align(moved, boxes.to(backend.device), (7, 5), 0.25, sampling_ratio, aligned)
    (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-5, atol=1e-5)


def test_list_of_boxes_equals_rows_with_batch_index(backend: Any) -> None:
    input = random_input(3, 4, 8, 10).to(backend.device)
    per_image = [random_boxes(n, 1, 32, 40, seed=n)[:, 1:].to(backend.device) for n in (2, 0, 3)]
    rows = torch.cat([torch.nn.functional.pad(b, (1, 0), value=float(i)) for i, b in enumerate(per_image)])
    assert torch.equal(roi_align(input, per_image, 2, 0.25), roi_align(input, rows, 2, 0.25))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 16, 31, 64, 130])
def test_dtypes_layouts_and_channel_counts(
    backend: Any, dtype: torch.dtype, channels_last: bool, channels: int
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = random_input(2, channels, 9, 17, dtype=dtype).to(memory_format=layout)
    for count in (2, 40):  # few RoIs pack windows, many pack the map
        boxes = random_boxes(count, 2, 36, 68).to(torch.promote_types(dtype, torch.float32))
        slice_of_channels = slice(0, channels, max(1, channels // 3))
        few = min(count, 4)
        expected = reference.roi_align(
            input.double()[:, slice_of_channels], boxes[:few].double(), (4, 5), 0.25, 2, True
        )
        moved = input.to(backend.device).requires_grad_()
        actual = roi_align(moved, boxes.to(backend.device), (4, 5), 0.25, 2, True)
        assert actual.dtype is dtype
        assert actual.is_contiguous(memory_format=layout)
        chosen = actual[:few, slice_of_channels].double().cpu()
        torch.testing.assert_close(chosen, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        weight = random_input(*actual.shape, seed=1, dtype=dtype).to(memory_format=layout)
        (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
        # The transpose of a linear map: <grad_output, op(v)> = <grad_input, v>.
        probe = random_input(*input.shape, seed=2, dtype=dtype).to(memory_format=layout)
        left = (weight.double() * roi_align(probe.double(), boxes.double(), (4, 5), 0.25, 2, True)).sum()
        right = (gradient.double().cpu() * probe.double()).sum()
        scale = (weight.double().abs() * roi_align(probe.double().abs(), boxes.double(), (4, 5), 0.25, 2, True)).sum()
        assert abs(left - right) <= TOLERANCE[dtype] * scale


def test_strided_input(backend: Any) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    boxes = random_boxes(30, 2, 40, 44).to(backend.device)
    views = {
        "sliced": wide[1:3, 2:20, 3:15, 5:20],
        "every second": wide[::2, ::2, ::2, ::2],
        "transposed": wide.transpose(2, 3)[:2],
        "expanded": wide[:1, :1].expand(2, 7, 20, 22),
        "channels_last slice": wide.to(memory_format=torch.channels_last)[:2, 3:21],
    }
    for name, view in views.items():
        expected = roi_align(view.contiguous(), boxes, 3, 0.5, 2)
        torch.testing.assert_close(roi_align(view, boxes, 3, 0.5, 2), expected, rtol=1e-12, atol=1e-12, msg=name)


def test_strided_gradient(backend: Any) -> None:
    input = random_input(2, 5, 8, 10).to(backend.device).requires_grad_()
    boxes = random_boxes(4, 2, 32, 40).to(backend.device)
    output = roi_align(input, boxes, (3, 4), 0.25, 2)
    for weight in (torch.ones((), device=output.device).double().expand(output.shape), output.detach().mT.clone().mT):
        (gradient,) = torch.autograd.grad(output, input, weight, retain_graph=True)
        (expected,) = torch.autograd.grad(output, input, weight.contiguous(), retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 3, 0, 8), (1, 3, 8, 0), (1, 3, 0, 0)])
def test_a_map_without_pixels_gives_zeros(backend: Any, shape: tuple[int, ...]) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    output = roi_align(input, torch.tensor([[0.0, 1, 1, 4, 4]] * 2, device=backend.device), (2, 3))
    assert output.shape == (2, 3, 2, 3)
    assert not output.any()
    (gradient,) = torch.autograd.grad(output.sum(), input)
    assert gradient.shape == shape


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38, -1e38, 3e9, -3e9])
def test_extreme_corners(backend: Any, value: float) -> None:
    """Numbers beyond those of integers, in one corner of a box: something finite, and a gradient of that."""
    input = random_input(2, 3, 8, 8, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5]]).repeat(4, 1)
    for column in range(4):
        boxes[column, 1 + column] = value
    for aligned in (False, True):
        for ratio in (-1, 2):
            output = roi_align(input, boxes.to(backend.device), 2, 1.0, ratio, aligned)
            assert output.isfinite().all()
            assert torch.autograd.grad(output.sum(), input)[0].isfinite().all()


@pytest.mark.parametrize("index", [-1.0, 2.0, 1e30, float("nan"), float("inf")])
def test_batch_index_outside(backend: Any, index: float) -> None:
    input = random_input(2, 3, 8, 10).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5], [index, 1, 1, 5, 5]], dtype=torch.float64, device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=r"boxes\[1\] has batch index .* outside \[0, 2\)"):
            roi_align(input, boxes, 2)
        return
    output = roi_align(input, boxes, 2)
    assert output[0].any()
    assert not output[1].any()
    (gradient,) = torch.autograd.grad(output[1].sum(), input)
    assert not gradient.any()


def test_nothing_is_left_over_from_uninitialised_memory(backend: Any) -> None:
    """Outputs are written whole: two calls into recycled memory full of NaN agree."""
    input = random_input(1, 33, 16, 17, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5], [0, 9, 9, 2, 2], [0, 400, 400, 500, 500]], device=backend.device)
    for _ in range(2):
        del_me = [torch.full((3, 33, 7, 7), float("nan"), device=backend.device) for _ in range(8)]
        del del_me
        output = roi_align(input, boxes, 7, aligned=True)
        (gradient,) = torch.autograd.grad(output.sum(), input)
        assert torch.isfinite(output).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("output_size", [1, 31, 32, 33, (2, 70)])
def test_sizes_around_the_edges_of_tiles(backend: Any, output_size: Any) -> None:
    for height, width in ((1, 1), (7, 9), (8, 8), (16, 33)):
        input = random_input(1, 2, height, width).to(backend.device).requires_grad_()
        boxes = random_boxes(2, 1, height, width, seed=height).to(backend.device)
        output = roi_align(input, boxes, output_size, 1.0, 1)
        expected = reference.roi_align(input, boxes, output_size, 1.0, 1)
        torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
        (gradient,) = torch.autograd.grad(output.square().sum(), input)
        (expected_gradient,) = torch.autograd.grad(expected.square().sum(), input)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-11)


def test_many_samples_per_bin(backend: Any) -> None:
    """More taps than the fixed tables of the CUDA kernel hold."""
    input = random_input(1, 2, 90, 100).to(backend.device)
    boxes = torch.tensor([[0, -5.0, -5.0, 99.0, 88.0]], dtype=torch.float64, device=backend.device)
    for size, ratio in ((1, -1), (2, 300), (7, 40)):
        expected = _by_interpolation_matrices(input, boxes, size, ratio)
        torch.testing.assert_close(roi_align(input, boxes, size, 1.0, ratio), expected, rtol=1e-10, atol=1e-10)


def _by_interpolation_matrices(input: Tensor, boxes: Tensor, size: int, ratio: int) -> Tensor:
    """The pooled value as a product of one interpolation matrix per axis: quick for many samples."""

    def axis(low: float, high: float, pixels: int) -> Tensor:
        length = max(high - low, 1.0)
        grid = ratio if ratio > 0 else -int(-length // size)
        position = low + (torch.arange(size * grid, dtype=torch.float64) + 0.5) * length / (size * grid)
        inside = (position >= -1) & (position <= pixels)
        position = position.clamp(0, pixels - 1)
        distance = (position[:, None] - torch.arange(pixels, dtype=torch.float64)).abs()
        weight = (1 - distance).clamp(min=0) * inside[:, None]
        return weight.reshape(size, grid, pixels).mean(1).to(input.device)

    pooled = []
    for index, x1, y1, x2, y2 in boxes.tolist():
        rows, columns = axis(y1, y2, input.shape[2]), axis(x1, x2, input.shape[3])
        pooled.append(rows @ input[int(index)] @ columns.T)
    return torch.stack(pooled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels", [17, 40])
def test_many_rois_equal_a_few_at_a_time(backend: Any, dtype: torch.dtype, channels: int) -> None:
    """So many that their taps and their results exceed what the CPU holds at once; the emulator takes fewer."""
    count, ratio = (200, 2) if backend.is_emulated else (4000, 64)
    input = random_input(2, channels, 32, 40, dtype=dtype).to(backend.device)
    boxes = random_boxes(count, 2, 32, 40).float()
    boxes[7, 3] = torch.nan
    boxes = boxes.to(backend.device)
    actual = roi_align(input, boxes, (7, 9), 1.0, ratio)
    for begin in (0, 6, count // 2, count - 2):
        few = boxes[begin : begin + 2]
        assert torch.equal(actual[begin : begin + 2], roi_align(input, few, (7, 9), 1.0, ratio))
        expected = reference.roi_align(input[:, -2:].cpu().double(), few.cpu().double(), (7, 9), 1.0, ratio)
        torch.testing.assert_close(actual[begin : begin + 2, -2:].cpu().double(), expected, rtol=2e-3, atol=2e-3)
    last = roi_align(input.contiguous(memory_format=torch.channels_last), boxes, (7, 9), 1.0, ratio)
    torch.testing.assert_close(actual, last)


def test_thousand_rois_and_their_gradient(backend: Any, torchvision_ops: Any) -> None:
    """More RoIs than CUDA's kernels list at once, and so many that a block takes all channels."""
    boxes, weight, results = random_boxes(1100, 1, 9, 9), random_input(1100, 70, 2, 1, seed=2), []
    for op, device in ((torchvision_ops.roi_align, "cpu"), (roi_align, backend.device)):
        input = random_input(1, 70, 9, 9).to(device).requires_grad_()
        pooled = op(input, boxes.to(device), (2, 1), 1.0, 1)
        results.append([pooled.cpu(), torch.autograd.grad(pooled, input, weight.to(device))[0].cpu()])
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11)


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in a view of memory that is mostly never touched."""
    apart = 2**31 + 4096
    storage = torch.empty(apart + 4096, dtype=torch.float16, device=backend.device)
    input = storage.as_strided((2, 3, 8, 9), (apart, 100, 10, 1))
    input.copy_(random_input(2, 3, 8, 9, dtype=torch.float16))
    boxes = torch.tensor([[1.0, 1, 1, 5, 6], [0.0, 0, 0, 8, 7]], device=backend.device)
    expected = roi_align(input.contiguous(), boxes, 3)
    assert torch.equal(roi_align(input, boxes, 3), expected)


def test_gradients_are_not_computed_where_not_needed(backend: Any) -> None:
    input = random_input(1, 2, 4, 5).to(backend.device)
    boxes = random_boxes(3, 1, 8, 10).to(backend.device).requires_grad_()
    assert not roi_align(input, boxes, 2).requires_grad
    input.requires_grad_()
    with torch.no_grad():
        assert not roi_align(input, boxes, 2).requires_grad


def test_function_transforms(backend: Any) -> None:
    input = random_input(3, 2, 2, 6, 7).to(backend.device)
    boxes = torch.stack([random_boxes(4, 2, 12, 14, seed=s) for s in range(3)]).to(backend.device)

    def function(x: Tensor, b: Tensor) -> Tensor:
        return roi_align(x, b, 2, 0.5, 2)

    stacked = torch.stack([function(x, b) for x, b in zip(input, boxes, strict=True)])
    assert torch.equal(torch.vmap(function)(input, boxes), stacked)
    shared = torch.stack([function(input[0], b) for b in boxes])
    assert torch.equal(torch.vmap(function, in_dims=(None, 0))(input[0], boxes), shared)
    batched = torch.vmap(lambda x, b: torch.ops.fastcv.roi_align(x, b, 2, 2, 0.5, 2, False))(input, boxes)
    assert torch.equal(batched, stacked)

    tangent = random_input(*input[0].shape, seed=3).to(backend.device)
    value, derivative = torch.func.jvp(lambda x: function(x, boxes[0]), (input[0],), (tangent,))
    assert torch.equal(value, stacked[0])
    torch.testing.assert_close(derivative, function(tangent, boxes[0]), rtol=1e-12, atol=1e-12)
    leaf = input[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf, boxes[0]).square().sum(), leaf)
    gradient = torch.func.grad(lambda x: function(x, boxes[0]).square().sum())(input[0])
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    per_sample = torch.vmap(torch.func.grad(lambda x, b: function(x, b).square().sum()))(input, boxes)
    torch.testing.assert_close(per_sample[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu-default"], indirect=True)
def test_compile_and_export(backend: Any) -> None:
    """What the contract suite does not: symbolic sizes, the gradient of a compiled call, lists of boxes, export."""
    module = RoIAlign(3, 0.5, 2, aligned=True)
    input = random_input(2, 3, 6, 7, dtype=torch.float32).to(backend.device)
    boxes = random_boxes(5, 2, 12, 14).float().to(backend.device)
    expected = module(input, boxes)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (5, 2, 3):
        leaf = input.clone().requires_grad_()
        output = compiled(leaf, boxes[:count])
        assert torch.equal(output, expected[:count])
        (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
        eager = input.clone().requires_grad_()
        (expected_gradient,) = torch.autograd.grad(module(eager, boxes[:count]).square().sum(), eager)
        torch.testing.assert_close(gradient, expected_gradient)
    assert torch.equal(compiled(input, [boxes[:2, 1:], boxes[2:, 1:]]), module(input, [boxes[:2, 1:], boxes[2:, 1:]]))
    exported = torch.export.export(module, (input, boxes), strict=False)
    assert torch.equal(exported.module()(input, boxes), expected)


def test_autocast_keeps_the_dtype_of_the_input(backend: Any) -> None:
    input = random_input(2, 3, 6, 7, dtype=torch.bfloat16).to(backend.device)
    boxes = random_boxes(5, 2, 12, 14).float().to(backend.device)
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        output = roi_align(input, boxes, 2)
    assert output.dtype is torch.bfloat16
    assert torch.equal(output, roi_align(input, boxes, 2))


def test_meta_tensors(backend: Any) -> None:
    input, boxes = random_input(1, 3, 6, 7).to("meta"), random_boxes(2, 1, 12, 14).to("meta")
    assert roi_align(input, boxes, 2).shape == (2, 3, 2, 2)


def test_negative_bit_is_resolved(backend: Any) -> None:
    base = torch.complex(random_input(1, 2, 4, 5), random_input(1, 2, 4, 5, seed=1)).to(backend.device)
    view = base.conj().imag
    assert view.is_neg()
    boxes = random_boxes(2, 1, 4, 5).to(backend.device)
    assert torch.equal(roi_align(view, boxes, 2), roi_align(view.resolve_neg(), boxes, 2))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    coordinate = st.floats(-20, 60, width=32)
    rows = draw(st.lists(st.tuples(st.integers(0, batch - 1), *[coordinate] * 4), max_size=3))
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    scale, ratio = draw(st.sampled_from([1.0, 0.5, 0.0625])), draw(st.integers(-1, 3))
    aligned = draw(st.booleans())
    input = random_input(batch, channels, height, width)
    expected = reference.roi_align(input, boxes, size, scale, ratio, aligned)
    actual = roi_align(input.to(backend.device), boxes.to(backend.device), size, scale, ratio, aligned)
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-11, atol=1e-11)
