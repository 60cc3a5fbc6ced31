"""The three overlap losses against the reference and torchvision, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import ops, reference

NAMES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")
SIZES = [1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 257]


def random_boxes(count: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Boxes (N, 4), some of them with whole coordinates, so that sides are shared and boxes touch."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 8
    boxes = torch.cat([corner, corner + 1.6 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 9], -1)
    return torch.where(torch.rand(count, 1, generator=generator) < 0.4, boxes.round(), boxes).to(dtype)


def gradients(function: Any, boxes1: Tensor, boxes2: Tensor, weight: Tensor, device: str = "cpu") -> list[Tensor]:
    leaves = [boxes1.detach().to(device).requires_grad_(), boxes2.detach().to(device).requires_grad_()]
    return [g.cpu() for g in torch.autograd.grad(function(*leaves), leaves, weight.to(device))]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("eps", [1e-7, 0.3])
@pytest.mark.parametrize("count", SIZES)
def test_values_and_gradients_equal_the_reference(backend: Any, name: str, eps: float, count: int) -> None:
    boxes1, boxes2 = random_boxes(count), random_boxes(count, seed=1)
    boxes2[::5] = boxes1[::5]
    ours, theirs = getattr(ops, name), getattr(reference, name)
    actual = ours(boxes1.to(backend.device), boxes2.to(backend.device), eps=eps)
    torch.testing.assert_close(actual.cpu(), theirs(boxes1, boxes2, eps), rtol=1e-12, atol=1e-12)
    weight = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    want = gradients(lambda a, b: theirs(a, b, eps), boxes1, boxes2, weight)
    got = gradients(lambda a, b: ours(a, b, eps=eps), boxes1, boxes2, weight, backend.device)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_agrees_with_torchvision(backend: Any, torchvision_ops: Any, name: str, reduction: str) -> None:
    ours, theirs = getattr(ops, name), getattr(torchvision_ops, name)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32):
        tolerance = 1e-12 if dtype is torch.float64 else 2e-5
        for count in (70, 1, 0):
            boxes = [random_boxes(count, dtype, seed) for seed in (0, 1)]
            expected = theirs(*boxes, reduction=reduction, eps=1e-3)
            actual = ours(*(b.to(backend.device) for b in boxes), reduction, 1e-3).cpu()
            assert actual.dtype is expected.dtype
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
            if dtype.is_floating_point:
                weight = torch.ones_like(expected)
                want = gradients(lambda a, b: theirs(a, b, reduction=reduction), *boxes, weight)
                got = gradients(lambda a, b: ours(a, b, reduction=reduction), *boxes, weight, backend.device)
                near = tolerance if dtype.itemsize > 2 else 1e-2
                torch.testing.assert_close(got, want, rtol=near, atol=near)
    single = [random_boxes(1, seed=seed)[0] for seed in (0, 1)]
    expected = getattr(reference, name)(*(b[None] for b in single)).reshape(())
    torch.testing.assert_close(ours(*(b.to(backend.device) for b in single), reduction).cpu(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(backend: Any, name: str) -> None:
    if name == "complete_box_iou_loss":  # not the derivative of its value: alpha is a constant
        return
    boxes1 = torch.tensor([[0.3, 0.1, 4.2, 5.7], [2.1, 1.9, 7.3, 6.4], [9.2, 9.7, 12.1, 14.3]], dtype=torch.float64)
    boxes2 = torch.tensor([[1.2, 1.3, 5.9, 4.4], [2.8, 2.7, 6.2, 5.1], [1.1, 2.2, 3.3, 4.4]], dtype=torch.float64)
    leaves = [boxes.to(backend.device).requires_grad_() for boxes in (boxes1, boxes2)]
    assert torch.autograd.gradcheck(getattr(ops, name), leaves)
    assert torch.autograd.gradcheck(lambda b: getattr(ops, name)(b, leaves[1].detach()), leaves[:1])


@pytest.mark.parametrize("name", NAMES)
def test_special_values_are_as_in_torchvision(backend: Any, torchvision_ops: Any, name: str) -> None:
    nan, inf = float("nan"), float("inf")
    rows = torch.tensor(
        [[0.0, 0, 4, 4], [nan, 0, 4, 4], [0, 0, inf, 4], [3, 3, 3, 3], [4, 4, 0, 0], [0, 4, 4, 0], [0, 0, 1e20, 1e20]]
    )
    pairs = [rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)]
    expected = getattr(torchvision_ops, name)(*pairs)
    actual = getattr(ops, name)(*(b.to(backend.device) for b in pairs)).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_strided_and_same_bits(backend: Any, name: str) -> None:
    function = getattr(ops, name)
    wide = random_boxes(40000, torch.float32).repeat(1, 2).to(backend.device)
    count = 300 if backend.is_cuda else 40000
    boxes1, boxes2 = wide[:count, 4:], random_boxes(count, torch.float32, 1).to(backend.device)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            leaf = boxes1.clone().requires_grad_()
            loss = function(leaf, boxes2)
            results.append((loss, *torch.autograd.grad(loss, leaf, torch.ones_like(loss[:1]).expand(count))))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(function(boxes1, boxes2), results[0][0])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_second_derivative_is_refused(backend: Any) -> None:
    leaf = random_boxes(2).to(backend.device).requires_grad_()
    (gradient,) = torch.autograd.grad(
        ops.distance_box_iou_loss(leaf, leaf.detach() + 0.3, "sum"), leaf, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="once, not twice"):
        gradient.sum().backward()


def test_opcheck_compile_vmap_and_meta(backend: Any) -> None:
    boxes1, boxes2 = (random_boxes(6, torch.float32, seed).to(backend.device) for seed in (0, 1))
    for kind, name in enumerate(NAMES, 1):
        leaves = [b.clone().requires_grad_() for b in (boxes1, boxes2)]
        torch.library.opcheck(torch.ops.fastcv.box_iou_loss.default, (*leaves, kind, 1e-7))
        function = getattr(ops, name)
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
        for reduction in ("none", "mean"):
            got = torch.autograd.grad(compiled(*leaves, reduction).square().sum(), leaves)
            want = torch.autograd.grad(function(*leaves, reduction).square().sum(), leaves)
            torch.testing.assert_close(got, want)
        stacked = torch.stack([boxes1, boxes1 + 1])
        expected = torch.stack([function(b, boxes2) for b in stacked])
        assert torch.equal(torch.vmap(function, (0, None))(stacked, boxes2), expected)
        assert function(boxes1.to("meta"), boxes2.to("meta")).shape == (6,)
    grad = torch.ones(6, device=backend.device)
    torch.library.opcheck(torch.ops.fastcv.box_iou_loss_backward.default, (grad, boxes1, boxes2, 1, 1e-7, True, False))


BAD_ARGUMENTS = [
    ({"boxes1": 3}, TypeError, r"boxes1 must be a torch\.Tensor, got int"),
    ({"boxes1": torch.zeros(2, 5)}, ValueError, r"boxes1 must have shape \(N, 4\) or \(4,\), got \(2, 5\)"),
    ({"boxes2": torch.zeros(3, 4)}, ValueError, r"boxes2 must have the shape of boxes1 \(2, 4\), got \(3, 4\)"),
    ({"boxes2": torch.zeros(2, 4, dtype=torch.bool)}, TypeError, r"boxes2 must be .* got torch\.bool"),
    ({"boxes2": torch.zeros(2, 4, device="meta")}, ValueError, "boxes2 must be on the device of boxes1"),
    ({"reduction": "max"}, ValueError, "reduction must be 'none', 'mean' or 'sum', got 'max'"),
    ({"eps": -1}, ValueError, "eps must not be negative, got -1"),
    ({"eps": None}, TypeError, "eps must be a number, got NoneType"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("changed", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments(backend: Any, name: str, changed: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"boxes1": torch.zeros(2, 4), "boxes2": torch.zeros(2, 4)}
    arguments = {
        key: value.to(backend.device) if isinstance(value, Tensor) and value.device.type != "meta" else value
        for key, value in {**good, **changed}.items()
    }
    with pytest.raises(error, match=message):
        getattr(ops, name)(**arguments)


def test_bad_input_does_not_end_the_process(in_new_process: Callable[[str], str]) -> None:
    script = """
        import itertools
        import torch
        from fastcv import _C
        wrong = [torch.zeros(2, 4), torch.zeros(3, 4).double(), torch.zeros(2, 3), torch.zeros(2, 4).int(),
                 torch.zeros(3), torch.zeros(4, 2).T, torch.zeros(0), None]
        refused = accepted = 0
        for a, b, c in itertools.product(wrong, repeat=3):
            for call in (
                lambda: _C.box_iou_loss_forward(a, b, c, 1, 0.0),
                lambda: _C.box_iou_loss_forward(torch.zeros(2), wrong[0], wrong[0], 0, 0.0),
                lambda: _C.box_iou_loss_backward(a, b, c, a, b, 1, 0.0, True, True),
            ):
                try:
                    call()
                    accepted += 1
                except (TypeError, ValueError):
                    refused += 1
        print("refused", refused, "accepted", accepted)
    """
    printed = in_new_process(script)
    assert "refused 1536 accepted 0" in printed


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_boxes_equal_the_reference(backend: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    rows = st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 8), max_size=20)
    boxes = torch.tensor(data.draw(rows), dtype=torch.float64).reshape(-1, 8)
    expected = getattr(reference, name)(boxes[:, :4], boxes[:, 4:])
    moved = boxes.to(backend.device)
    actual = getattr(ops, name)(moved[:, :4], moved[:, 4:])
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-7, atol=1e-7, equal_nan=True)
