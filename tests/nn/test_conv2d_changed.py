"""Optimized convolutions that somebody changes afterwards: the weight of the moment counts."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from fastcv.nn import Conv2d, ConvTranspose2d


def optimized(*arguments: Any, **options: Any) -> tuple[nn.Conv2d, Conv2d, Tensor]:
    """torch's convolution, one of ours with the same weight, which it has packed, and an input."""
    torch.manual_seed(0)
    plain = nn.Conv2d(*arguments, **options)
    conv = Conv2d.from_conv(copy.deepcopy(plain))
    x = torch.randn(2, arguments[0], 9, 11)
    with torch.no_grad():
        conv(x)
    return plain, conv, x


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("called", [0, 1])
def test_shallow_copies(called: int) -> None:
    plain, conv, x = optimized(6, 9, 1)
    both = [conv, copy.copy(conv)]
    both[called](x)
    for module in both:
        same(module(x), plain(x))
        assert torch.equal(module.weight, plain.weight)
    conv.weight.mul_(2)
    same(both[1](x), F.conv2d(x, 2 * plain.weight, plain.bias))


@torch.no_grad()
def test_a_call_with_other_weights_leaves_nothing_behind() -> None:
    plain, conv, x = optimized(6, 9, 1)
    for _ in range(2):
        given = {"weight": torch.randn_like(plain.weight)}
        kept = given["weight"].clone()
        same(torch.func.functional_call(conv, given, (x,)), F.conv2d(x, kept, plain.bias))
        assert torch.equal(given["weight"], kept)
        same(conv(x), plain(x))
        assert torch.equal(conv.weight, plain.weight)


def test_gradients_after_all() -> None:
    """Of the weight, by an optimizer; of the bias alone; across a call without."""
    plain, conv, x = optimized(6, 9, 1)
    conv.requires_grad_(True)
    with torch.no_grad():
        same(conv(x), plain(x))
    for module in (plain, conv):
        steps = torch.optim.SGD(module.parameters(), 0.01)
        module(x).square().sum().backward()
        steps.step()
    with torch.no_grad():
        same(conv(x), plain(x))

    plain, conv, x = optimized(6, 9, 1)
    bias = conv.bias
    assert bias is not None
    bias.requires_grad_(True)
    conv(x).sum().backward()
    plain(x).sum().backward()
    assert bias.grad is not None
    assert plain.bias is not None
    assert plain.bias.grad is not None
    same(bias.grad, plain.bias.grad)

    plain, conv, x = optimized(6, 9, 1)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    results = [module(value) for module, value in zip((plain, conv), inputs, strict=True)]
    with torch.no_grad():
        conv(x)
        conv(x)
    expected, got = (torch.autograd.grad(y.square().sum(), i)[0] for y, i in zip(results, inputs, strict=True))
    same(got, expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["weight", "view", "source"])
def test_who_holds_the_weight_may_write_to_it(kind: str) -> None:
    plain, conv, x = optimized(6, 9, 1)
    if kind == "source":
        conv = Conv2d.from_conv(plain)  # with the memory of its weight
        conv(x)
    before = conv.weight.detach().clone()
    held = {"weight": conv.weight, "view": conv.weight.detach()[0], "source": plain.weight}[kind]
    held.mul_(3)
    assert torch.equal(conv.weight[0], 3 * before[0])
    same(conv(x), F.conv2d(x, conv.weight, plain.bias))


@torch.no_grad()
def test_another_geometry() -> None:
    """Of a stride, a dilation and an accuracy that Winograd's filtering does not serve, to one that it does."""
    x = torch.randn(1, 16, 40, 40)
    for options, changed in (({"stride": 2}, "stride"), ({"dilation": 2}, "dilation"), ({"exact": True}, "exact")):
        conv = Conv2d(16, 24, 3, padding=1, **options).optimize()
        weight = conv.weight.detach().clone()
        conv(x)
        setattr(conv, changed, False if changed == "exact" else (1, 1))
        same(conv(x), F.conv2d(x, weight, conv.bias, padding=1))


class Negative(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def reparametrize(conv: nn.Module, kind: str) -> None:
    if kind == "parametrization":
        nn.utils.parametrize.register_parametrization(conv, "weight", Negative())
    elif kind == "weight_norm":
        parametrizations.weight_norm(conv)
    elif kind == "old weight_norm":
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(conv)
    elif kind == "pruning":
        prune.l1_unstructured(conv, "weight", 0.5)  # type: ignore[no-untyped-call]
    else:
        weight: Any = conv.weight
        del conv.weight
        conv.register_buffer("weight", 3 * weight.detach())


@torch.no_grad()
@pytest.mark.parametrize("state", ["new", "optimized", "called"])
@pytest.mark.parametrize("kind", ["parametrization", "weight_norm", "old weight_norm", "pruning", "buffer"])
def test_a_weight_that_is_made_in_each_call(kind: str, state: str) -> None:
    plain, conv, x = optimized(6, 9, 1)
    if state != "called":
        conv = Conv2d(6, 9, 1) if state == "new" else Conv2d(6, 9, 1).optimize()
        conv.load_state_dict(plain.state_dict())
    for module in (plain, conv):
        reparametrize(module, kind)
    same(conv(x), plain(x))


@torch.no_grad()
@pytest.mark.parametrize("make", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("how", ["data", "exchanged"])
def test_memory_that_is_exchanged(how: str, make: Any) -> None:
    """No version is counted there."""
    torch.manual_seed(0)
    conv, other = (make(6, 9, 1).optimize() for _ in range(2))
    x = torch.randn(2, 6, 5, 4)
    conv(x)
    if how == "data":
        conv.weight.data, conv.bias.data = other.weight.data, other.bias.data
    else:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            conv.load_state_dict(copy.deepcopy(other.state_dict()), assign=True)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)
    same(conv(x), other(x))


def _is_there(conv: Conv2d, x: Tensor, expected: Tensor) -> None:
    torch.set_num_threads(1)
    with torch.no_grad():
        same(conv(x), expected)


@torch.no_grad()
def test_shared_memory() -> None:
    plain, conv, x = optimized(6, 9, 1)
    conv.share_memory()
    assert conv.weight.is_shared()
    same(conv(x), plain(x))
    assert torch.equal(conv.weight, plain.weight)
    process = multiprocessing.get_context("fork").Process(target=_is_there, args=(conv, x, plain(x)))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_functions_that_write_only_where_there_is_something() -> None:
    plain, conv, x = optimized(6, 9, 1)
    conv._apply(lambda tensor: tensor.clamp_(-0.1, 0.1))  # leaves a tensor of small numbers as it is
    weight, bias = (p.detach().clamp(-0.1, 0.1) for p in plain.parameters())
    with torch.no_grad():
        same(conv(x), F.conv2d(x, weight, bias))


def test_exported() -> None:
    plain, conv, x = optimized(6, 9, 1)
    exported = torch.export.export(conv, (x,)).module()
    same(exported(x), plain(x))


@torch.no_grad()
def test_copies_other_places_and_dtypes() -> None:
    plain, conv, x = optimized(6, 9, 1)
    y = conv(x)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), conv.to("cpu")):
        assert torch.equal(other.weight, plain.weight)
        assert torch.equal(other(x), y)
    conv.load_state_dict({"weight": 2 * plain.weight, "bias": torch.zeros(9)})
    same(conv(x), F.conv2d(x, 2 * plain.weight))
    same(conv.double()(x.double()), F.conv2d(x.double(), 2 * plain.weight.double()))


def test_other_ways() -> None:
    """Gradients of the input, traces, compiled graphs: torch's convolution."""
    plain, conv, x = optimized(6, 9, 1)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for module, value in zip((plain, conv), inputs, strict=True):
        module(value).square().sum().backward()
    assert inputs[0].grad is not None
    assert inputs[1].grad is not None
    same(inputs[1].grad, inputs[0].grad)
    with torch.no_grad():
        same(torch.jit.trace(conv, x)(x), plain(x))
        same(torch.compile(conv, backend="aot_eager", fullgraph=True)(x), plain(x))
