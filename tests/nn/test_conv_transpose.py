"""The transposed convolution modules against torch.nn's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from fastcv.nn import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

PAIRS = {1: (ConvTranspose1d, nn.ConvTranspose1d), 2: (ConvTranspose2d, nn.ConvTranspose2d)}
PAIRS[3] = (ConvTranspose3d, nn.ConvTranspose3d)


@pytest.mark.parametrize("dims", PAIRS)
def test_constructor_state_and_values_are_those_of_torch(backend: Any, dims: int) -> None:
    ours, theirs = PAIRS[dims]
    arguments, options = (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2, "dtype": torch.float64}
    torch.manual_seed(0)
    module = ours(*arguments, **options).to(backend.device)
    torch.manual_seed(0)
    expected = theirs(*arguments, **options)
    for name, value in expected.state_dict().items():
        assert torch.equal(module.state_dict()[name].cpu(), value)
    expected.load_state_dict(module.state_dict())
    assert repr(module) == repr(expected)
    input = torch.randn(2, 4, *[5] * dims, dtype=torch.float64)
    for training in (True, False):
        module.train(training)
        torch.testing.assert_close(module(input.to(backend.device)).cpu(), expected(input))
        with torch.no_grad():
            torch.testing.assert_close(module(input.to(backend.device)).cpu(), expected(input))
    size = [10] * dims
    torch.testing.assert_close(module(input.to(backend.device), size).cpu(), expected(input, size))
    with pytest.raises(ValueError, match="requested an output size"):
        module(input.to(backend.device), [50] * dims)


def test_activation(backend: Any) -> None:
    module = ConvTranspose2d(3, 4, 2, 2, activation="relu").to(backend.device)
    input = torch.randn(1, 3, 4, 5).to(backend.device)
    plain = nn.ConvTranspose2d(3, 4, 2, 2)
    plain.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(input).cpu(), plain(input.cpu()).relu(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="activation must be None or 'relu'"):
        ConvTranspose2d(3, 4, 2, activation="gelu").to(backend.device)(input)


def assert_equals_torch(module: Any, input: torch.Tensor, weight: torch.Tensor | None = None) -> None:
    weight = module.weight if weight is None else weight
    expected = nn.functional.conv_transpose2d(input.cpu(), weight.cpu(), module.bias.cpu(), stride=2)
    torch.testing.assert_close(module(input).cpu(), expected, rtol=1e-5, atol=1e-5)


def test_every_call_reads_the_weight_as_it_is(backend: Any) -> None:
    """Nothing is kept between calls: not for computed, replaced, written or fused weights."""
    module = ConvTranspose2d(3, 4, 2, 2).to(backend.device).eval()
    input = torch.randn(1, 3, 4, 5).to(backend.device)
    with torch.no_grad():
        for _ in range(20):  # new tensors take the addresses of old ones
            weight = torch.randn(3, 4, 2, 2).to(backend.device)
            computed = torch.func.functional_call(module, {"weight": weight}, (input,))
            expected = nn.functional.conv_transpose2d(input.cpu(), weight.cpu(), module.bias.cpu(), stride=2)
            torch.testing.assert_close(computed.cpu(), expected, rtol=1e-5, atol=1e-5)
            del weight
            del module.weight
            module.weight = nn.Parameter(torch.randn(3, 4, 2, 2).to(backend.device))
            assert_equals_torch(module, input)
            module.weight.data.mul_(3)
            assert_equals_torch(module, input)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)  # does not raise the weight's version
    module(input).sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert_equals_torch(module, input)
    normed = nn.utils.parametrizations.weight_norm(ConvTranspose2d(3, 4, 2, 2)).to(backend.device).eval()
    with torch.no_grad():
        for _ in range(10):
            normed.load_state_dict({name: torch.randn_like(value) for name, value in normed.state_dict().items()})
            assert_equals_torch(normed, input)


def test_an_optimized_module_notices_other_weights_and_refuses_training(backend: Any) -> None:
    module = ConvTranspose2d(3, 4, 2, 2).to(backend.device).optimize()
    input = torch.randn(1, 3, 4, 5).to(backend.device)
    with torch.no_grad():
        assert_equals_torch(module, input)
        module.weight.mul_(2)
        assert_equals_torch(module, input)
        module.load_state_dict(ConvTranspose2d(3, 4, 2, 2).state_dict())
        assert_equals_torch(module, input)
        module.weight = nn.Parameter(torch.randn_like(module.weight), requires_grad=False)
        assert_equals_torch(module, input)
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(other(input), module(input))
    with pytest.raises(RuntimeError, match="cannot be trained"):
        module.train()


def test_autocast(backend: Any) -> None:
    """As torch's: computed in the dtype of autocast, gradients in that of the weight."""
    module = ConvTranspose2d(3, 4, 2, 2).to(backend.device)
    input = torch.randn(1, 3, 4, 5).to(backend.device)
    with torch.autocast(backend.device, dtype=torch.bfloat16):
        output = module(input)
    assert output.dtype is torch.bfloat16
    output.sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.dtype is torch.float32
    torch.testing.assert_close(output.float(), module(input), rtol=0.02, atol=0.02)


def test_compile(backend: Any) -> None:
    module = ConvTranspose2d(3, 4, 3, 2, 1, 1, activation="relu").to(backend.device).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    input = torch.randn(1, 3, 4, 5).to(backend.device)
    with torch.no_grad():
        assert torch.equal(compiled(input), module(input))
    assert torch.equal(compiled(input), module(input))
