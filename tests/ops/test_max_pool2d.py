"""max_pool2d_with_indices and max_unpool2d against the reference and torch, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fastcv import nn, reference
from fastcv.ops import max_pool2d_with_indices, max_unpool2d

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
NAN, INF = float("nan"), float("inf")

WINDOWS = {
    "2x2": {"kernel_size": 2},
    "3x3 s2 p1": {"kernel_size": 3, "stride": 2, "padding": 1},
    "3x3 s1 p1": {"kernel_size": 3, "stride": 1, "padding": 1},
    "2x2 s2 ceil": {"kernel_size": 2, "ceil_mode": True},
    "3x2 s(2,1) ceil": {"kernel_size": (3, 2), "stride": (2, 1), "ceil_mode": True},
    "3x3 s3": {"kernel_size": 3},
    "5x4 s(4,3) p(2,1)": {"kernel_size": (5, 4), "stride": (4, 3), "padding": (2, 1)},
    "3x3 s1 d2": {"kernel_size": 3, "stride": 1, "dilation": 2},
    "3x3 s2 p1 d(2,3) ceil": {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": (2, 3), "ceil_mode": True},
    "1x1 s2": {"kernel_size": 1, "stride": 2},
    "2x2 s1": {"kernel_size": 2, "stride": 1},
    "7x7 p3 s2": {"kernel_size": 7, "padding": 3, "stride": 2},
}


def random_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def with_ties(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Few different values, some of them infinite or NaN: decisions in plenty."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.tensor([-INF, -1.0, -0.0, 0.0, 1.0, 2.0, 2.0, INF, NAN])
    weights = torch.tensor([9.0, 4, 4, 4, 4, 4, 4, 1, 1])
    count = int(torch.tensor(shape).prod())
    return values[torch.multinomial(weights, count, True, generator=generator)].reshape(shape).to(dtype)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def as_pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def test_the_lectures_example(backend: Any) -> None:
    image = torch.tensor([[[[1.0, 2, 6, 3], [3, 5, 2, 1], [1, 2, 2, 1], [7, 3, 4, 8]]]], device=backend.device)
    values, indices = max_pool2d_with_indices(image, 2)
    assert values.tolist() == [[[[5, 6], [7, 8]]]]
    assert indices.tolist() == [[[[5, 2], [12, 15]]]]
    remembered = max_unpool2d(torch.tensor([[[[1.0, 2], [3, 4]]]], device=backend.device), indices, 2)
    assert remembered.tolist() == [[[[0, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 0, 0, 4]]]]
    pooled = nn.MaxPool2d(2, return_indices=True)(image)
    assert torch.equal(nn.MaxPool2d(2)(image), values)
    assert torch.equal(nn.MaxUnpool2d(2)(*pooled), max_unpool2d(values, indices, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", WINDOWS)
def test_equals_torch(backend: Any, window: str, layout: Any) -> None:
    """Values and indices are torch's to the bit, gradients to rounding."""
    options = WINDOWS[window]
    for dtype, shape in zip(
        itertools.cycle(DTYPES),
        [(2, 3, 9, 11), (1, 33, 13, 7), (1, 2, 12, 80), (2, 70, 7, 8), (1, 2, 7, 39)],
        strict=False,
    ):
        for make in (random_input, with_ties):
            input = make(*shape, dtype=dtype).to(memory_format=layout).requires_grad_()
            values, indices = F.max_pool2d(input, **options, return_indices=True)
            moved = input.detach().to(backend.device).requires_grad_()
            actual, actual_indices = max_pool2d_with_indices(moved, **options)
            assert_same(actual.cpu(), values)
            assert_same(actual_indices.cpu(), indices)
            assert actual.is_contiguous(memory_format=layout)
            assert actual_indices.is_contiguous(memory_format=layout)
            weight = random_input(*values.shape, seed=1, dtype=dtype).to(memory_format=layout)
            (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
            expected = torch.zeros(input.shape, dtype=torch.float64).flatten(2)
            expected = expected.scatter_add(2, indices.flatten(2), weight.double().flatten(2)).reshape(input.shape)
            tolerance = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(gradient.double().cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("window", WINDOWS)
def test_equals_the_reference(backend: Any, window: str) -> None:
    options = {name: value if name == "ceil_mode" else as_pair(value) for name, value in WINDOWS[window].items()}
    for make in (random_input, with_ties):
        input = make(1, 2, 10, 9, dtype=torch.float64)
        values, indices = reference.max_pool2d_with_indices(input, **options)
        actual, actual_indices = max_pool2d_with_indices(input.to(backend.device), **options)
        assert_same(actual.cpu(), values)
        assert_same(actual_indices.cpu(), indices)


def test_special_windows(backend: Any) -> None:
    """Windows of -inf alone, of NaN in several places, of equal values."""
    cases = {
        "lowest": torch.full((1, 1, 4, 4), -INF),
        "nan": torch.full((1, 1, 4, 4), NAN),
        "equal": torch.ones(1, 1, 4, 4),
        "signed zeros": torch.tensor([[[[-0.0, 0.0], [0.0, -0.0]]]]),
        "nan first": torch.tensor([[[[NAN, 5.0], [7.0, INF]]]]),
        "two nan": torch.tensor([[[[NAN, 5.0], [NAN, 9.0]]]]),
    }
    for name, image in cases.items():
        for copies in (1, 40):
            for layout in LAYOUTS:
                input = image.repeat(1, copies, 1, 20).to(memory_format=layout)
                values, indices = F.max_pool2d(input, 2, padding=1, return_indices=True)
                actual, actual_indices = max_pool2d_with_indices(input.to(backend.device), 2, padding=1)
                torch.testing.assert_close(actual.cpu(), values, rtol=0, atol=0, equal_nan=True, msg=name)
                torch.testing.assert_close(actual_indices.cpu(), indices, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_unpool_equals_torch(backend: Any, dtype: torch.dtype, layout: Any) -> None:
    for shape, options in (
        ((2, 3, 8, 10), {"kernel_size": 2}),
        ((1, 150, 9, 7), {"kernel_size": 2}),
        ((1, 5, 9, 35), {"kernel_size": 3, "stride": 2, "padding": 1}),  # places repeat
    ):
        input = random_input(*shape, dtype=dtype).to(memory_format=layout)
        values, indices = F.max_pool2d(input, **options, return_indices=True)
        for size in (None, shape[2:], shape):
            expected = F.max_unpool2d(values, indices, **options, output_size=shape[2:])
            if size is None and shape[2] % 2 and options["kernel_size"] == 2:
                continue  # one row would be left over
            moved = values.to(backend.device).requires_grad_()
            actual = max_unpool2d(moved, indices.to(backend.device), **options, output_size=size)
            assert torch.equal(actual.cpu(), expected)
            assert actual.dtype is dtype
            assert actual.is_contiguous(memory_format=layout)
            weight = random_input(*shape, seed=1, dtype=dtype).to(memory_format=layout)
            (gradient,) = torch.autograd.grad(actual, moved, weight.to(backend.device))
            leaf = values.clone().requires_grad_()
            (expected_gradient,) = torch.autograd.grad(
                F.max_unpool2d(leaf, indices, **options, output_size=shape[2:]), leaf, weight
            )
            assert torch.equal(gradient.cpu(), expected_gradient)
        slow = reference.max_unpool2d(values[:, :4], indices[:, :4], shape[2:])
        assert torch.equal(expected[:, :4], slow)


def test_the_last_of_several_values_stays(backend: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    values = random_input(2, 66, 5, 7, dtype=torch.float32)
    indices = torch.randint(0, 9, values.shape, generator=generator)
    expected = reference.max_unpool2d(values, indices, (10, 14))
    for layout in LAYOUTS:
        arguments = (t.to(backend.device, memory_format=layout) for t in (values, indices))
        assert torch.equal(max_unpool2d(*arguments, 2).cpu(), expected)


@pytest.mark.parametrize("index", [-1, 80, 2**31, -(2**63), 2**63 - 1])
def test_index_outside(backend: Any, index: int) -> None:
    values, indices = max_pool2d_with_indices(random_input(2, 3, 8, 10).to(backend.device), 2)
    whole = max_unpool2d(values, indices, 2)
    indices[1, 2, 3, 4] = index
    if not backend.is_cuda:
        with pytest.raises(ValueError, match=rf"indices must lie in \[0, 80\), .* 8 x 10 output, got {index}"):
            max_unpool2d(values, indices, 2)
        return
    values.requires_grad_()
    output = max_unpool2d(values, indices, 2)
    assert (output != whole).sum() == 1
    (gradient,) = torch.autograd.grad(output.sum(), values)
    assert gradient[1, 2, 3, 4] == 0
    assert gradient.sum() == values.numel() - 1


def test_unbatched(backend: Any) -> None:
    input = random_input(3, 8, 10).to(backend.device)
    values, indices = max_pool2d_with_indices(input, 2)
    batched = max_pool2d_with_indices(input[None], 2)
    assert torch.equal(values, batched[0][0])
    assert torch.equal(indices, batched[1][0])
    assert torch.equal(max_unpool2d(values, indices, 2), max_unpool2d(*batched, 2)[0])


def test_strided_input_and_gradient(backend: Any) -> None:
    wide = random_input(4, 24, 20, 22).to(backend.device)
    views = {
        "sliced": wide[1:3, 2:20, 3:15, 5:20],
        "every second": wide[::2, ::2, ::2, ::2],
        "transposed": wide.transpose(2, 3)[:2],
        "expanded": wide[:1, :1].expand(2, 7, 20, 22),
        "channels_last slice": wide.to(memory_format=torch.channels_last)[:2, 3:21],
    }
    for name, view in views.items():
        for actual, expected in zip(
            max_pool2d_with_indices(view, 2), max_pool2d_with_indices(view.contiguous(), 2), strict=True
        ):
            assert torch.equal(actual, expected), name
        values, indices = max_pool2d_with_indices(view, 2)
        mixed = (values.contiguous(), indices.contiguous(memory_format=torch.channels_last))
        size = view.shape[2:]
        expected = max_unpool2d(values.contiguous(), indices.contiguous(), 2, output_size=size)
        assert torch.equal(max_unpool2d(*mixed, 2, output_size=size), expected), name
    input = random_input(2, 3, 8, 10).to(backend.device).requires_grad_()
    output, _ = max_pool2d_with_indices(input, 3, 2)
    for weight in (
        torch.ones((), device=output.device).double().expand(output.shape),
        output.detach().mT.clone().mT,
        output.detach().contiguous(memory_format=torch.channels_last),
    ):
        (gradient,) = torch.autograd.grad(output, input, weight, retain_graph=True)
        (expected,) = torch.autograd.grad(output, input, weight.contiguous(), retain_graph=True)
        torch.testing.assert_close(gradient, expected)


def test_unpool_to_nothing_and_of_nothing(backend: Any) -> None:
    values = torch.zeros(1, 2, 0, 3, device=backend.device)
    assert max_unpool2d(values, values.long(), 2, output_size=(1, 6)).shape == (1, 2, 1, 6)
    assert not max_unpool2d(values, values.long(), 2, output_size=(1, 6)).any()
    values = torch.zeros(1, 2, 1, 1, device=backend.device)
    if backend.is_cuda:
        assert torch.ops.fastcv.max_unpool2d(values, values.long(), 0, 1).shape == (1, 2, 0, 1)
    else:
        with pytest.raises(ValueError, match="indices must lie in"):
            torch.ops.fastcv.max_unpool2d(values, values.long(), 0, 1)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 31, 32, 33, 64, 65])
def test_sizes_around_vectors_and_blocks(backend: Any, size: int) -> None:
    for stride, kernel in ((1, 2), (2, 2), (2, 3)):
        for shape in ((1, 2, 4, size + 2), (1, size, 4, 4)):
            for layout in LAYOUTS:
                input = with_ties(*shape, dtype=torch.float32, seed=size).to(memory_format=layout)
                expected = F.max_pool2d(input, kernel, stride, 1, return_indices=True)
                actual = max_pool2d_with_indices(input.to(backend.device), kernel, stride, 1)
                assert_same(actual[0].cpu(), expected[0])
                assert_same(actual[1].cpu(), expected[1])


def test_enormous_window(backend: Any) -> None:
    """Only the places inside the map are visited."""
    input = random_input(1, 2, 5, 6).to(backend.device).requires_grad_()
    values, indices = max_pool2d_with_indices(input, 2**29, 1, 2**28)
    assert values.shape == (1, 2, 6, 7)
    assert torch.equal(values[:, :, 2, 2], input.amax((2, 3)))
    assert torch.equal(indices[:, :, 0, 0], input.flatten(2).argmax(2))
    values.sum().backward()
    assert max_pool2d_with_indices(input, 1, 2**30)[0].shape == (1, 2, 1, 1)


def test_gradcheck(backend: Any) -> None:
    input = random_input(2, 2, 5, 6).to(backend.device).requires_grad_()
    for options in ((2, 2, 0), (3, 2, 1)):
        assert torch.autograd.gradcheck(
            lambda x, o=options: max_pool2d_with_indices(x, *o)[0], (input,), check_forward_ad=True, fast_mode=True
        )
        assert torch.autograd.gradgradcheck(lambda x, o=options: max_pool2d_with_indices(x, *o)[0], (input,))
    values, indices = max_pool2d_with_indices(input.detach(), 2)
    values.requires_grad_()

    def unpool(v: Tensor) -> Tensor:
        return max_unpool2d(v, indices, 2)

    assert torch.autograd.gradcheck(unpool, (values,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(unpool, (values,))


class _Recorded(TorchDispatchMode):
    """Which operations ran, and the dtypes of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        self.operations.append((str(function), getattr(result, "dtype", None)))
        return result


class _Cut(torch.autograd.Function):
    """The identity, through which no gradient comes."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:  # type: ignore[override]
        return input.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:  # type: ignore[override]
        return None


def test_no_gradient_is_made_up(backend: Any) -> None:
    """Indices get no zeros for a gradient, and a gradient that does not come is no work."""
    input = random_input(2, 3, 8, 9).to(backend.device).requires_grad_()
    values, indices = max_pool2d_with_indices(input, 3, 2, 1)
    assert values.requires_grad
    assert not indices.requires_grad
    with _Recorded() as recorded:
        (gradient,) = torch.autograd.grad(values, input, torch.ones_like(values), retain_graph=True)
    assert gradient.sum() == values.numel()
    assert any("max_pool2d_backward" in name for name, _ in recorded.operations)
    assert not [name for name, dtype in recorded.operations if dtype is torch.int64]
    for pool in (max_pool2d_with_indices, lambda x, *window: F.max_pool2d(x, *window, return_indices=True)):
        cut = _Cut.apply(pool(input, 3, 2, 1)[0])
        assert torch.autograd.grad(cut.sum(), input, retain_graph=True, allow_unused=True) == (None,)
        both = cut.sum() + input.square().sum()
        assert torch.equal(torch.autograd.grad(both, input)[0], 2 * input)


def test_function_transforms(backend: Any) -> None:
    input = random_input(3, 2, 2, 6, 7).to(backend.device)

    def function(x: Tensor) -> Tensor:
        values, indices = max_pool2d_with_indices(x, 2)
        return max_unpool2d(values * values, indices, 2, output_size=(6, 7))

    stacked = torch.stack([function(x) for x in input])
    assert torch.equal(torch.vmap(function)(input), stacked)
    gradient = torch.func.grad(lambda x: function(x).sum())(input[0])
    leaf = input[0].clone().requires_grad_()
    assert torch.equal(gradient, torch.autograd.grad(function(leaf).sum(), leaf)[0])
    tangent = random_input(*input[0].shape, seed=3).to(backend.device)
    _, derivative = torch.func.jvp(function, (input[0],), (tangent,))
    torch.testing.assert_close(derivative, gradient * tangent)


def test_negative_bit_is_resolved(backend: Any) -> None:
    view = torch.complex(random_input(1, 2, 4, 6), random_input(1, 2, 4, 6, seed=1)).to(backend.device).conj().imag
    assert view.is_neg()
    assert torch.equal(max_pool2d_with_indices(view, 2)[0], max_pool2d_with_indices(view.resolve_neg(), 2)[0])


def test_offsets_beyond_32_bits(backend: Any) -> None:
    """Element offsets above 2^31, in memory that is mostly never touched: rows of 2^22, of which one pixel is read."""
    rows = 2**9 + 2
    input = torch.empty(1, 1, rows, 2**22, dtype=torch.float16, device=backend.device)
    expected = random_input(1, 1, rows, 1, dtype=torch.float16).to(backend.device)
    with pytest.raises(ValueError, match="fewer than 2147483648 pixels an image"):
        max_pool2d_with_indices(input, 1, (1, 2**22))
    # as planes of one row each
    planes = input.reshape(rows, 1, 1, 2**22)
    planes[..., :1] = expected.reshape(rows, 1, 1, 1)
    values, indices = max_pool2d_with_indices(planes, 1, (1, 2**22))
    assert torch.equal(values.flatten(), expected.flatten())
    assert not indices.any()
    assert torch.equal(torch.ops.fastcv.max_pool2d_gather(planes, indices), values)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_equals_torch(backend: Any, data: st.DataObject) -> None:
    draw = data.draw
    shape = [draw(st.integers(1, high)) for high in (2, 20, 12, 45)]
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = [draw(st.integers(1, 4)) for _ in range(2)]
    dilation = [draw(st.integers(1, 3)) for _ in range(2)]
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    ceil_mode = draw(st.booleans())
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, p, d, k in zip(shape[2:], padding, dilation, kernel, strict=True)))
    # a window whose places all lie beside the map has no largest value
    assume(
        all(d == 1 or n + p >= d * (k - 1) + 1 for n, p, d, k in zip(shape[2:], padding, dilation, kernel, strict=True))
    )
    options = (kernel, stride, padding, dilation, ceil_mode)
    input = with_ties(*shape, seed=draw(st.integers(0, 99)))
    input = input.to(memory_format=draw(st.sampled_from(LAYOUTS)))
    values, indices = F.max_pool2d(input, *options, return_indices=True)
    actual, actual_indices = max_pool2d_with_indices(input.to(backend.device), *options)
    assert_same(actual.cpu(), values)
    assert_same(actual_indices.cpu(), indices)
    size = input.shape[2:]
    expected = reference.max_unpool2d(values, indices, size)
    output = torch.ops.fastcv.max_unpool2d(actual, actual_indices, *size)
    assert_same(output.cpu(), expected)
