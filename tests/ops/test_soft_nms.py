"""soft_nms against the reference, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import nms, soft_nms
from fastcv.ops._call import COMPILED

NAN, INF = float("nan"), float("inf")
METHODS = ("linear", "gaussian")


def random_boxes(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100 - 50
    sides = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + sides], dim=1).to(dtype), scores.to(dtype)


def on(backend: Any, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(backend.device) for tensor in tensors]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130, 300])
def test_values_equal_the_reference(backend: Any, count: int, method: str) -> None:
    boxes, scores = random_boxes(count, count)
    for threshold, sigma, min_score in ((0.3, 0.5, 1e-3), (0.0, 0.1, 0.2), (0.7, 2.0, 0.0)):
        expected, expected_scores = reference.soft_nms(boxes, scores, threshold, sigma, min_score, method)
        kept, kept_scores = soft_nms(*on(backend, boxes, scores), threshold, sigma, min_score, method)
        assert torch.equal(kept.cpu(), expected)
        torch.testing.assert_close(kept_scores.cpu(), expected_scores, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_linear_is_bit_equal_to_the_reference(backend: Any, dtype: torch.dtype) -> None:
    """The linear form has no function that could round differently."""
    for seed in range(10):
        boxes, scores = random_boxes(90, seed, dtype)
        expected, expected_scores = reference.soft_nms(boxes, scores)
        kept, kept_scores = soft_nms(*on(backend, boxes, scores))
        assert kept_scores.dtype is dtype
        assert torch.equal(kept.cpu(), expected)
        assert torch.equal(kept_scores.cpu(), expected_scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gaussian_scores_are_close(backend: Any, dtype: torch.dtype) -> None:
    """In float32 two scores that nearly tie may change places: compared box by box."""
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    boxes, scores = random_boxes(90, 3, dtype)
    for sigma in (0.01, 0.5, 10.0):
        expected, expected_scores = reference.soft_nms(boxes.double(), scores.double(), 0.3, sigma, 0.0, "gaussian")
        kept, kept_scores = soft_nms(*on(backend, boxes, scores), 0.3, sigma, 0.0, "gaussian")
        by_box = torch.zeros(90, dtype=torch.float64)
        by_box[kept.cpu()] = kept_scores.cpu().double()
        expected_by_box = torch.zeros(90, dtype=torch.float64)
        expected_by_box[expected] = expected_scores
        torch.testing.assert_close(by_box, expected_by_box, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize(("dtype", "zero"), [(torch.float32, 103.98), (torch.float64, 745.2)])
def test_gaussian_underflows_as_the_reference_does(backend: Any, dtype: torch.dtype, zero: float) -> None:
    """Below the normal numbers to within a unit of the smallest number, and to 0 where the reference gives 0."""
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for exponent in (0.8 * zero, 0.85 * zero, 0.9 * zero, 0.99 * zero, zero, 1.1 * zero, 100 * zero, 1e30 * zero):
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2.5]], dtype=dtype)
        scores = torch.tensor([0.9, 0.8, 0.7], dtype=dtype)
        options = {"sigma": 0.25 / exponent, "min_score": 0.0, "method": "gaussian"}  # overlaps of a half and a quarter
        kept, kept_scores = soft_nms(*on(backend, boxes, scores), **options)
        expected, expected_scores = reference.soft_nms(boxes, scores, **options)
        assert torch.equal(kept.cpu(), expected)
        torch.testing.assert_close(kept_scores.cpu(), expected_scores, rtol=8 * torch.finfo(dtype).eps, atol=smallest)
        assert torch.equal(kept_scores.cpu() == 0, expected_scores == 0)
        if exponent >= zero:
            assert kept_scores.tolist()[1:].count(0) >= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_all_backends_give_the_same_bits(
    backend: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, method: str
) -> None:
    """The exponential function is part of the decision: no backend may have one of its own."""
    boxes, scores = random_boxes(150, 4, dtype)
    kept, kept_scores = soft_nms(*on(backend, boxes, scores), method=method)
    from fastcv.ops._build import _C

    monkeypatch.setitem(COMPILED, "_C", _C)
    before = _C.build_info()["cpu_variant"]
    try:
        _C.set_cpu_variant("baseline")
        expected, expected_scores = soft_nms(boxes, scores, method=method)
    finally:
        _C.set_cpu_variant(before)
    assert torch.equal(kept.cpu(), expected)
    assert torch.equal(kept_scores.cpu(), expected_scores)


def test_threshold_zero_weight_is_nms(backend: Any) -> None:
    """Duplicates lose everything: with a score bound the linear form then keeps what nms keeps."""
    boxes, scores = random_boxes(40, 5)
    boxes, scores = boxes.repeat(3, 1), scores.repeat(3) * torch.linspace(1, 0.5, 120, dtype=torch.float64)
    apart = boxes + torch.arange(40, dtype=torch.float64).repeat(3)[:, None] * 500
    kept, kept_scores = soft_nms(*on(backend, apart, scores), min_score=1e-6)
    assert torch.equal(kept, nms(*on(backend, apart, scores), 0.5))
    assert torch.equal(kept_scores.cpu(), scores[kept.cpu()])


@pytest.mark.parametrize("method", METHODS)
def test_ties_and_special_values(backend: Any, method: str) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4 + [[50, 50, 60, 60], [80, 80, 80, 80], [80, 80, 80, 80], [9, 9, 5, 5]])
    scores = torch.full((8,), 0.5)
    expected = reference.soft_nms(boxes, scores, method=method)
    actual = soft_nms(*on(backend, boxes, scores), method=method)
    assert torch.equal(actual[0].cpu(), expected[0])
    torch.testing.assert_close(actual[1].cpu(), expected[1])
    boxes, scores = random_boxes(30, 1, torch.float32)
    scores[:6] = torch.tensor([NAN, -1.0, 0.0, 1e-3, -INF, 1.0])
    for i, value in enumerate((NAN, INF, -INF, 3e38)):
        boxes[10 + i, i] = value
    expected = reference.soft_nms(boxes, scores, method=method)
    actual = soft_nms(*on(backend, boxes, scores), method=method)
    assert torch.equal(actual[0].cpu(), expected[0])
    torch.testing.assert_close(actual[1].cpu(), expected[1])
    assert not {0, 1, 2, 4} & set(actual[0].tolist())


def test_strided(backend: Any) -> None:
    boxes, scores = random_boxes(50, 2)
    expected = soft_nms(*on(backend, boxes, scores))
    wide = torch.full((50, 9), NAN, dtype=torch.float64)
    wide[:, 1::2] = boxes
    column = torch.stack([scores, scores], dim=1)
    moved_wide, moved_column = on(backend, wide, column)
    for view in (moved_wide[:, 1::2], boxes.T.contiguous().to(backend.device).T):
        actual = soft_nms(view, moved_column[:, 1])
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_extreme_values_do_not_end_the_process(in_new_process: Callable[[str], str]) -> None:
    """The worst of them in a process of its own, where a crash would show as a signal."""
    script = """
        import torch
        from fastcv.ops import soft_nms
        values = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3e38, -3e38, 1.0, 1e-20])
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            for seed in range(20):
                g = torch.Generator().manual_seed(seed)
                boxes = values.to(dtype)[torch.randint(len(values), (200, 4), generator=g)]
                scores = values.to(dtype)[torch.randint(len(values), (200,), generator=g)]
                for method in ("linear", "gaussian"):
                    for sigma in (1e-300, 0.5, 1e300):
                        assert len(soft_nms(boxes, scores, 0.3, sigma, 0.0, method)[0]) <= 200
        print("alive")
    """
    assert "alive" in in_new_process(script)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_equals_the_reference(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    coordinate = st.one_of(st.integers(-8, 8).map(float), st.sampled_from([NAN, INF, -INF]))
    score = st.one_of(st.sampled_from([0.0, 0.5, 1.0, NAN, -1.0]), st.floats(0, 1, width=32))
    rows = draw(st.lists(st.tuples(*[coordinate] * 4, score), max_size=30))
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    threshold, min_score = draw(st.floats(0, 1)), draw(st.sampled_from([0.0, 0.25, 0.5]))
    expected = reference.soft_nms(table[:, :4], table[:, 4], threshold, 0.5, min_score, "linear")
    actual = soft_nms(*on(backend, table[:, :4], table[:, 4]), threshold, 0.5, min_score, "linear")
    assert torch.equal(actual[0].cpu(), expected[0])
    assert torch.equal(actual[1].cpu(), expected[1])
