"""sigmoid_focal_loss against the reference and torchvision, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcv import reference
from fastcv.ops import sigmoid_focal_loss

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
GAMMAS = [0, 0.5, 1, 2, 3.7]


def sample(*shape: int, dtype: torch.dtype = torch.float64, soft: bool = True, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of all sizes, and labels of which some lie between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 6
    labels = torch.rand(shape, generator=generator, dtype=torch.float64)
    return logits.to(dtype), (labels if soft else labels.round()).to(dtype)


def gradients(function: Any, inputs: Tensor, targets: Tensor, weight: Tensor, device: str = "cpu") -> list[Tensor]:
    leaves = [inputs.detach().to(device).requires_grad_(), targets.detach().to(device).requires_grad_()]
    return [g.cpu() for g in torch.autograd.grad(function(*leaves), leaves, weight.to(device))]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("alpha", [-1, 0, 0.25, 1])
def test_values_and_gradients_equal_the_reference(backend: Any, alpha: float, gamma: float) -> None:
    for count in (1, 7, 8, 16, 17, 33, 260):
        inputs, targets = sample(count, seed=count)
        targets[::3] = targets[::3].round()
        actual = sigmoid_focal_loss(inputs.to(backend.device), targets.to(backend.device), alpha, gamma)
        expected = reference.sigmoid_focal_loss(inputs, targets, alpha, gamma)
        torch.testing.assert_close(actual.cpu(), expected, rtol=1e-13, atol=1e-15)
        weight = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        want = gradients(lambda x, t: reference.sigmoid_focal_loss(x, t, alpha, gamma), inputs, targets, weight)
        got = gradients(lambda x, t: sigmoid_focal_loss(x, t, alpha, gamma), inputs, targets, weight, backend.device)
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gamma", [2, 1.5])
def test_dtypes(backend: Any, dtype: torch.dtype, gamma: float) -> None:
    inputs, targets = sample(3, 45, dtype=dtype)
    actual = sigmoid_focal_loss(inputs.to(backend.device), targets.to(backend.device), gamma=gamma)
    assert actual.dtype is dtype
    wide = inputs.double(), targets.double()
    expected = reference.sigmoid_focal_loss(*wide, gamma=gamma)
    near = TOLERANCE[dtype]
    smallest = 1e-7 if dtype is torch.float16 else 1e-30
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=near, atol=smallest)
    weight = torch.ones_like(inputs)
    want = gradients(lambda x, t: reference.sigmoid_focal_loss(x, t, gamma=gamma), *wide, weight.double())
    got = gradients(lambda x, t: sigmoid_focal_loss(x, t, gamma=gamma), inputs, targets, weight, backend.device)
    torch.testing.assert_close([g.double() for g in got], want, rtol=10 * near, atol=10 * near)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("alpha", [-1, 0.25])
def test_agrees_with_torchvision(backend: Any, torchvision_ops: Any, alpha: float, reduction: str) -> None:
    for dtype in (torch.float32, torch.float64):
        for shape in ((2, 5, 3), (), (0, 4)):
            inputs, targets = sample(*shape, dtype=dtype, soft=False)
            options = {"alpha": alpha, "gamma": 2.0, "reduction": reduction}
            expected = torchvision_ops.sigmoid_focal_loss(inputs, targets, **options)
            actual = sigmoid_focal_loss(inputs.to(backend.device), targets.to(backend.device), **options)
            torch.testing.assert_close(actual.cpu(), expected, rtol=1e-5, atol=1e-6, equal_nan=True)
            weight = torch.ones_like(expected)
            want = gradients(
                lambda x, t, options=options: torchvision_ops.sigmoid_focal_loss(x, t, **options),
                *(inputs, targets, weight),
            )
            got = gradients(
                lambda x, t, options=options: sigmoid_focal_loss(x, t, **options),
                *(inputs, targets, weight, backend.device),
            )
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("other", TOLERANCE)
def test_mixed_dtypes_promote_as_in_torchvision(
    backend: Any, torchvision_ops: Any, dtype: torch.dtype, other: torch.dtype
) -> None:
    inputs, targets = sample(70, dtype=dtype)[0], sample(70, dtype=other, soft=False)[1]
    expected = torchvision_ops.sigmoid_focal_loss(inputs, targets, reduction="sum")
    actual = sigmoid_focal_loss(inputs.to(backend.device), targets.to(backend.device), reduction="sum")
    assert actual.dtype is expected.dtype is torch.promote_types(dtype, other)
    wide = inputs.to(actual.dtype), targets.to(actual.dtype)  # torchvision rounds logits' sigmoids to half on the way
    close = reference.sigmoid_focal_loss(*(x.double() for x in wide)).sum()
    torch.testing.assert_close(actual.cpu().double(), close, rtol=TOLERANCE[actual.dtype], atol=1e-6)
    got = gradients(sigmoid_focal_loss, inputs, targets, torch.ones(70, dtype=actual.dtype), backend.device)
    assert [g.dtype for g in got] == [dtype, other]
    same = gradients(sigmoid_focal_loss, *wide, torch.ones(70, dtype=actual.dtype), backend.device)
    assert all(torch.equal(g, s.to(g.dtype)) for g, s in zip(got, same, strict=True))


@pytest.mark.parametrize(("dtype", "low"), [(torch.float32, 86.0), (torch.float64, 700.0)])
def test_exponential_and_logarithm_are_accurate(backend: Any, dtype: torch.dtype, low: float) -> None:
    """log(1 + exp(-x)) alone, where nothing hides an error: to 2 units in the last place of each function."""
    x = torch.cat([torch.linspace(0, 3, 4001), torch.linspace(3, low, 4001)]).to(dtype)
    ones = torch.ones_like(x)
    actual = sigmoid_focal_loss(x.to(backend.device), ones.to(backend.device), alpha=-1, gamma=0).cpu()
    expected = torch.log1p(torch.exp(-x.double()))
    error = (actual.double() - expected).abs() / expected
    # The double-precision authority is itself good to about one unit.
    assert error.max() <= 4 * torch.finfo(dtype).eps, error.max() / torch.finfo(dtype).eps


def test_special_values(backend: Any) -> None:
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([0.0, -0.0, 1000, -1000, 90, -90, 1000, -1000, nan, inf, -inf], device=backend.device)
    t = torch.tensor([1.0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 1], device=backend.device)
    loss = sigmoid_focal_loss(x, t, alpha=-1).tolist()
    assert loss[:2] == pytest.approx([0.25 * 0.6931472] * 2)
    assert loss[2:8] == [0, 0, 0, 0, 1000, 1000]
    assert loss[8] != loss[8]
    assert loss[9:] == [inf, inf]
    leaf = x[:8].clone().requires_grad_()
    for gamma in GAMMAS:
        (gradient,) = torch.autograd.grad(sigmoid_focal_loss(leaf, t[:8], gamma=gamma).sum(), leaf)
        assert torch.isfinite(gradient).all()


def test_gradcheck(backend: Any) -> None:
    inputs, targets = (x.to(backend.device).requires_grad_() for x in sample(6))
    for gamma in GAMMAS:
        assert torch.autograd.gradcheck(lambda x, t, g=gamma: sigmoid_focal_loss(x / 3, t, 0.25, g), (inputs, targets))
        assert torch.autograd.gradcheck(lambda x, g=gamma: sigmoid_focal_loss(x, targets.detach(), 0.25, g), (inputs,))


def test_second_derivative_is_refused(backend: Any) -> None:
    inputs, targets = (x.to(backend.device).requires_grad_() for x in sample(6))
    (gradient,) = torch.autograd.grad(sigmoid_focal_loss(inputs, targets, reduction="sum"), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="once, not twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_memory_that_is_not_aligned(backend: Any, dtype: torch.dtype) -> None:
    inputs, targets = (x.to(backend.device, dtype).flatten() for x in sample(7, 45, dtype=torch.float32))
    weight = inputs.abs()
    leaf = inputs.clone().requires_grad_()
    loss = sigmoid_focal_loss(leaf, targets)
    (expected,) = torch.autograd.grad(loss, leaf, weight)
    for begin in (1, 2, 3):
        other = leaf.detach()[begin:].requires_grad_()
        shifted = sigmoid_focal_loss(other, targets[begin:])
        assert torch.equal(shifted, loss[begin:])
        (got,) = torch.autograd.grad(shifted, other, weight[begin:])
        assert torch.equal(got, expected[begin:])


def test_strided(backend: Any) -> None:
    inputs, targets = (x.to(backend.device) for x in sample(40, 131, dtype=torch.float32))
    expected = sigmoid_focal_loss(inputs, targets)
    assert torch.equal(sigmoid_focal_loss(inputs.T, targets.T), expected.T)
    assert torch.equal(sigmoid_focal_loss(inputs[:, ::2], targets[:, ::2]), expected[:, ::2])
    leaf = inputs.clone().requires_grad_()
    loss = sigmoid_focal_loss(leaf, targets)
    for weight in (expected.T.contiguous().T, expected[:1, :1].expand(expected.shape), expected[:, :1].expand(40, 131)):
        (got,) = torch.autograd.grad(loss, leaf, weight, retain_graph=True)
        (want,) = torch.autograd.grad(loss, leaf, weight.contiguous(), retain_graph=True)
        assert torch.equal(got, want)


def test_compiled_gradient_of_logits_alone(backend: Any) -> None:
    """As in training: labels want none."""
    torch._dynamo.reset()
    compiled = torch.compile(sigmoid_focal_loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for count, reduction in ((5, "none"), (9, "mean"), (17, "mean")):
        inputs, targets = (x.to(backend.device) for x in sample(count, dtype=torch.float32))
        leaf = inputs.bfloat16().requires_grad_()
        got, want = (
            torch.autograd.grad(f(leaf, targets, reduction=reduction).square().sum(), leaf)
            for f in (compiled, sigmoid_focal_loss)
        )
        torch.testing.assert_close(got, want)


def test_vmap_and_meta(backend: Any) -> None:
    inputs, targets = (x.to(backend.device) for x in sample(4, 5, dtype=torch.float32))
    assert torch.equal(torch.vmap(sigmoid_focal_loss)(inputs, targets), sigmoid_focal_loss(inputs, targets))
    meta = sigmoid_focal_loss(inputs.bfloat16().to("meta"), targets.to("meta"))
    assert (meta.shape, meta.dtype) == ((4, 5), torch.float32)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_values_equal_the_reference(backend: Any, data: st.DataObject) -> None:
    pairs = st.lists(st.tuples(st.floats(-700, 700), st.floats(0, 1)), max_size=40)
    rows = torch.tensor(data.draw(pairs), dtype=torch.float64).reshape(-1, 2)
    gamma, alpha = data.draw(st.sampled_from(GAMMAS)), data.draw(st.sampled_from([-1, 0.25, 0.9]))
    expected = reference.sigmoid_focal_loss(rows[:, 0], rows[:, 1], alpha, gamma)
    moved = rows.to(backend.device)
    actual = sigmoid_focal_loss(moved[:, 0], moved[:, 1], alpha, gamma)
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-11, atol=1e-300)
