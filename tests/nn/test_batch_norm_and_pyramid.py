"""Frozen batch normalisation and feature pyramids against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcv.nn.batch_norm import FrozenBatchNorm2d, convolve_normalized, fold_batch_norm
from fastcv.nn.feature_pyramid import FeaturePyramidNetwork

torchvision = pytest.importorskip("torchvision")


def randomize(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)


@pytest.mark.parametrize("bias", [False, True])
def test_folding_at_each_call_has_the_same_gradients(bias: bool) -> None:
    conv, norm = nn.Conv2d(4, 6, 3, bias=bias).double(), nn.BatchNorm2d(6).double().eval()
    randomize(norm)
    x = torch.rand(2, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    parameters = [x, *conv.parameters(), *norm.parameters()]
    expected = torch.autograd.grad(norm(conv(x)).relu().square().sum(), parameters)
    actual = torch.autograd.grad(convolve_normalized(conv, norm, x, relu=True).square().sum(), parameters)
    torch.testing.assert_close(actual, expected)
    y = norm(conv(x))
    assert isinstance(fold_batch_norm(conv, norm), nn.Identity)
    torch.testing.assert_close(conv(x), y)


def test_folding_needs_fixed_statistics() -> None:
    for norm in (nn.BatchNorm2d(6), nn.BatchNorm2d(6, track_running_stats=False).eval(), nn.GroupNorm(2, 6)):
        with pytest.raises(ValueError, match="batch normalisation in evaluation mode"):
            fold_batch_norm(nn.Conv2d(4, 6, 3), norm)
        conv, x = nn.Conv2d(4, 6, 3), torch.rand(2, 4, 9, 8)
        torch.testing.assert_close(convolve_normalized(conv, norm, x), norm(conv(x)))


def test_frozen_batch_norm() -> None:
    theirs = torchvision.ops.FrozenBatchNorm2d(6)
    randomize(theirs)
    ours = FrozenBatchNorm2d(6)
    ours.load_state_dict({**theirs.state_dict(), "num_batches_tracked": torch.tensor(3)})
    x = torch.rand(2, 6, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    assert not list(ours.parameters())


@pytest.mark.parametrize("grad", [False, True])
def test_feature_pyramid(grad: bool) -> None:
    theirs = torchvision.ops.FeaturePyramidNetwork(
        [8, 16, 32], 12, torchvision.ops.feature_pyramid_network.LastLevelMaxPool()
    )
    ours = FeaturePyramidNetwork([8, 16, 32], 12)
    ours.load_state_dict(theirs.state_dict())
    maps = {str(i): torch.rand(2, 8 << i, 20 >> i, 25 >> i) for i in range(3)}
    with torch.set_grad_enabled(grad):
        expected, actual = theirs(dict(maps)), ours(maps)
    assert list(actual) == list(expected) == ["0", "1", "2", "pool"]
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-5)
