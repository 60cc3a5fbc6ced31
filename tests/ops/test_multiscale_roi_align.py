"""multiscale_roi_align against the reference and torchvision, on every backend."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.nn import MultiScaleRoIAlign
from fastcv.ops import multiscale_roi_align
from fastcv.reference.multiscale_roi_align import roi_levels

SCALES = [1 / 2, 1 / 4, 1 / 8]
CANONICAL = {"canonical_scale": 32, "canonical_level": 2}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def pyramid(
    channels: int = 5, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0, batch: int = 2
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(32, 40), (16, 20), (8, 10)]
    maps = [torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64) for size in sizes]
    return [m.to(device, dtype) for m in maps]


def random_boxes(count: int, batch: int = 2, seed: int = 0) -> Tensor:
    """Boxes of all levels in an image of 64 x 80, some partly outside."""
    generator = torch.Generator().manual_seed(seed)
    sides = 2 ** (6.5 * torch.rand(count, 1, generator=generator, dtype=torch.float64) + 0.5)
    sides = sides * (0.7 + 0.7 * torch.rand(count, 2, generator=generator, dtype=torch.float64))
    centre = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([80.0, 64.0])
    index = torch.randint(0, batch, (count, 1), generator=generator).double()
    return torch.cat([index, centre - sides / 2, centre + sides / 2], dim=1)


def leaves(features: list[Tensor], device: str = "cpu") -> list[Tensor]:
    return [f.detach().to(device).requires_grad_() for f in features]


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [-1, 2])
def test_values_and_gradients_equal_the_reference(backend: Any, sampling_ratio: int, aligned: bool) -> None:
    boxes = random_boxes(14)
    levels = (roi_levels(boxes, 32, 2) - 1).clamp(0, 2)
    assert set(levels.tolist()) == {0, 1, 2}
    expected_leaves = leaves(pyramid())
    expected = reference.multiscale_roi_align(
        expected_leaves, boxes, (3, 2), SCALES, sampling_ratio, aligned, **CANONICAL
    )
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected_gradients = torch.autograd.grad(expected, expected_leaves, weight)
    moved = leaves(pyramid(), backend.device)
    actual = multiscale_roi_align(moved, boxes.to(backend.device), (3, 2), SCALES, sampling_ratio, aligned, **CANONICAL)
    gradients = torch.autograd.grad(actual, moved, weight.to(backend.device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=1e-12)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("names", [["0", "1", "2", "3"], ["1", "3"], ["2"]])
def test_module_equals_torchvision(backend: Any, torchvision_ops: Any, names: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(64, 80), (32, 40), (16, 20), (8, 10)]
    maps = [torch.randn(2, 19, *size, generator=generator) for size in sizes]
    boxes = [torch.rand(n, 4, generator=generator) * 190 for n in (30, 9)]
    boxes = [torch.cat([torch.minimum(b[:, :2], b[:, 2:]), torch.maximum(b[:, :2], b[:, 2:])], 1) for b in boxes]
    special = torch.tensor([[5.0, 5, 5, 5], [0, 9, 50, 9], [50, 50, 20, 20], [50, 20, 20, 50], [0, 0, 900, 900]])
    boxes[0] = torch.cat([boxes[0], special])
    image_shapes = [(250, 320), (256, 300)]
    results = []
    for kind, device in ((torchvision_ops.MultiScaleRoIAlign, "cpu"), (MultiScaleRoIAlign, backend.device)):
        module = kind(names, 7, 2, canonical_scale=100)
        inputs = leaves(maps, device)
        output = module(OrderedDict(zip("0123", inputs, strict=True)), [b.to(device) for b in boxes], image_shapes)
        weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(device)
        gradients = torch.autograd.grad(output, [inputs[int(name)] for name in names], weight)
        results.append([t.detach().cpu() for t in (output, *gradients)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert repr(MultiScaleRoIAlign(names, 7, 2)) == repr(torchvision_ops.MultiScaleRoIAlign(names, (7, 7), 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_at_their_borders_are_those_of_torchvision(
    backend: Any, torchvision_ops: Any, dtype: torch.dtype
) -> None:
    """Each map holds its own level's number, and areas walk across the borders in steps of a rounding or so."""
    sides = []
    for border in (112.0, 224.0, 448.0, 896.0):
        step = torch.finfo(dtype).eps * border * (1 if dtype is torch.float32 else 2**28)
        sides.append(border + step * torch.arange(-60, 61, dtype=dtype) / 2)
    side = torch.cat(sides)
    zero = torch.zeros_like(side)
    boxes = torch.stack([zero, zero, zero, torch.full_like(side, 112.0), side * side / 112], 1)
    features = [torch.full((1, 1, 900, 60), float(level), dtype=dtype, device=backend.device) for level in range(5)]
    scales = [2.0**-k for k in range(2, 7)]
    expected = torchvision_ops.poolers.LevelMapper(2, 6)([boxes[:, 1:]])
    assert expected.unique().tolist() == [0, 1, 2, 3, 4]
    actual = multiscale_roi_align(features, boxes.to(backend.device), 1, scales, 1)[:, 0, 0, 0].cpu()
    assert torch.equal(actual, expected.to(dtype))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 18, 40])
def test_dtypes_and_layouts(backend: Any, dtype: torch.dtype, channels_last: bool, channels: int) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    features = [f.to(memory_format=layout) for f in pyramid(channels, dtype, backend.device)]
    for count in (3, 50):
        boxes = random_boxes(count).to(torch.promote_types(dtype, torch.float32)).to(backend.device)
        inputs = leaves(features, backend.device)
        actual = multiscale_roi_align(inputs, boxes, (4, 5), SCALES, 2, **CANONICAL)
        assert actual.dtype is dtype
        assert actual.is_contiguous(memory_format=layout)
        doubles = [f.double() for f in features]
        expected = multiscale_roi_align(doubles, boxes.double(), (4, 5), SCALES, 2, **CANONICAL)
        torch.testing.assert_close(actual.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        gradients = torch.autograd.grad(actual.double().square().sum(), inputs)
        linear = sum((g.double() * f.double()).sum() for g, f in zip(gradients, inputs, strict=True))
        square = 2 * actual.double().square().sum()
        assert abs(linear - square) <= 10 * TOLERANCE[dtype] * square


def test_mixed_layouts_and_strides(backend: Any) -> None:
    features = pyramid(6, device=backend.device)
    boxes = random_boxes(20).to(backend.device)
    expected = multiscale_roi_align(features, boxes, 3, SCALES, 2, **CANONICAL)
    mixed = [features[0].to(memory_format=torch.channels_last), features[1].mT.contiguous().mT]
    mixed.append(torch.cat([features[2], features[2]], 1)[:, :6])
    torch.testing.assert_close(multiscale_roi_align(mixed, boxes, 3, SCALES, 2, **CANONICAL), expected)
    torch.testing.assert_close(multiscale_roi_align(mixed[::-1], boxes, 3, [1.0] * 3), expected * 0, atol=9, rtol=0)


def test_maps_without_pixels_give_zeros(backend: Any) -> None:
    empty = [torch.zeros(1, 2, *size, device=backend.device, requires_grad=True) for size in ((0, 4), (3, 0), (0, 0))]
    boxes = torch.tensor([[0.0, 0, 0, 9, 9], [0, 0, 0, 30, 30], [0, 0, 0, 70, 70]], device=backend.device)
    output = multiscale_roi_align(empty, boxes, 2, SCALES, **CANONICAL)
    assert not output.any()
    torch.autograd.grad(output.sum(), empty)


def test_one_map_alone_wants_a_gradient(backend: Any) -> None:
    features = leaves(pyramid(), backend.device)
    boxes = random_boxes(14).to(backend.device)
    expected = torch.autograd.grad(multiscale_roi_align(features, boxes, 2, SCALES, **CANONICAL).sum(), features)
    for level, leaf in enumerate(features):
        alone = [leaf if other is leaf else other.detach() for other in features]
        (gradient,) = torch.autograd.grad(multiscale_roi_align(alone, boxes, 2, SCALES, **CANONICAL).sum(), leaf)
        assert torch.equal(gradient, expected[level])


def test_boxes_that_give_zeros(backend: Any) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [[0, nan, 1, 5, 5], [0, 1, inf, 5, inf], [0, -inf, 0, inf, 5], [0, 20, 5, 10, 15]]
    boxes = torch.tensor(rows, dtype=torch.float64, device=backend.device)
    features = leaves(pyramid(17), backend.device)
    output = multiscale_roi_align(features, boxes, 3, SCALES, 2, **CANONICAL)
    assert not output.any()
    for gradient in torch.autograd.grad(output.sum(), features):
        assert not gradient.any()


@pytest.mark.parametrize("index", [-1.0, 2.0, float("nan")])
def test_batch_index_outside(backend: Any, index: float) -> None:
    features = pyramid(device=backend.device)
    rows = [[0.0, 1, 1, 5, 5], [index, 1, 1, 50, 50]]
    boxes = torch.tensor(rows, dtype=torch.float64, device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=r"boxes\[1\] has batch index .* outside \[0, 2\)"):
            multiscale_roi_align(features, boxes, 2, SCALES)
        return
    output = multiscale_roi_align(features, boxes, 2, SCALES)
    assert output[0].any()
    assert not output[1].any()


def test_function_transforms(backend: Any) -> None:
    stacked = [torch.stack([a, b]) for a, b in zip(pyramid(seed=0), pyramid(seed=1), strict=True)]
    stacked = [s.to(backend.device) for s in stacked]
    boxes = random_boxes(6).to(backend.device)

    def function(*maps: Tensor) -> Tensor:
        return multiscale_roi_align(list(maps), boxes, 2, SCALES, 2, **CANONICAL)

    expected = torch.stack([function(*(s[i] for s in stacked)) for i in range(2)])
    assert torch.equal(torch.vmap(function)(*stacked), expected)
    single = [s[0] for s in stacked]
    gradients = torch.func.grad(lambda maps: function(*maps).square().sum())(single)
    inputs = leaves(single, backend.device)
    expected_gradients = torch.autograd.grad(function(*inputs).square().sum(), inputs)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    tangents = tuple(s[1] for s in stacked)
    value, derivative = torch.func.jvp(function, tuple(single), tangents)
    assert torch.equal(value, expected[0])
    torch.testing.assert_close(derivative, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["cpu-default"], indirect=True)
def test_compiled_module(backend: Any) -> None:
    module = MultiScaleRoIAlign(["a", "b", "c"], 3, 2, canonical_scale=32, canonical_level=2)
    maps = pyramid(3, torch.float32)
    boxes = random_boxes(7, batch=1).float()[:, 1:]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for function in (compiled, module):
        inputs = leaves(maps)
        output = function(dict(zip("abc", inputs, strict=True)), [boxes[:3], boxes[3:]], [(64, 80)] * 2)
        results.append((output.detach(), *torch.autograd.grad(output.square().sum(), inputs)))
    torch.testing.assert_close(*results)


def test_maps_of_mixed_precision(backend: Any) -> None:
    features = pyramid(3, torch.float32)
    boxes = random_boxes(4).float()
    module = MultiScaleRoIAlign(["0", "1"], 2, 2)
    mixed = {"0": features[0].to(backend.device), "1": features[1].to(backend.device).bfloat16()}
    assert module(mixed, [boxes[:, 1:].to(backend.device)] * 2, [(64, 80)]).dtype is torch.float32


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    batch, channels, levels = draw(st.integers(1, 2)), draw(st.integers(1, 20)), draw(st.integers(1, 4))
    sizes = [(draw(st.integers(1, 12)), draw(st.integers(1, 20))) for _ in range(levels)]
    generator = torch.Generator().manual_seed(levels)
    features = [torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64) for size in sizes]
    scales = [2.0**-level for level in range(levels)]
    coordinate = st.floats(-20, 60, width=32)
    rows = draw(st.lists(st.tuples(st.integers(0, batch - 1), *[coordinate] * 4), max_size=4))
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    options = (draw(st.integers(-1, 2)), draw(st.booleans()), 20, 1)
    expected = reference.multiscale_roi_align(features, boxes, (2, 3), scales, *options)
    moved = [f.to(backend.device) for f in features]
    actual = multiscale_roi_align(moved, boxes.to(backend.device), (2, 3), scales, *options)
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-11, atol=1e-11)
