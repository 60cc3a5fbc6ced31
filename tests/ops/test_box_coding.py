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


@pytest.mark.parametrize(("count", "classes"), [(0, 1), (0, 3), (5, 0), (0, 0)])
def test_empty(backend: Any, count: int, classes: int) -> None:
    boxes = random_boxes(count).to(backend.device).requires_grad_()
    deltas = torch.zeros(count, 4 * classes, dtype=torch.float64, device=backend.device, requires_grad=True)
    output = decode_boxes(deltas, boxes)
    assert output.shape == deltas.shape
    grad_deltas, grad_boxes = torch.autograd.grad(output.sum(), [deltas, boxes])
    assert grad_deltas.shape == deltas.shape
    assert grad_boxes.shape == (count, 4)
    assert not grad_boxes.any()
    assert encode_boxes(boxes, boxes).shape == (count, 4)


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


def test_same_bits_for_every_thread_count(backend: Any) -> None:
    count = 600 if backend.name == "emulated" else 9000
    boxes = random_boxes(count, dtype=torch.float32).to(backend.device).requires_grad_()
    deltas = random_deltas(count, 9, dtype=torch.float32).to(backend.device).requires_grad_()
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 5, 1):
            torch.set_num_threads(number)
            output = decode_boxes(deltas, boxes)
            results.append((output.detach(), *torch.autograd.grad(output.square().sum(), [deltas, boxes])))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_gradcheck(backend: Any) -> None:
    boxes = random_boxes(3).to(backend.device).requires_grad_()
    other = random_boxes(3, 1).to(backend.device).requires_grad_()
    assert torch.autograd.gradcheck(encode_boxes, (boxes, other))
    assert torch.autograd.gradgradcheck(encode_boxes, (boxes, other))
    for classes in (1, 9):
        deltas = random_deltas(3, classes).to(backend.device).requires_grad_()
        assert torch.autograd.gradcheck(decode_boxes, (deltas, boxes))
        assert torch.autograd.gradgradcheck(decode_boxes, (deltas, boxes), fast_mode=True)
        assert torch.autograd.gradcheck(decode_boxes, (deltas, boxes.detach()))
        assert torch.autograd.gradcheck(decode_boxes, (deltas.detach(), boxes))


def test_transforms_compile_and_opcheck(backend: Any) -> None:
    boxes = torch.stack([random_boxes(6, s) for s in range(3)]).to(backend.device)
    deltas = torch.stack([random_deltas(6, 2, s) for s in range(3)]).to(backend.device)
    stacked = torch.stack([decode_boxes(d, b) for d, b in zip(deltas, boxes, strict=True)])
    assert torch.equal(torch.vmap(decode_boxes)(deltas, boxes), stacked)
    assert torch.equal(torch.vmap(encode_boxes)(boxes, boxes + 1)[1], encode_boxes(boxes[1], boxes[1] + 1))
    leaf = deltas[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(decode_boxes(leaf, boxes[0]).square().sum(), leaf)
    gradient = torch.func.grad(lambda d: decode_boxes(d, boxes[0]).square().sum())(deltas[0])
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)

    weights = (10.0, 10.0, 5.0, 5.0)
    leaves = [t.clone().requires_grad_() for t in (boxes[0], boxes[1], deltas[0])]
    torch.library.opcheck(torch.ops.fastcv.encode_boxes.default, (leaves[0], leaves[1], *weights))
    torch.library.opcheck(torch.ops.fastcv.decode_boxes.default, (leaves[2], leaves[0], *weights, 4.0))

    def function(d: Tensor, b: Tensor) -> Tensor:
        return encode_boxes(decode_boxes(d, b), b.detach())

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (6, 2, 5):
        d, b = deltas[0, :count, :4].clone().requires_grad_(), boxes[0, :count].clone().requires_grad_()
        output, expected = compiled(d, b), function(d, b)
        torch.testing.assert_close(output, expected)
        for a, e in zip(
            torch.autograd.grad(output.square().sum(), [d, b]),
            torch.autograd.grad(expected.square().sum(), [d, b]),
            strict=True,
        ):
            torch.testing.assert_close(a, e)
    assert decode_boxes(deltas[0].to("meta"), boxes[0].to("meta")).shape == (6, 8)


BOXES, DELTAS = torch.ones(3, 4), torch.ones(3, 8)
BAD_ENCODE = [
    ({"reference_boxes": [1.0]}, TypeError, "reference_boxes must be a torch.Tensor, got list"),
    ({"proposals": 1}, TypeError, "proposals must be a torch.Tensor, got int"),
    ({"reference_boxes": torch.ones(3, 5)}, ValueError, r"reference_boxes must have shape \(N, 4\), got \(3, 5\)"),
    ({"proposals": torch.ones(2, 4)}, ValueError, r"proposals must have as many rows as reference_boxes \(3\), got 2"),
    ({"proposals": BOXES.double()}, TypeError, "proposals must have the dtype of reference_boxes"),
    ({"reference_boxes": BOXES.int(), "proposals": BOXES.int()}, TypeError, "reference_boxes must be float16"),
    ({"weights": (1.0, 2.0)}, ValueError, r"weights must be four numbers .* got \(1.0, 2.0\)"),
    ({"proposals": BOXES.to("meta")}, ValueError, "proposals must be on the device of reference_boxes"),
]
BAD_DECODE = [
    ({"deltas": None}, TypeError, "deltas must be a torch.Tensor, got NoneType"),
    ({"deltas": torch.ones(3, 6)}, ValueError, r"deltas must have shape \(N, 4 C\), got \(3, 6\)"),
    ({"deltas": torch.ones(3)}, ValueError, r"deltas must have shape \(N, 4 C\), got \(3,\)"),
    ({"deltas": DELTAS.int()}, TypeError, "deltas must be float16.* got int32"),
    ({"boxes": torch.ones(2, 4)}, ValueError, r"boxes must have as many rows as deltas \(3\), got 2"),
    ({"boxes": BOXES.int()}, TypeError, r"boxes must have the dtype of deltas \(float32\), got int32"),
    ({"weights": ()}, ValueError, "weights must be four numbers"),
    ({"boxes": BOXES.to("meta")}, ValueError, "boxes must be on the device of deltas"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD_ENCODE)
def test_bad_arguments_of_encode(backend: Any, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encode_boxes(**{"reference_boxes": BOXES, "proposals": BOXES, **change})


@pytest.mark.parametrize(("change", "error", "message"), BAD_DECODE)
def test_bad_arguments_of_decode(backend: Any, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decode_boxes(**{"deltas": DELTAS, "boxes": BOXES, **change})
