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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_all_backends_give_the_same_bits(
    backend: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, method: str
) -> None:
    """The exponential function is part of the decision: no backend may have one of its own."""
    boxes, scores = random_boxes(150, 4, dtype)
    kept, kept_scores = soft_nms(*on(backend, boxes, scores), method=method)
    from fastcv.ops import soft_nms as module_function
    from fastcv.ops._build import _C

    monkeypatch.setitem(module_function.__globals__, "_C", _C)
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


def test_empty_and_strided(backend: Any) -> None:
    kept, kept_scores = soft_nms(torch.zeros(0, 4, device=backend.device), torch.zeros(0, device=backend.device))
    assert (kept.shape, kept.dtype, kept_scores.shape) == ((0,), torch.int64, (0,))
    boxes, scores = random_boxes(50, 2)
    expected = soft_nms(*on(backend, boxes, scores))
    wide = torch.full((50, 9), NAN, dtype=torch.float64)
    wide[:, 1::2] = boxes
    column = torch.stack([scores, scores], dim=1)
    moved_wide, moved_column = on(backend, wide, column)
    for view in (moved_wide[:, 1::2], boxes.T.contiguous().to(backend.device).T):
        actual = soft_nms(view, moved_column[:, 1])
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_opcheck_compile_and_modes(backend: Any) -> None:
    boxes, scores = on(backend, *random_boxes(20, 1, torch.float32))
    torch.library.opcheck(torch.ops.fastcv.soft_nms.default, (boxes, scores, 0.3, 0.5, 1e-3, False))

    def function(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        kept, kept_scores = soft_nms(boxes * 2, scores, method="gaussian")
        return boxes[kept], kept_scores + 1

    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
        for count in (20, 7, 11):
            actual, expected = compiled(boxes[:count], scores[:count]), function(boxes[:count], scores[:count])
            assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


BAD_ARGUMENTS = [
    ({"boxes": [1.0]}, TypeError, "boxes must be a torch.Tensor, got list"),
    ({"scores": 3}, TypeError, "scores must be a torch.Tensor, got int"),
    ({"boxes": torch.zeros(3, 5)}, ValueError, r"boxes must have shape \(N, 4\).* got \(3, 5\)"),
    ({"boxes": torch.zeros(3, 4).long()}, TypeError, "boxes must be float16, .* got .*int64"),
    ({"scores": torch.zeros(2)}, ValueError, r"scores must have shape \(N,\).* got \(2,\)"),
    ({"scores": torch.zeros(3, 1)}, ValueError, r"scores must have shape \(N,\).* got \(3, 1\)"),
    ({"scores": torch.zeros(3).double()}, TypeError, "scores must have the dtype of boxes .*float32.*, got .*float64"),
    ({"scores": torch.zeros(3, device="meta")}, ValueError, "scores must be on the device of boxes"),
    ({"iou_threshold": 1.5}, ValueError, r"iou_threshold must be in \[0, 1\], got 1.5"),
    ({"sigma": 0.0}, ValueError, "sigma must be positive, got 0.0"),
    ({"sigma": NAN}, ValueError, "sigma must be positive, got nan"),
    ({"min_score": -0.5}, ValueError, "min_score must not be negative, got -0.5"),
    ({"min_score": NAN}, ValueError, "min_score must not be negative, got nan"),
    ({"method": "cubic"}, ValueError, "method must be 'linear' or 'gaussian', got 'cubic'"),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments(backend: Any, changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        name: value.to(backend.device) if isinstance(value, Tensor) and value.device.type != "meta" else value
        for name, value in {"boxes": torch.zeros(3, 4), "scores": torch.zeros(3), **changed}.items()
    }
    with pytest.raises(error, match=message):
        soft_nms(**arguments)


def test_bad_input_does_not_end_the_process(in_new_process: Callable[[str], str]) -> None:
    """The worst of them in a process of its own, where a crash would show as a signal."""
    script = """
        import torch
        from fastcv import _C
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
        kept, scores, count, work = torch.zeros(3).long(), torch.zeros(3), torch.zeros(()).long(), torch.zeros(7, 16)
        wrong = [kept, scores, count, work, torch.zeros(3, 4), torch.zeros(3, 4).double(), None]
        refused = 0
        for position in range(6):
            for bad in wrong:
                arguments = [kept, scores, count, work, torch.zeros(3, 4), scores]
                if bad is arguments[position]:
                    continue
                arguments[position] = bad
                try:
                    _C.soft_nms(*arguments, 0.3, 0.5, 0.0, False)
                except (TypeError, ValueError):
                    refused += 1
        print("refused", refused)
    """
    printed = in_new_process(script)
    assert "refused 36" in printed


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
