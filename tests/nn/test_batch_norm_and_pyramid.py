"""Frozen batch normalisation and feature pyramids against torchvision's."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import nn

from fastcv import ops
from fastcv.models.detection import BackboneWithFPN
from fastcv.nn.batch_norm import FrozenBatchNorm2d, fold_batch_norm
from fastcv.nn.conv2d import Conv2d
from fastcv.nn.convolution import convolve_block, convolve_normalized
from fastcv.nn.feature_pyramid import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

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


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
@pytest.mark.parametrize("extra", ["none", "pool", "p6p7 of p5", "p6p7 of c5"])
@pytest.mark.parametrize("grad", [False, True])
def test_feature_pyramid(grad: bool, extra: str, norm_layer: Any) -> None:
    torch.manual_seed(0)
    names = ["0", "1", "2", *{"none": [], "pool": ["pool"]}.get(extra, ["p6", "p7"])]

    def make(package: Any) -> Any:
        path, inputs = package.feature_pyramid_network, 12 if extra.endswith("p5") else 32
        block = path.LastLevelMaxPool() if extra == "pool" else path.LastLevelP6P7(inputs, 12)
        return path.FeaturePyramidNetwork([8, 16, 32], 12, None if extra == "none" else block, norm_layer).double()

    theirs, ours = make(torchvision.ops), make(ops)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    maps = {str(i): torch.rand(2, 8 << i, 20 >> i, 25 >> i, dtype=torch.float64) for i in range(3)}
    for training in (True, False):
        with torch.set_grad_enabled(grad):
            expected, actual = theirs.train(training)(dict(maps)), ours.train(training)(maps)
        assert list(actual) == list(expected) == names
        for key, value in expected.items():
            torch.testing.assert_close(actual[key], value)
    for index in range(3):
        expected = theirs.get_result_from_inner_blocks(maps[str(index)], index)
        torch.testing.assert_close(ours.get_result_from_inner_blocks(maps[str(index)], index), expected)
        torch.testing.assert_close(
            ours.get_result_from_layer_blocks(expected, index), theirs.get_result_from_layer_blocks(expected, index)
        )


def test_blocks_of_a_pyramid_can_be_replaced() -> None:
    pyramid = FeaturePyramidNetwork([4, 4], 6)
    pyramid.inner_blocks[0] = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU())
    pyramid.layer_blocks[1] = nn.Identity()
    maps = {"a": torch.rand(1, 4, 8, 8), "b": torch.rand(1, 4, 4, 4)}
    coarse = pyramid.inner_blocks[1](maps["b"])
    fine = pyramid.inner_blocks[0](maps["a"]) + nn.functional.interpolate(coarse, size=(8, 8))
    torch.testing.assert_close(pyramid(maps), {"a": pyramid.layer_blocks[0](fine), "b": coarse})


class _KeepsAll(ExtraFPNBlock):
    """Adds the network's last map."""

    def forward(
        self, results: list[torch.Tensor], x: list[torch.Tensor], names: list[str]
    ) -> tuple[list[torch.Tensor], list[str]]:
        assert len(x) == 3
        return [*results, x[-1]], [*names, "last"]


@pytest.mark.parametrize("extra", [None, LastLevelMaxPool(), _KeepsAll()])
def test_a_backbone_lets_maps_go_that_nobody_keeps(extra: Any) -> None:
    torch.manual_seed(0)
    body = nn.ModuleDict({str(i): nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(3)})
    backbone = BackboneWithFPN(nn.Sequential(*body.values()), {str(i): str(i) for i in range(3)}, [4, 4, 4], 8, extra)
    x = torch.randn(1, 3, 32, 32)
    alive: dict[str, list[int]] = {}
    maps: list[Any] = []

    def run(name: str) -> dict[str, torch.Tensor]:
        """Note how many of the maps are alive when each block of the pyramid is called."""
        alive[name] = []
        maps.clear()
        result: dict[str, torch.Tensor] = backbone(x)
        return result

    for layer in backbone.body.values():
        layer.register_forward_hook(lambda module, inputs, output: maps.append(weakref.ref(output)))
    for block in backbone.fpn.layer_blocks:
        block.register_forward_pre_hook(lambda *_: alive[name].append(sum(each() is not None for each in maps)))
    with torch.no_grad():
        name = "freed"
        freed = run(name)
        assert alive[name] == ([3, 3, 3] if isinstance(extra, _KeepsAll) else [2, 1, 0])
        kept: list[dict[str, torch.Tensor]] = []
        backbone.body.register_forward_hook(lambda module, inputs, output: kept.append(output))
        name = "kept"
        again = run(name)
        assert alive[name] == [3, 3, 3]
        expected = backbone.fpn(kept[0])
    assert list(kept[0]) == ["0", "1", "2"], "the hook's dictionary stays as it was"
    for key, value in expected.items():
        assert torch.equal(freed[key], value)
        assert torch.equal(again[key], value)


def test_convolution_and_relu_are_one() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        expected = block(x)
        calls: list[Any] = []
        block[1].forward = lambda y: calls.append(y) or torch.relu(y)
        assert torch.equal(convolve_block(block, x), expected)
        assert len(calls) == 1, "who replaces a forward is followed"
        del block[1].forward
        block.forward = lambda y: calls.append(y) or expected
        assert convolve_block(block, x) is expected
        del block.forward
        torch.testing.assert_close(convolve_block(block, x), expected)
        replaced = nn.Sequential(Conv2d.from_conv(block[0]), nn.ReLU())
        torch.testing.assert_close(convolve_block(replaced, x), expected)
        handle = replaced[1].register_forward_hook(lambda module, inputs, output: calls.append(output))
        torch.testing.assert_close(convolve_block(replaced, x), expected)
        handle.remove()
        assert len(calls) == 3


def test_bad_pyramids() -> None:
    with pytest.raises(TypeError, match="extra_blocks must be an ExtraFPNBlock or None, got str"):
        FeaturePyramidNetwork([4], 6, "pool")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"in_channels_list must hold positive numbers, got \[0\]"):
        FeaturePyramidNetwork([0], 6)
