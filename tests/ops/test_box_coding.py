"""encode_boxes and decode_boxes against the reference and torchvision's BoxCoder, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import decode_boxes, encode_boxes

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
WEIGHTS = (10.0, 8.0, 5.0, 4.0)


@pytest.fixture
def coder(torchvision_ops: Any) -> Any:
    from torchvision.models.detection._utils import BoxCoder

    return BoxCoder


def random_boxes(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100
    return torch.cat([corner, corner + 5 + 50 * torch.rand(count, 2, generator=generator).double()], 1).to(dtype)


def random_deltas(count: int, classes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4 * classes, generator=generator, dtype=torch.float64).to(dtype)


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Relative to the magnitude of the boxes: coordinates are differences of larger numbers."""
    scale = max(float(expected.abs().max()), 1.0) if expected.numel() else 1.0
    torch.testing.assert_close(
        actual.double().cpu(), expected.double(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_and_gradients_equal_the_reference(backend: Any, dtype: torch.dtype) -> None:
    for count in (1, 2, 33):
        first, second = random_boxes(count, dtype=dtype), random_boxes(count, 1, dtype)
        leaves = [t.to(backend.device).requires_grad_() for t in (first, second)]
        exact = [t.double().requires_grad_() for t in (first, second)]
        grad = random_deltas(count, 1, 2, dtype)
        actual, expected = encode_boxes(*leaves, WEIGHTS), reference.encode_boxes(*exact, WEIGHTS)
        assert actual.dtype is dtype
        close(actual.detach(), expected.detach(), dtype)
        for a, e in zip(
            torch.autograd.grad(actual, leaves, grad.to(backend.device)),
            torch.autograd.grad(expected, exact, grad.double()),
            strict=True,
        ):
            close(a, e, dtype)
        for classes in (1, 3, 7, 8, 33):
            deltas = random_deltas(count, classes, 3, dtype)
            deltas[0, 2] = 100.0  # beyond the clip
            leaves = [t.to(backend.device).requires_grad_() for t in (deltas, first)]
            exact = [t.double().requires_grad_() for t in (deltas, first)]
            grad = random_deltas(count, classes, 4, dtype)
            actual, expected = decode_boxes(*leaves, WEIGHTS), reference.decode_boxes(*exact, WEIGHTS)
            close(actual.detach(), expected.detach(), dtype)
            for a, e in zip(
                torch.autograd.grad(actual, leaves, grad.to(backend.device)),
                torch.autograd.grad(expected, exact, grad.double()),
                strict=True,
            ):
                close(a, e, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision(backend: Any, coder: Any, dtype: torch.dtype) -> None:
    first, second = random_boxes(700, 0, dtype), random_boxes(700, 1, dtype)
    for weights in (WEIGHTS, (1.0, 1.0, 1.0, 1.0)):
        expected = coder(weights).encode_single(first, second)
        close(encode_boxes(first.to(backend.device), second.to(backend.device), weights), expected, dtype)
        for classes in (1, 5):
            deltas = random_deltas(700, classes, 5, dtype) * 3
            for clip in (0.5, 4.135166556742356):
                expected = coder(weights, clip).decode_single(deltas, first)
                close(decode_boxes(deltas.to(backend.device), first.to(backend.device), weights, clip), expected, dtype)


def test_special_values(backend: Any, coder: Any) -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[nan, 0, 5, 5], [0, 0, inf, 5], [3, 3, 3, 3], [5, 5, 1, 1], [0, 0, 4, 4]])
    good = random_boxes(5, dtype=torch.float32)
    deltas = torch.tensor([[0.1, 0.2, nan, inf], [inf, 0, -inf, 0], [1, 1, 1, 1], [0, 0, 1e30, -1e30], [nan, 0, 0, 0]])

    def same(actual: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-6, atol=1e-6, equal_nan=True)

    a, b, d = (tensor.to(backend.device) for tensor in (boxes, good, deltas))
    same(encode_boxes(a, b), coder((10, 10, 5, 5)).encode_single(boxes, good))
    same(encode_boxes(b, a), coder((10, 10, 5, 5)).encode_single(good, boxes))
    same(decode_boxes(d, a), coder((10, 10, 5, 5)).decode_single(deltas, boxes))
    same(decode_boxes(d, b), coder((10, 10, 5, 5)).decode_single(deltas, good))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40), st.integers(0, 12), st.integers(0, 1000))
def test_round_trip(backend: Any, count: int, classes: int, seed: int) -> None:
    boxes, proposals = random_boxes(count, seed).to(backend.device), random_boxes(count, seed + 1).to(backend.device)
    deltas = encode_boxes(boxes, proposals, WEIGHTS)
    decoded = decode_boxes(deltas.repeat(1, classes), proposals, WEIGHTS)
    assert decoded.shape == (count, 4 * classes)
    torch.testing.assert_close(decoded, boxes.repeat(1, classes), rtol=1e-12, atol=1e-11)


def test_boxes_without_classes_get_zeros(backend: Any) -> None:
    boxes = random_boxes(5).to(backend.device).requires_grad_()
    output = decode_boxes(boxes.new_zeros(5, 0), boxes)
    assert output.shape == (5, 0)
    (gradient,) = torch.autograd.grad(output.sum(), boxes)
    assert gradient.shape == (5, 4)
    assert not gradient.any()


def test_one_argument_alone_wants_a_gradient(backend: Any) -> None:
    for function, first in ((encode_boxes, random_boxes(6, 1)), (decode_boxes, random_deltas(6, 9))):
        pair = [tensor.to(backend.device).requires_grad_() for tensor in (first, random_boxes(6))]
        expected = torch.autograd.grad(function(*pair).square().sum(), pair)
        for index, leaf in enumerate(pair):
            alone = [tensor if tensor is leaf else tensor.detach() for tensor in pair]
            (gradient,) = torch.autograd.grad(function(*alone).square().sum(), leaf)
            assert torch.equal(gradient, expected[index])


def test_strided_unaligned_and_converted_input(backend: Any) -> None:
    base, deltas = random_boxes(60).to(backend.device), random_deltas(60, 3).to(backend.device)
    flat = torch.cat([base.new_zeros(1), base.flatten()])
    for boxes in (flat[1:].view(-1, 4), base.t().contiguous().t(), torch.cat([base, base], 1)[:, 4:]):
        assert torch.equal(decode_boxes(deltas, boxes), decode_boxes(deltas, base))
        assert torch.equal(encode_boxes(base * 2, boxes), encode_boxes(base * 2, base))
        assert torch.equal(encode_boxes(boxes, base * 2), encode_boxes(base, base * 2))
    strided = torch.cat([deltas, deltas], 1)[:, 12:]
    assert torch.equal(decode_boxes(strided, base), decode_boxes(deltas, base))
    assert torch.equal(decode_boxes(deltas.float(), base), decode_boxes(deltas.float(), base.float()))


def test_function_transforms(backend: Any) -> None:
    boxes = torch.stack([random_boxes(6, s) for s in range(3)]).to(backend.device)
    deltas = torch.stack([random_deltas(6, 2, s) for s in range(3)]).to(backend.device)
    stacked = torch.stack([decode_boxes(d, b) for d, b in zip(deltas, boxes, strict=True)])
    assert torch.equal(torch.vmap(decode_boxes)(deltas, boxes), stacked)
    assert torch.equal(torch.vmap(encode_boxes)(boxes, boxes + 1)[1], encode_boxes(boxes[1], boxes[1] + 1))
    leaf = deltas[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(decode_boxes(leaf, boxes[0]).square().sum(), leaf)
    gradient = torch.func.grad(lambda d: decode_boxes(d, boxes[0]).square().sum())(deltas[0])
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
