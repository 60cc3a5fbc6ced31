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


def test_the_packed_weight_follows_the_weight(backend: Any) -> None:
    module = ConvTranspose2d(3, 4, 2, 2).to(backend.device).eval()
    input = torch.randn(1, 3, 4, 5).to(backend.device)

    def check() -> None:
        plain = nn.ConvTranspose2d(3, 4, 2, 2)
        plain.load_state_dict(module.state_dict())
        torch.testing.assert_close(module(input).cpu(), plain(input.cpu()), rtol=1e-5, atol=1e-6)

    with torch.no_grad():
        check()
        packed = module._packed.weight
        assert packed is not None
        check()
        assert module._packed.weight is packed, "packed once"
        module.weight.mul_(2)
        check()
        module.load_state_dict(ConvTranspose2d(3, 4, 2, 2).state_dict())
        check()
        module.weight = nn.Parameter(torch.randn_like(module.weight))
        check()
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(other(input), module(input))
            assert other._packed is not module._packed
        module.train()
        module.weight.data.mul_(3)
        module.eval()
        check()
    with torch.inference_mode():
        check()
    (gradient,) = torch.autograd.grad(module(input).sum(), module.weight)
    assert gradient.shape == module.weight.shape


def test_compile(backend: Any) -> None:
    module = ConvTranspose2d(3, 4, 3, 2, 1, 1, activation="relu").to(backend.device).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    input = torch.randn(1, 3, 4, 5).to(backend.device)
    with torch.no_grad():
        assert torch.equal(compiled(input), module(input))
    assert torch.equal(compiled(input), module(input))
