"""anchor_grid, decode_anchors and AnchorGenerator against the reference and torchvision, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.models.detection import AnchorGenerator
from fastcv.ops import anchor_grid, decode_anchors, decode_boxes

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SIZES = [(5, 7), (3, 4), (1, 2)]
STRIDES = [(4, 5), (8, 8), (17, 13)]


class Images:
    """What the generator looks at of torchvision's ImageList."""

    def __init__(self, tensors: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensors = tensors
        self.image_sizes = image_sizes


def cells(*counts: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    boxes = [torch.randint(1, 90, (count, 2), generator=generator) / 2 for count in counts]
    return [torch.cat([-half, half], 1).to(device, dtype) for half in boxes]


def batch(
    sizes: Any, height: int, width: int, images: int, dtype: torch.dtype, device: str
) -> tuple[Any, list[Tensor]]:
    image_list = Images(torch.empty(images, 0, height, width), [(height - i, width) for i in range(images)])
    return image_list, [torch.empty(images, 0, *size, dtype=dtype, device=device) for size in sizes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_grid_equals_the_reference(backend: Any, dtype: torch.dtype) -> None:
    for counts in ((3, 3, 3), (1, 2, 5), (4, 0, 1)):
        expected = reference.anchor_grid(SIZES, STRIDES, cells(*counts, dtype=dtype))
        actual = anchor_grid(SIZES, STRIDES, cells(*counts, dtype=dtype, device=backend.device))
        assert actual.dtype is dtype
        assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_generator_equals_torchvision(backend: Any, torchvision_ops: Any, dtype: torch.dtype) -> None:
    from torchvision.models.detection.anchor_utils import AnchorGenerator as Peer

    cases: list[tuple[Any, Any, Any, int, int]] = [
        (((32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 3, [(50, 84), (25, 42), (13, 21)], 200, 333),
        (((32, 40, 51), (64, 81)), ((0.5, 1.0), (0.3, 1.7, 3.0)), [(9, 11), (4, 5)], 77, 99),
        ((16, 32), (0.5, 2.0), [(7, 3), (1, 1)], 4000, 5000),
        (((128, 256, 512),), ((0.5, 1.0, 2.0),), [(13, 17)], 203, 271),
    ]
    for sizes, ratios, maps, height, width in cases:
        ours, peer = AnchorGenerator(sizes, ratios), Peer(sizes, ratios)
        assert ours.sizes == peer.sizes
        assert ours.aspect_ratios == peer.aspect_ratios
        assert ours.num_anchors_per_location() == peer.num_anchors_per_location()
        for a, e in zip(ours.cell_anchors, peer.cell_anchors, strict=True):
            assert torch.equal(a, e)
        expected = peer(*batch(maps, height, width, 2, dtype, "cpu"))
        actual = ours(*batch(maps, height, width, 2, dtype, backend.device))
        assert len(actual) == 2
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype is e.dtype
            assert torch.equal(a.cpu(), e)
        steps = [(torch.tensor(height // h), torch.tensor(width // w)) for h, w in maps]
        for a, e in zip(ours.grid_anchors(maps, steps), peer.grid_anchors(maps, steps), strict=True):
            assert torch.equal(a.cpu(), e)


def test_images_have_anchors_of_their_own(backend: Any) -> None:
    first, second = AnchorGenerator()(*batch([(4, 5)], 40, 50, 2, torch.float32, backend.device))
    before = second.clone()
    first.zero_()
    assert torch.equal(second, before)
    assert AnchorGenerator()(*batch([(4, 5)], 40, 50, 0, torch.float32, backend.device)) == []


def test_sizes_and_ratios_that_do_not_fit_the_maps() -> None:
    three = batch([(4, 5), (2, 3), (1, 2)], 40, 50, 1, torch.float32, "cpu")
    wrong = {(2, 2): (((8,), (16,)), ((1.0,),) * 2), (3, 1): (((8,), (16,), (32,)), ((1.0,),))}
    for counts, arguments in wrong.items():
        generator = AnchorGenerator(*arguments)
        message = f"sizes and aspect_ratios must have one entry per feature map, 3, got {counts[0]} and {counts[1]}$"
        with pytest.raises(ValueError, match=message):
            generator(*three)
        with pytest.raises(ValueError, match=message):
            generator.grid_anchors([(4, 5), (2, 3), (1, 2)], [(8, 8)] * 3)


def test_empty_maps(backend: Any) -> None:
    anchors = AnchorGenerator((8, 16), (1.0,))(*batch([(0, 5), (2, 0)], 40, 50, 1, torch.float32, backend.device))
    assert anchors[0].shape == (0, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_equals_decoding_the_grid(backend: Any, dtype: torch.dtype) -> None:
    bases = cells(3, 1, 4, dtype=dtype, device=backend.device)
    grid = anchor_grid(SIZES, STRIDES, bases)
    generator = torch.Generator().manual_seed(0)
    for count in (1, 31, 256, 300):
        indices = torch.randint(len(grid), (count,), generator=generator).to(backend.device)
        indices[0] = len(grid) - 1
        deltas = torch.randn(count, 4, generator=generator).to(backend.device, dtype)
        weights = (2.0, 3.0, 1.5, 1.0)
        expected = decode_boxes(deltas, grid[indices], weights, 0.8)
        actual = decode_anchors(deltas, indices, SIZES, STRIDES, bases, weights, 0.8)
        assert actual.dtype is dtype
        assert torch.equal(actual, expected)
        clipped = decode_anchors(deltas, indices, SIZES, STRIDES, bases, weights, 0.8, image_size=(20, 33))
        limit = torch.tensor([33, 20, 33, 20]).to(backend.device, dtype)
        assert torch.equal(clipped, torch.minimum(expected.clamp(min=0), limit))
    stacked = decode_anchors(deltas.view(3, 100, 4), indices.view(3, 100), SIZES, STRIDES, bases, weights, 0.8)
    assert torch.equal(stacked, expected.view(3, 100, 4))


def test_decoding_equals_the_reference(backend: Any) -> None:
    bases = cells(2, 2, 2, dtype=torch.float64)
    indices = torch.arange(98)
    deltas = torch.randn(98, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    deltas[3] = float("nan")
    deltas[4] = float("inf")
    for image_size in (None, (19, 31)):
        expected = reference.decode_anchors(deltas, indices, SIZES, STRIDES, bases, image_size=image_size)
        moved = [base.to(backend.device) for base in bases]
        places = (deltas.to(backend.device), indices.to(backend.device))
        actual = decode_anchors(*places, SIZES, STRIDES, moved, image_size=image_size)
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-12, atol=1e-11, equal_nan=True)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=16))
def test_random_pyramids(backend: Any, levels: list[tuple[int, int, int]]) -> None:
    sizes = [(height, width) for height, width, _ in levels]
    strides = [(3 + i, 2 + i) for i in range(len(levels))]
    bases = cells(*(count for *_, count in levels))
    expected = reference.anchor_grid(sizes, strides, bases)
    bases = [base.to(backend.device) for base in bases]
    assert torch.equal(anchor_grid(sizes, strides, bases).cpu(), expected)
    if len(expected):
        indices = torch.arange(len(expected), device=backend.device)
        decoded = decode_anchors(torch.zeros(len(expected), 4, device=backend.device), indices, sizes, strides, bases)
        torch.testing.assert_close(decoded.cpu(), expected)


@pytest.mark.parametrize("index", [-1, 98, 2**31, -(2**63), 2**63 - 1, 2**32])
def test_index_outside(backend: Any, index: int) -> None:
    bases = cells(2, 2, 2, device=backend.device)
    deltas = torch.ones(2, 4, device=backend.device)
    indices = torch.tensor([0, index], device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=rf"grid of 98 anchors, got {index} \(number 1\)"):
            decode_anchors(deltas, indices, SIZES, STRIDES, bases)
        return
    decoded = decode_anchors(deltas, indices, SIZES, STRIDES, bases)
    assert decoded[0].any()
    assert not decoded[1].any()


def test_strided_and_unaligned_input(backend: Any) -> None:
    bases = cells(2, 2, 2, device=backend.device)
    deltas, indices = torch.randn(40, 4, device=backend.device), torch.arange(40, device=backend.device)
    expected = decode_anchors(deltas, indices, SIZES, STRIDES, bases)
    flat = torch.cat([deltas.new_zeros(1), deltas.flatten()])[1:].view(-1, 4)
    assert torch.equal(decode_anchors(flat, indices, SIZES, STRIDES, bases), expected)
    wide, every = torch.cat([deltas, deltas], 1)[:, 4:], indices.repeat_interleave(2)[::2]
    assert torch.equal(decode_anchors(wide, every, SIZES, STRIDES, [b.t().contiguous().t() for b in bases]), expected)


def test_strides_of_one_number(backend: Any) -> None:
    bases = cells(2, 1, device=backend.device)
    expected = anchor_grid(SIZES[:2], [(4, 4), (8, 8)], bases)
    assert torch.equal(anchor_grid(SIZES[:2], [4, [8, 8]], bases), expected)


def test_batching_rule(backend: Any) -> None:
    bases = cells(2, 2, 2, device=backend.device)
    deltas = torch.randn(3, 20, 4, device=backend.device)
    indices = torch.randint(98, (3, 20), device=backend.device)

    def decode(d: Tensor, i: Tensor) -> Tensor:
        return decode_anchors(d, i, SIZES, STRIDES, bases, image_size=(20, 30))

    assert torch.equal(torch.vmap(decode)(deltas, indices), decode(deltas, indices))


@pytest.mark.parametrize("backend", ["cpu-default"], indirect=True)
def test_compiled_generator(backend: Any) -> None:
    """Sizes of maps and images are symbols."""
    generator = AnchorGenerator((8, 16), (1.0, 2.0))

    def generate(images: Tensor, *maps: Tensor) -> list[Tensor]:
        return generator(Images(images, [(1, 1)] * 2), maps)

    generator.set_cell_anchors(torch.float32, torch.device(backend.device))
    grown = torch.compile(generate, fullgraph=True, backend="aot_eager", dynamic=True)
    for side in (3, 5):
        images = torch.empty(2, 1, 8 * side, 8 * side + 16, device=backend.device)
        maps = [torch.empty(2, 1, side * k, (side + 2) * k, device=backend.device) for k in (2, 1)]
        for a, e in zip(grown(images, *maps), generate(images, *maps), strict=True):
            assert torch.equal(a, e)
