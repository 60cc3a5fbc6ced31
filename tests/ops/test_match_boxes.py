"""match_boxes against the reference and torchvision's Matcher, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import match_boxes

INF, NAN = float("inf"), float("nan")
COUNTS = [1, 2, 15, 16, 17, 63, 64, 65, 130, 300]


@pytest.fixture
def peer(torchvision_ops: Any) -> Any:
    from torchvision.models.detection._utils import Matcher

    def match(gt: Tensor, candidates: Tensor, high: float, low: float, allow: bool) -> Tensor:
        if gt.dtype is candidates.dtype and gt.dtype.itemsize == 2:  # torchvision rounds the sides to half on the way
            gt, candidates = gt.float(), candidates.float()
        return Matcher(high, low, allow)(torchvision_ops.box_iou(gt, candidates))

    return match


def random_boxes(count: int, seed: int, size: float = 60.0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100 - 20
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    return torch.cat([corner, corner + sides], 1).to(dtype)


def lattice_boxes(count: int, seed: int) -> Tensor:
    """Small integer boxes, with many ties, duplicates, empty and inverted ones."""
    return torch.randint(0, 4, (count, 4), generator=torch.Generator().manual_seed(seed)).float()


def check(backend: Any, peer: Any, gt: Tensor, candidates: Tensor, high: float = 0.5, low: float = 0.3) -> None:
    for allow in (False, True):
        actual = match_boxes(gt.to(backend.device), candidates.to(backend.device), high, low, allow).cpu()
        expected = peer(gt, candidates, high, low, allow)
        assert actual.dtype is torch.int64
        assert torch.equal(actual, expected), (actual.tolist(), expected.tolist())


@pytest.mark.parametrize("allow", [False, True])
def test_equals_the_reference(backend: Any, allow: bool) -> None:
    for seed in range(4):
        gt, candidates = random_boxes(5, seed), random_boxes(20, seed + 100)
        if seed % 2:
            gt, candidates = lattice_boxes(5, seed), lattice_boxes(20, seed + 100)
        expected = reference.match_boxes(gt, candidates, 0.4, 0.2, allow)
        assert torch.equal(
            match_boxes(gt.to(backend.device), candidates.to(backend.device), 0.4, 0.2, allow).cpu(), expected
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_equals_torchvision(backend: Any, peer: Any, dtype: torch.dtype) -> None:
    for index, count in enumerate(COUNTS):
        gts = (1, 3, 16, 17, 40)[index % 5]
        check(backend, peer, random_boxes(gts, index, dtype=dtype), random_boxes(count, 50 + index, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_mixed_dtypes_equal_torchvision(backend: Any, peer: Any, dtype: torch.dtype) -> None:
    for other in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        # Of so few digits that areas, which torchvision takes in float32 even beside float64, are exact.
        gt, candidates = (random_boxes(n, n).mul(4).round().div(4) for n in (17, 130))
        check(backend, peer, gt.to(dtype), candidates.to(other))


def test_ties_and_duplicates(backend: Any, peer: Any) -> None:
    for seed in range(6):
        check(backend, peer, lattice_boxes(7, seed), lattice_boxes(150, seed + 50), 0.7, 0.3)
    boxes = random_boxes(20, 1)
    check(backend, peer, boxes.repeat(3, 1), boxes.repeat(5, 1))


def test_thresholds(backend: Any, peer: Any) -> None:
    gt, candidates = random_boxes(6, 0), random_boxes(90, 1)
    for high, low in ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (2.0, -1.0), (0.1, 0.1), (-1.0, -1.0), (INF, -INF)):
        check(backend, peer, gt, candidates, high, low)
    # An overlap of exactly the threshold, in float32: 0.7 = 7/10.
    gt = torch.tensor([[0.0, 0, 10, 10]])
    candidates = torch.tensor([[0.0, 0, 10, 7], [0, 0, 10, 3], [0, 0, 10, 7.0001], [0, 0, 10, 2.9999]])
    check(backend, peer, gt, candidates, 0.7, 0.3)


SPECIAL = {
    "nan": [[NAN, 0, 5, 5], [1, 1, NAN, 4]],
    "infinite": [[0, 0, INF, 5], [-INF, -INF, INF, INF], [INF, 0, INF, 5], [-INF, 0, 3, 4], [5, 5, -INF, 9]],
    "without area": [[3, 3, 3, 3], [1, 5, 9, 5], [0, 0, 0, 0]],
    "inverted": [[5, 5, 1, 1], [5, 1, 1, 5], [1, 5, 5, 1]],
    "overflowing": [[-3e38, -3e38, 3e38, 3e38], [-3e38, 0, 3e38, 1], [0, 0, 1e30, 1e30]],
    "tiny": [[0, 0, 1e-30, 1e-30], [0, 0, 1e-20, 1e-20], [0, 0, 1e-40, 1]],
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_boxes(backend: Any, peer: Any, kind: str) -> None:
    special = torch.tensor(SPECIAL[kind], dtype=torch.float32)
    regular = random_boxes(100, 3) * 0.2
    mixed = torch.cat([regular[:70], special, regular[70:]])
    check(backend, peer, regular[:5], mixed)
    check(backend, peer, torch.cat([regular[:2], special, regular[2:4]]), regular)
    check(backend, peer, torch.cat([special, regular[:3]]), mixed)
    check(backend, peer, special, special)
    check(backend, peer, special.double(), mixed.double())


def test_gt_that_nothing_overlaps(backend: Any, peer: Any) -> None:
    gt = torch.cat([random_boxes(3, 0), torch.tensor([[900.0, 900, 950, 950]])])
    candidates = random_boxes(200, 1, size=20)
    check(backend, peer, gt, candidates)
    actual = match_boxes(gt.to(backend.device), candidates.to(backend.device), 0.5, 0.3, True)
    assert (actual >= 0).all()


def test_many_blocks_and_tiles(backend: Any, peer: Any) -> None:
    """More candidates than a CPU block and more gts than a CUDA tile hold; sorted by place, as anchors are."""
    xs, ys = torch.meshgrid(torch.arange(75.0), torch.arange(60.0), indexing="xy")
    corner = torch.stack([xs, ys], -1).reshape(-1, 2) * 2
    anchors = torch.cat([corner - 5, corner + 7], 1)
    gt = random_boxes(131, 5, size=20)
    check(backend, peer, gt[:7], anchors, 0.7, 0.3)
    check(backend, peer, gt, anchors[:700], 0.7, 0.3)
    if not backend.is_cuda:
        check(backend, peer, random_boxes(2100, 6), anchors[:4000])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(1, 140), st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.5]), st.booleans())
def test_random_shapes(backend: Any, peer: Any, gts: int, count: int, seed: int, low: float, lattice: bool) -> None:
    draw = lattice_boxes if lattice else random_boxes
    check(backend, peer, draw(gts, seed), draw(count, seed + 5000), 0.5, low)


@pytest.mark.parametrize("allow", [False, True])
def test_without_ground_truth_all_is_background(backend: Any, allow: bool) -> None:
    boxes, none = random_boxes(70, 0).to(backend.device), torch.zeros(0, 4, device=backend.device)
    assert torch.equal(match_boxes(none, boxes, 0.5, 0.3, allow).cpu(), torch.full((70,), -1))


def test_strided_and_unaligned_input(backend: Any) -> None:
    wide = random_boxes(140, 0).to(backend.device)
    gt = random_boxes(9, 1).to(backend.device)
    views = {
        "every second": wide[::2],
        "columns": torch.cat([wide, wide], 1)[:, 4:],
        "transposed": wide.t().contiguous().t(),
        "expanded": wide[:1].expand(50, 4),
        "unaligned": torch.cat([wide.new_zeros(1), wide.flatten()])[1:].view(-1, 4),
    }
    for name, view in views.items():
        for a, b in ((gt, view), (view, gt)):
            expected = match_boxes(a.contiguous().clone(), b.contiguous().clone(), 0.5, 0.3, True)
            assert torch.equal(match_boxes(a, b, 0.5, 0.3, True), expected), name


def test_vmap_and_meta(backend: Any) -> None:
    gt = torch.stack([random_boxes(4, s) for s in range(3)]).to(backend.device)
    candidates = torch.stack([random_boxes(40, s + 10) for s in range(3)]).to(backend.device)
    stacked = torch.stack([match_boxes(g, c, 0.5, 0.3, True) for g, c in zip(gt, candidates, strict=True)])
    assert torch.equal(torch.vmap(lambda g, c: match_boxes(g, c, 0.5, 0.3, True))(gt, candidates), stacked)
    assert match_boxes(gt[0].to("meta"), candidates[0].to("meta"), 0.5, 0.3).shape == (40,)


def test_boxes_that_require_a_gradient_are_only_looked_at(backend: Any) -> None:
    gt = random_boxes(4, 0).to(backend.device).requires_grad_()
    candidates = random_boxes(20, 1).to(backend.device).requires_grad_()
    assert not match_boxes(gt, candidates, 0.5, 0.3).requires_grad
