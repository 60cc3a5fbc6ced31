"""ps_roi_align and ps_roi_pool against the reference and torchvision, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from roi_problems import random_boxes, random_input
from torch import Tensor

from fastcv import reference
from fastcv.nn import PSRoIAlign, PSRoIPool
from fastcv.ops import ps_roi_align, ps_roi_pool

NAN, INF = float("nan"), float("inf")


def with_gradient(function: Any, input: Tensor, boxes: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    output = function(leaf, boxes, *options)
    (gradient,) = torch.autograd.grad(output, leaf, random_input(*output.shape, seed=1).to(output))
    return output.detach().cpu(), gradient.cpu()


SPECIAL = [
    *([0, 3, 3, 3.5, 3.5], [0, 2, 5, 9, 6], [0, 0, 0, 40, 32], [0, 500, 500, 600, 600], [0, -300, -300, -200, -200]),
    *([0, -20, -20, 12, 12], [0, 30, 22, 60, 50], [0, -300, -200, 500, 400], [0, 8.2, 8.3, 8.4, 8.5]),
    *([0, -1, -1, 0, 0], [0, 40, 32, 41, 33], [0, -0.5, -1.5, 2.5, 3.5], [0, 2, 2, 38, 31], [0, 36, 28, 40, 32]),
]
NOT_FINITE = [[0, NAN, 1, 5, 5], [0, 1, INF, 5, INF], [0, -INF, 0, INF, 5], [0, 1, 1, 5, NAN]]
NO_AREA = [[0, 3, 3, 3, 3], [0, 2, 5, 9, 5], [0, 20, 20, 10, 10], [0, 5, 20, 15, 10]]


@dataclass(frozen=True)
class Op:
    """One of the two ops, and where they differ."""

    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    module: type[torch.nn.Module]
    options: tuple[tuple[Any, ...], ...]  # spatial_scale and what follows it
    sampling: tuple[int, ...]  # arguments that follow spatial_scale
    zero: list[list[float]]  # boxes that give zeros
    written: str  # the module


OPS = [
    Op(
        "ps_roi_align",
        ps_roi_align,
        reference.ps_roi_align,
        PSRoIAlign,
        ((0.25, -1), (0.3, 2)),
        (2,),
        NOT_FINITE + NO_AREA,
        "PSRoIAlign(output_size=3, spatial_scale=0.5, sampling_ratio=2)",
    ),
    Op(
        "ps_roi_pool",
        ps_roi_pool,
        reference.ps_roi_pool,
        PSRoIPool,
        ((0.25,), (0.3,)),
        (),
        NOT_FINITE,
        "PSRoIPool(output_size=3, spatial_scale=0.5)",
    ),
]


@pytest.fixture(params=OPS, ids=lambda op: op.name)
def op(request: pytest.FixtureRequest) -> Op:
    made: Op = request.param
    return made


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("size", [1, (3, 2)])
def test_values_and_gradient_equal_the_reference(backend: Any, op: Op, size: Any, which: int) -> None:
    options = op.options[which]
    input = random_input(2, 12, 8, 10)
    boxes = torch.cat([random_boxes(8, 2, 32, 40), torch.tensor(SPECIAL + op.zero, dtype=torch.float64)])
    expected = with_gradient(op.reference, input, boxes, size, *options)
    actual = with_gradient(op.function, input.to(backend.device), boxes.to(backend.device), size, *options)
    assert actual[0].shape[1] == (12 if size == 1 else 2)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_boxes_that_give_zeros(backend: Any, op: Op) -> None:
    boxes = torch.tensor(op.zero, dtype=torch.float64, device=backend.device)
    input = random_input(1, 12, 8, 10).to(backend.device).requires_grad_()
    output = op.function(input, boxes, (3, 2), 0.25)
    assert not output.any()
    assert not torch.autograd.grad(output.sum(), input)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision(backend: Any, op: Op, torchvision_ops: Any, dtype: torch.dtype) -> None:
    peer = getattr(torchvision_ops, op.name)
    input = random_input(2, 70, 20, 25, dtype=dtype)
    boxes = torch.cat([random_boxes(24, 2, 80, 100), torch.tensor(SPECIAL, dtype=torch.float64)]).to(dtype)
    inner = boxes.clone()
    if op.function is ps_roi_pool:  # torchvision's gradient is not that of its forward at the last row and column
        inner[:, 1:].clamp_(max=60)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-11
    for size in ((7, 5), 1):
        for options in op.options:
            expected = peer(input, boxes, size, *options)
            actual = op.function(input.to(backend.device), boxes.to(backend.device), size, *options).cpu()
            torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
            expected_both = with_gradient(peer, input, inner, size, *options)
            actual_both = with_gradient(op.function, input.to(backend.device), inner.to(backend.device), size, *options)
            torch.testing.assert_close(actual_both, expected_both, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_dtypes_and_layouts(backend: Any, op: Op, dtype: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    input = random_input(2, 36, 9, 17, dtype=dtype).to(backend.device, memory_format=layout).requires_grad_()
    boxes = random_boxes(12, 2, 36, 68).to(torch.promote_types(dtype, torch.float32)).to(backend.device)
    output = op.function(input, boxes, (3, 4), 0.25)
    assert output.dtype is dtype
    assert output.is_contiguous(memory_format=layout)
    double = input.detach().double().contiguous().requires_grad_()
    expected = op.function(double, boxes.double(), (3, 4), 0.25)
    tolerance = 4 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 1e-4 if dtype is torch.float32 else 1e-11
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    weight = random_input(*output.shape, dtype=dtype, seed=3).to(backend.device)
    (gradient,) = torch.autograd.grad(output, input, weight)
    (expected_gradient,) = torch.autograd.grad(expected, double, weight.double())
    (same,) = torch.autograd.grad(
        op.function(input, boxes, (3, 4), 0.25), input, weight.contiguous(memory_format=layout)
    )
    assert torch.equal(same, gradient)
    assert same.is_contiguous(memory_format=layout)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=tolerance, atol=tolerance)
    odd = weight.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(torch.autograd.grad(op.function(input, boxes, (3, 4), 0.25), input, odd)[0], gradient)


def test_strided_input(backend: Any, op: Op) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    boxes = random_boxes(12, 2, 40, 44).to(backend.device)
    for view in (wide[1:3, 2:20, 3:15, 5:20], wide[::2, ::2, ::2, ::2], wide.transpose(2, 3)[:2]):
        view = view[:, :12]
        assert torch.equal(op.function(view, boxes, 2, 0.5), op.function(view.contiguous(), boxes, 2, 0.5))
    expanded = wide[:1].expand(2, -1, -1, -1)
    assert torch.equal(op.function(expanded, boxes, 2, 0.5), op.function(expanded.contiguous(), boxes, 2, 0.5))


@pytest.mark.parametrize(
    ("shape", "rois"), [((2, 6, 8, 8), 0), ((0, 6, 8, 8), 0), ((2, 0, 8, 8), 4), ((1, 6, 0, 8), 2), ((1, 6, 8, 0), 2)]
)
def test_empty(backend: Any, op: Op, shape: tuple[int, ...], rois: int) -> None:
    input = torch.zeros(shape, device=backend.device, requires_grad=True)
    boxes = torch.tensor([[0.0, 1, 1, 4, 4]]).repeat(rois, 1).to(backend.device)
    output = op.function(input, boxes, (2, 3))
    assert output.shape == (rois, shape[1] // 6, 2, 3)
    assert not output.any()
    (gradient,) = torch.autograd.grad(output.sum(), input, create_graph=True)
    assert gradient.shape == input.shape
    assert not gradient.any()


@pytest.mark.parametrize("index", [-1.0, 2.0, NAN, INF])
def test_batch_index_outside(backend: Any, op: Op, index: float) -> None:
    input = random_input(2, 4, 8, 10).to(backend.device).requires_grad_()
    boxes = torch.tensor([[0.0, 1, 1, 5, 5], [index, 1, 1, 5, 5]], dtype=torch.float64, device=backend.device)
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=r"boxes\[1\] has batch index .* outside \[0, 2\)"):
            op.function(input, boxes, 2)
        return
    output = op.function(input, boxes, 2)
    assert output[0].any()
    assert not output[1].any()
    assert not torch.autograd.grad(output[1].sum(), input)[0].any()


def test_offsets_beyond_32_bits(backend: Any, op: Op) -> None:
    apart = 2**31 + 4096
    storage = torch.empty(apart + 4096, dtype=torch.float16, device=backend.device)
    input = storage.as_strided((2, 4, 8, 9), (apart, 100, 10, 1))
    input.copy_(random_input(2, 4, 8, 9, dtype=torch.float16))
    boxes = torch.tensor([[1.0, 1, 1, 5, 6], [0.0, 0, 0, 8, 7]], device=backend.device)
    assert torch.equal(op.function(input, boxes, 2), op.function(input.contiguous(), boxes, 2))


def test_same_bits_for_every_run_and_thread_count(backend: Any, op: Op) -> None:
    input = random_input(2, 72, 13, 21, dtype=torch.float32).to(backend.device).requires_grad_()
    boxes = random_boxes(300 if backend.name != "emulated" else 37, 2, 52, 84).float().to(backend.device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5, 1):
            torch.set_num_threads(count)
            output = op.function(input, boxes, 3, 0.25)
            results.append((output.detach(), *torch.autograd.grad(output.square().sum(), input)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_more_boxes_than_a_block(backend: Any, op: Op) -> None:
    input = random_input(1, 1, 17, 33)
    boxes = random_boxes(270, 1, 17, 33)
    expected = with_gradient(op.reference, input, boxes, 1)
    actual = with_gradient(op.function, input.to(backend.device), boxes.to(backend.device), 1)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


def test_derivatives(backend: Any, op: Op) -> None:
    input = random_input(2, 4, 4, 5).to(backend.device).requires_grad_()
    boxes = random_boxes(3, 2, 8, 10).to(backend.device)

    def function(x: Tensor) -> Tensor:
        return op.function(x, boxes, 2, 0.5)

    assert torch.autograd.gradcheck(function, (input,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: function(x) ** 2, (input,), fast_mode=True)
    many = random_input(3, 2, 4, 4, 5).to(backend.device)
    assert torch.equal(torch.vmap(function)(many), torch.stack([function(x) for x in many]))


def test_opcheck(backend: Any, op: Op) -> None:
    library, backward = (getattr(torch.ops.fastcv, op.name + suffix) for suffix in ("", "_backward"))
    boxes = random_boxes(3, 2, 12, 14).float().to(backend.device)
    for layout in (torch.contiguous_format, torch.channels_last):
        input = random_input(2, 12, 6, 7, dtype=torch.float32).to(backend.device, memory_format=layout)
        torch.library.opcheck(library.default, (input.requires_grad_(), boxes, 2, 3, 0.5, *op.sampling))
        grad = op.function(input, boxes, (2, 3), 0.5, *op.sampling).detach().requires_grad_()
        arguments = (grad, boxes, 2, 12, 6, 7, 0.5, *op.sampling)
        torch.library.opcheck(backward.default, arguments)


def test_compile(backend: Any, op: Op) -> None:
    module = op.module(3, 0.5, *op.sampling)
    input = random_input(2, 9, 6, 7, dtype=torch.float32).to(backend.device)
    boxes = random_boxes(5, 2, 12, 14).float().to(backend.device)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input, boxes), module(input, boxes))
    leaf, eager = input.clone().requires_grad_(), input.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(compiled(leaf, boxes).square().sum(), leaf)
    (expected,) = torch.autograd.grad(module(eager, boxes).square().sum(), eager)
    torch.testing.assert_close(gradient, expected)
    assert repr(module) == op.written
    assert module(input.to("meta"), boxes.to("meta")).shape == (5, 1, 3, 3)


GOOD = {"input": torch.zeros(1, 4, 8, 8), "boxes": torch.zeros(1, 5), "output_size": 2}
BAD_ARGUMENTS = [
    ({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
    ({"input": torch.zeros(4, 8, 8)}, ValueError, r"input must have shape \(N, C, H, W\), got \(4, 8, 8\)"),
    ({"input": torch.zeros(1, 7, 8, 8)}, ValueError, r"divisible by the 2 \* 2 bins of output_size, got 7 channels"),
    ({"input": torch.zeros(1, 4, 8, 8, dtype=torch.int32)}, TypeError, "input must be float16, .* got int32"),
    ({"boxes": torch.zeros(3, 4)}, ValueError, r"boxes must have shape \(K, 5\).*got \(3, 4\)"),
    ({"boxes": torch.zeros(1, 5, dtype=torch.float64)}, TypeError, "boxes must be of a floating dtype not wider"),
    ({"boxes": [torch.zeros(1, 4)] * 2}, ValueError, "input has 1 images, boxes 2"),
    ({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
    ({"output_size": 2.5}, TypeError, "output_size must be an int or two ints"),
]


def test_too_many_samples(backend: Any) -> None:
    with pytest.raises(ValueError, match="sampling_ratio must be at most 65536, got 65537"):
        ps_roi_align(GOOD["input"].to(backend.device), GOOD["boxes"].to(backend.device), 2, sampling_ratio=65537)


@pytest.mark.parametrize(("changed", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments(backend: Any, op: Op, changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        name: value.to(backend.device) if isinstance(value, Tensor) else value
        for name, value in {**GOOD, **changed}.items()
    }
    with pytest.raises(error, match=message):
        op.function(**arguments)


def test_bad_input_does_not_end_the_process(op: Op, in_new_process: Callable[[str], str]) -> None:
    script = f"""
        import itertools, torch
        from fastcv import _C
        from fastcv.ops import {op.name}
        x = torch.randn(2, 4, 8, 8, requires_grad=True)
        for value in (float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 3e9, -3e9, -1.0, 2.0):
            for column in range(5):
                box = torch.tensor([[0.0, 1, 1, 5, 5]])
                box[0, column] = value
                try:
                    {op.name}(x, box, 2).sum().backward()
                except ValueError:
                    assert column == 0
        x = x.detach()
        wrong = [x, x[0], x.double(), x.int(), torch.zeros(1, 5), torch.zeros(0), None]
        refused = 0
        for a, b, c in itertools.product(wrong, repeat=3):
            for call in (_C.{op.name}_forward, _C.{op.name}_backward):
                try:
                    call(a, b, c, 1.0, *{op.sampling})
                except (TypeError, ValueError):
                    refused += 1
        print("refused", refused)
    """
    printed = in_new_process(script)
    assert "refused 686" in printed


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_the_reference(backend: Any, op: Op, data: st.DataObject) -> None:
    draw = data.draw
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    coordinate = st.floats(-20, 60, width=32)
    rows = draw(st.lists(st.tuples(st.integers(0, batch - 1), *[coordinate] * 4), max_size=3))
    boxes = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    scale = draw(st.sampled_from([1.0, 0.5, 0.0625]))
    input = random_input(batch, channels * size[0] * size[1], height, width)
    expected = with_gradient(op.reference, input, boxes, size, scale)
    actual = with_gradient(op.function, input.to(backend.device), boxes.to(backend.device), size, scale)
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
