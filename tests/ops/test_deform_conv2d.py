"""Deformable convolution against torchvision and the reference, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import deform_conv2d

NAMES = ("input", "offset", "weight", "bias", "mask")
# Of the norm of the result: one rounding of the result for halves, which are computed in float32.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def problem(
    input: tuple[int, ...],
    weight: tuple[int, ...],
    offset_groups: int = 1,
    masked: bool = True,
    biased: bool = True,
    dtype: torch.dtype = torch.float64,
    spread: float = 2.0,
    **options: Any,
) -> dict[str, Any]:
    """Random arguments of these shapes; every sixth offset is whole, where a place meets a pixel or a border."""
    plain = torch.zeros(input[0], 1, *input[2:]), torch.zeros(1, 1, *weight[2:])
    size = torch.nn.functional.conv2d(*plain, **options).shape[2:]
    taps = weight[2] * weight[3]
    offset = random(input[0], 2 * offset_groups * taps, *size, seed=1) * spread
    whole = torch.arange(offset.numel()).reshape(offset.shape) % 6 == 0
    arguments = {
        "input": random(*input, seed=2).to(dtype),
        "offset": torch.where(whole, offset.round(), offset).to(dtype),
        "weight": random(*weight, seed=3).to(dtype),
        "bias": random(weight[0], seed=4).to(dtype) if biased else None,
        "mask": random(input[0], offset_groups * taps, *size, seed=5).to(dtype) if masked else None,
    }
    return {**arguments, **options}


def distance(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert actual.shape == expected.shape
    return float((actual.double().cpu() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))


def results(function: Any, arguments: dict[str, Any], device: str = "cpu") -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients by name."""
    leaves = {name: arguments[name] for name in NAMES if arguments[name] is not None}
    leaves = {name: tensor.detach().to(device).requires_grad_() for name, tensor in leaves.items()}
    output = function(**{**arguments, **leaves})
    seed = random(*output.shape, seed=6).to(device, output.dtype)
    gradients = torch.autograd.grad(output, list(leaves.values()), seed)
    return output.detach(), dict(zip(leaves, gradients, strict=True))


def check(backend: Any, arguments: dict[str, Any], peer: Any, tolerance: float) -> None:
    """Compare values and all gradients with ``peer``."""
    expected, expected_gradients = results(peer, arguments)
    output, gradients = results(deform_conv2d, arguments, backend.device)
    assert output.dtype == arguments["input"].dtype
    assert distance(output, expected) < tolerance
    for name, gradient in gradients.items():
        assert gradient.dtype == arguments["input"].dtype
        assert distance(gradient, expected_gradients[name]) < tolerance, name


PROBLEMS = {
    "v1": {"input": (2, 6, 7, 8), "weight": (4, 6, 3, 3), "masked": False, "padding": 1},
    "v2": {"input": (2, 6, 7, 8), "weight": (4, 6, 3, 3), "padding": 1},
    "groups": {"input": (2, 12, 9, 8), "weight": (6, 4, 3, 2), "stride": (2, 1), "padding": (1, 2), "offset_groups": 2},
    "offset groups across groups": {"input": (1, 12, 5, 6), "weight": (6, 4, 2, 2), "offset_groups": 4},
    "a group for each channel": {"input": (2, 10, 6, 6), "weight": (20, 1, 3, 3), "padding": 1, "dilation": (2, 1)},
    "an offset group for each channel": {"input": (2, 5, 6, 6), "weight": (3, 5, 3, 3), "offset_groups": 5},
    "1 x 1": {"input": (3, 7, 6, 5), "weight": (9, 7, 1, 1), "biased": False},
    "large kernel": {"input": (1, 2, 9, 9), "weight": (2, 2, 7, 6), "padding": 3, "dilation": 2, "stride": 3},
    "blocks of channels": {"input": (1, 70, 6, 5), "weight": (67, 70, 3, 3), "padding": 1},
    "grouped blocks": {"input": (2, 132, 4, 6), "weight": (34, 66, 2, 3), "offset_groups": 3, "padding": 1},
}
LARGE = {
    "blocks of positions": {"input": (2, 18, 23, 31), "weight": (10, 9, 3, 3), "padding": 1, "offset_groups": 2},
    "many images": {"input": (70, 3, 4, 3), "weight": (2, 3, 2, 2), "offset_groups": 3},
    "fewer rows": {"input": (1, 1300, 8, 9), "weight": (20, 1300, 2, 2)},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PROBLEMS)
def test_values_and_gradients_are_those_of_torchvision(
    backend: Any, torchvision_ops: Any, name: str, dtype: torch.dtype
) -> None:
    arguments = problem(**PROBLEMS[name], dtype=dtype)
    check(backend, arguments, torchvision_ops.deform_conv2d, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LARGE)
def test_many_blocks(backend: Any, torchvision_ops: Any, name: str, dtype: torch.dtype) -> None:
    if backend.is_emulated and dtype is torch.float32:
        pytest.skip("it is slow")
    check(backend, problem(**LARGE[name], dtype=dtype), torchvision_ops.deform_conv2d, TOLERANCE[dtype])


@pytest.mark.parametrize("name", PROBLEMS)
def test_values_and_gradients_are_those_of_the_reference(backend: Any, name: str) -> None:
    arguments = problem(**PROBLEMS[name])
    arguments["offset"] = arguments["offset"] + 1e-3  # at a pixel autograd takes the other side's derivative
    check(backend, arguments, reference.deform_conv2d, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(backend: Any, dtype: torch.dtype) -> None:
    arguments = problem((2, 22, 6, 7), (8, 11, 3, 3), offset_groups=2, padding=1, dtype=dtype)
    arguments["offset"] = arguments["offset"] + 0.0625  # exact in both
    exact = {name: value.double() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    expected, expected_gradients = results(reference.deform_conv2d, exact)
    output, gradients = results(deform_conv2d, arguments, backend.device)
    assert output.dtype == dtype
    assert distance(output, expected) < TOLERANCE[dtype]
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype
        # The gradient that arrives is rounded as well.
        assert distance(gradient, expected_gradients[name]) < 2 * TOLERANCE[dtype], name


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@examples(25)
@given(st.data())
def test_any_geometry(backend: Any, torchvision_ops: Any, data: Any) -> None:
    draw = data.draw
    size = [draw(st.integers(1, 9)) for _ in range(2)]
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    dilation = [draw(st.integers(1, 2)) for _ in range(2)]
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = [draw(st.integers(max(0, -(-(s - n) // 2)), 4)) for s, n in zip(span, size, strict=True)]
    groups, offset_groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    in_group = draw(st.integers(1, 7)) * (1 if groups % offset_groups == 0 else offset_groups)
    channels, outputs = groups * in_group, groups * draw(st.integers(1, 9))
    arguments = problem(
        (draw(st.integers(1, 3)), channels, *size),
        (outputs, in_group, *kernel),
        offset_groups=offset_groups,
        masked=draw(st.booleans()),
        biased=draw(st.booleans()),
        spread=draw(st.sampled_from([0.0, 1.0, 30.0])),
        stride=[draw(st.integers(1, 3)) for _ in range(2)],
        padding=padding,
        dilation=dilation,
    )
    check(backend, arguments, torchvision_ops.deform_conv2d, 1e-12)


def test_without_offsets_it_is_a_convolution(backend: Any) -> None:
    arguments = problem((2, 8, 9, 10), (12, 4, 3, 3), masked=False, stride=2, padding=1, dilation=2)
    arguments["offset"] = torch.zeros_like(arguments["offset"])
    input, weight, bias = (arguments[name] for name in ("input", "weight", "bias"))
    expected = torch.nn.functional.conv2d(input, weight, bias, 2, 1, 2, 2)
    output, _ = results(deform_conv2d, arguments, backend.device)
    assert distance(output, expected) < 1e-14


def one_sample(
    backend: Any, y: float, x: float, mask: float = 1.0, near: float = 1.0, far: float = 1.0
) -> tuple[float, list[float]]:
    """A kernel of one element at one position of a 2 x 3 map: what it reads, and the gradient of its offset."""
    input = torch.tensor([[[[near, 2.0, 4.0], [8.0, 16.0, far]]]], device=backend.device)
    offset = torch.tensor([y, x], device=backend.device).reshape(1, 2, 1, 1).requires_grad_()
    masks = torch.tensor(mask, device=backend.device).reshape(1, 1, 1, 1)
    output = deform_conv2d(input, offset, torch.ones(1, 1, 1, 1, device=backend.device), stride=9, mask=masks)
    (gradient,) = torch.autograd.grad(output.sum(), offset)
    return output.item(), gradient.flatten().tolist()


@pytest.mark.parametrize(
    ("y", "x", "value", "gradient"),
    [
        (0.0, 0.0, 1.0, [7.0, 1.0]),
        (0.5, 0.5, 6.75, [10.5, 4.5]),
        (-0.5, 1.0, 1.0, [2.0, 1.0]),
        (-1.0, 1.0, 0.0, [2.0, 0.0]),  # outside, but a larger offset would read
        (1.0, 0.0, 8.0, [-8.0, 8.0]),
        (1.75, 0.0, 2.0, [-8.0, 2.0]),
        (2.0, 0.0, 0.0, [0.0, 0.0]),
        (0.0, 2.5, 2.0, [-1.5, -4.0]),
        (0.0, 3.0, 0.0, [0.0, 0.0]),
        (-1.5, 0.0, 0.0, [0.0, 0.0]),
        (0.0, -1.0, 0.0, [0.0, 1.0]),
    ],
)
def test_borders(backend: Any, torchvision_ops: Any, y: float, x: float, value: float, gradient: list[float]) -> None:
    assert one_sample(backend, y, x) == (value, gradient)
    offset = torch.tensor([y, x]).reshape(1, 2, 1, 1).requires_grad_()
    input = torch.tensor([[[[1.0, 2.0, 4.0], [8.0, 16.0, 1.0]]]])
    expected = torchvision_ops.deform_conv2d(input, offset, torch.ones(1, 1, 1, 1), stride=(9, 9))
    assert expected.item() == value
    assert torch.autograd.grad(expected.sum(), offset)[0].flatten().tolist() == gradient


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 3e9, -3e9, 2.0**31, -(2.0**31)]
)
def test_offsets_far_away_or_not_finite_read_zeros(backend: Any, bad: float) -> None:
    for place in ((bad, 0.0), (0.0, bad), (bad, bad)):
        assert one_sample(backend, *place) == (0.0, [0.0, 0.0])
    arguments = problem((1, 5, 6, 7), (3, 5, 3, 3), padding=1)
    arguments["offset"][:, ::3] = bad
    output, gradients = results(deform_conv2d, arguments, backend.device)
    assert output.isfinite().all()
    assert not gradients["offset"][:, ::3].any()
    zeroed = {**arguments, "mask": arguments["mask"].clone()}
    for channel in range(0, 18, 3):
        zeroed["mask"][:, channel // 2] = 0
    zeroed["offset"] = torch.where(arguments["offset"] == bad, 0.0, arguments["offset"].nan_to_num(nan=0.0))
    expected, expected_gradients = results(reference.deform_conv2d, zeroed)
    assert distance(output, expected) < 1e-13
    assert distance(gradients["input"], expected_gradients["input"]) < 1e-13


def test_values_that_are_not_finite_stay_where_they_are_read(backend: Any) -> None:
    nan, inf = float("nan"), float("inf")
    assert one_sample(backend, 0.5, 0.5, far=nan)[0] == 6.75
    assert one_sample(backend, -0.5, 0.0, far=inf)[0] == 0.5  # corners outside are zeros, whatever lies near them
    assert one_sample(backend, -1.0, 0.0, near=inf)[0] == 0.0
    assert one_sample(backend, 0.0, -1.0, near=inf)[0] == 0.0
    assert one_sample(backend, 1.5, 2.5, far=inf)[0] == inf
    assert one_sample(backend, 0.0, 0.0, mask=inf)[0] == inf
    assert (
        one_sample(backend, 5.0, 5.0, mask=nan)[0] != one_sample(backend, 5.0, 5.0, mask=nan)[0]
    )  # NaN, as torchvision


def test_layouts(backend: Any) -> None:
    arguments = problem((3, 10, 6, 7), (8, 5, 3, 3), offset_groups=2, padding=1)
    expected, expected_gradients = results(deform_conv2d, arguments, backend.device)
    changes = {
        "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
        "transposed": lambda t: t.mT.contiguous().mT if t.dim() == 4 else t,
        "slices": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    }
    for name, change in changes.items():
        changed = {key: change(value) if isinstance(value, Tensor) else value for key, value in arguments.items()}
        output, gradients = results(deform_conv2d, changed, backend.device)
        assert output.is_contiguous(memory_format=torch.channels_last) == (name == "channels_last")
        assert distance(output, expected.cpu()) < 1e-14, name
        for key, gradient in gradients.items():
            assert distance(gradient, expected_gradients[key].cpu()) < 1e-14, (name, key)
        if name == "channels_last":
            assert gradients["input"].is_contiguous(memory_format=torch.channels_last)


def test_expanded_and_strided_gradients(backend: Any) -> None:
    arguments = problem((2, 4, 5, 6), (6, 4, 3, 3), padding=1)
    leaves = {name: arguments[name].to(backend.device).requires_grad_() for name in NAMES}
    output = deform_conv2d(**{**arguments, **leaves})
    for seed in (torch.ones((), device=backend.device).double().expand(output.shape), output.detach().mT.clone().mT):
        actual = torch.autograd.grad(output, list(leaves.values()), seed, retain_graph=True)
        expected = torch.autograd.grad(output, list(leaves.values()), seed.contiguous(), retain_graph=True)
        for a, e in zip(actual, expected, strict=True):
            assert torch.equal(a, e)


@pytest.mark.parametrize("name", NAMES)
def test_each_gradient_alone(backend: Any, name: str) -> None:
    arguments = problem((2, 40, 5, 6), (6, 20, 3, 3), offset_groups=2, padding=1)
    _, expected = results(deform_conv2d, arguments, backend.device)
    moved = {key: v.to(backend.device) if isinstance(v, Tensor) else v for key, v in arguments.items()}
    moved[name].requires_grad_()
    output = deform_conv2d(**moved)
    (gradient,) = torch.autograd.grad(output, moved[name], random(*output.shape, seed=6).to(backend.device))
    assert torch.equal(gradient, expected[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_every_run_and_thread_count(backend: Any, dtype: torch.dtype) -> None:
    shape = (2, 24, 9, 11) if backend.is_emulated else (3, 72, 24, 25)
    arguments = problem(shape, (24, shape[1] // 2, 3, 3), offset_groups=2, padding=1, dtype=dtype)
    threads = torch.get_num_threads()
    first = results(deform_conv2d, arguments, backend.device)
    for count in (threads, 1, 2, 5):
        torch.set_num_threads(count)
        try:
            output, gradients = results(deform_conv2d, arguments, backend.device)
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(output, first[0])
        for name, gradient in gradients.items():
            assert torch.equal(gradient, first[1][name]), name


def test_batches_are_images_side_by_side(backend: Any) -> None:
    arguments = problem((3, 6, 5, 6), (4, 6, 3, 3), padding=1)
    moved = {key: v.to(backend.device) if isinstance(v, Tensor) else v for key, v in arguments.items()}
    output = deform_conv2d(**moved)
    for i in range(3):
        one = {name: moved[name][i : i + 1] for name in ("input", "offset", "mask")}
        assert torch.equal(deform_conv2d(**{**moved, **one})[0], output[i])


def test_gradcheck(backend: Any) -> None:
    arguments = problem((1, 4, 3, 4), (4, 2, 2, 2), offset_groups=2, padding=1, stride=2, spread=1.0)
    arguments["offset"] = arguments["offset"].floor() + 0.3
    leaves = [arguments[name].to(backend.device).requires_grad_() for name in NAMES]

    def function(*tensors: Tensor) -> Tensor:
        return deform_conv2d(**{**arguments, **dict(zip(NAMES, tensors, strict=True))})

    assert torch.autograd.gradcheck(function, leaves)
    with pytest.raises(NotImplementedError, match="deform_conv2d can be differentiated once, not twice"):
        torch.autograd.gradgradcheck(function, leaves)


def test_autocast(backend: Any) -> None:
    """Computed in float32, the result in the dtype of the input: as torchvision's on CUDA."""
    arguments = problem((1, 4, 5, 6), (4, 4, 3, 3), padding=1, dtype=torch.float32)
    moved = {key: v.to(backend.device) if isinstance(v, Tensor) else v for key, v in arguments.items()}
    for name in ("input", "offset"):
        moved[name] = moved[name].bfloat16()
    with torch.autocast(backend.device, torch.bfloat16):
        output = deform_conv2d(**moved)
    exact = {key: v.float() if isinstance(v, Tensor) else v for key, v in moved.items()}
    assert torch.equal(output, deform_conv2d(**exact).bfloat16())
    with pytest.raises(TypeError, match=r"weight must have the dtype of input \(bfloat16\), got float32"):
        deform_conv2d(**moved)
