"""decode_yolo and decode_yolo_v1 against the reference on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv import reference
from fastcv.ops import decode_yolo, decode_yolo_v1

ANCHORS = [(10.0, 20.0), (30.0, 15.0), (7.0, 70.0)]
INF, NAN = float("inf"), float("nan")


def head(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    return numbers.to(dtype)


def check(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    boxes, scores, labels, count = (part.cpu() for part in actual)
    assert boxes.dtype is scores.dtype is expected[0].dtype
    assert torch.equal(count, expected[3])
    assert torch.equal(labels, expected[2])
    torch.testing.assert_close(scores, expected[1], rtol=tolerance, atol=0)
    torch.testing.assert_close(boxes, expected[0], rtol=tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_the_reference(backend: Any, dtype: torch.dtype, softmax: bool, layout: torch.memory_format) -> None:
    output = head(0, 2, 27, 5, 3, dtype=dtype).contiguous(memory_format=layout)
    options = (ANCHORS, (96, 64), 0.2, 80, softmax, 1.05)
    expected = reference.decode_yolo(output, *options)
    assert 10 < expected[3].min() <= expected[3].max() < 80
    check(decode_yolo(output.to(backend.device), *options), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("softmax", "square"), [(False, True), (False, False), (True, True)])
def test_version_1_equals_the_reference(backend: Any, dtype: torch.dtype, softmax: bool, square: bool) -> None:
    output = head(1, 3, 4 * 4 * (3 + 10), dtype=dtype)
    options = (4, 2, (96, 64), 0.2, 90, softmax, square)
    expected = reference.decode_yolo_v1(output, *options)
    assert 5 < expected[3].min() <= expected[3].max() < 90
    check(decode_yolo_v1(output.to(backend.device), *options), expected)
    wide = head(1, 3, 8 * output.shape[1], dtype=dtype)
    wide[:, ::8] = output
    check(decode_yolo_v1(wide.to(backend.device)[:, ::8], *options), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("capacity", [1, 2, 37, 38, 100, 500])
def test_the_best_stay_where_there_are_too_many(backend: Any, dtype: torch.dtype, capacity: int) -> None:
    """Over more boxes than a block of the kernel has threads, with many equal scores."""
    output = head(2, 2, 27, 20, 11, dtype=dtype).mul(2).round().div(2)
    expected = reference.decode_yolo(output, ANCHORS, (96, 64), 0.3, capacity)
    assert (expected[3] == capacity).all()
    actual = decode_yolo(output.to(backend.device), ANCHORS, (96, 64), 0.3, capacity)
    check(actual, expected)
    whole = decode_yolo(output.to(backend.device), ANCHORS, (96, 64), 0.3, 4000)
    kept = whole[1][0].topk(capacity).values.sort().values
    assert torch.equal(actual[1][0].sort().values, kept)


def test_thresholds_and_numbers_at_the_edge(backend: Any) -> None:
    output = torch.full((1, 7, 2, 4), -INF)
    rows = [(0.0, 0, 0), (30, 30, 30), (INF, INF, 0), (NAN, 1, 1), (1, NAN, 1), (-INF, 9, 9), (200, -200, 17)]
    for place, (confidence, first, second) in enumerate(rows):
        output[0, :, place // 4, place % 4] = torch.tensor([0, 0, 0, 0, confidence, first, second])
    scores = (output[:, 4:5].sigmoid() * output[:, 5:].sigmoid()).permute(0, 2, 3, 1).flatten()
    for threshold in (0.0, 0.25, 0.5, 1.0, 2.0, INF):
        found = decode_yolo(output.to(backend.device), [(8, 8)], (20, 40), threshold, 20)
        kept = (scores >= threshold).nonzero()[:, 0]  # of torch's float32: the logistic function reaches 1
        assert found[3].tolist() == [len(kept)]
        assert found[2][0, : len(kept)].tolist() == (kept % 2).tolist()
        torch.testing.assert_close(found[1][0, : len(kept)].cpu(), scores[kept])
        assert (found[1][0, len(kept) :] == -INF).all()


def test_the_same_bits_on_any_number_of_threads() -> None:
    output = head(3, 5, 27, 13, 13)
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2, 4):
            torch.set_num_threads(number)
            found.append(decode_yolo(output, ANCHORS, (96, 64), 0.1, 50))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
