"""fastcv.optimize on networks with transposed convolutions, against the same networks in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastcv
from fastcv import _C
from fastcv.models.segmentation import UNet
from fastcv.nn import Conv2d, ConvTranspose2d


def settled(network: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics that are none of the initial ones."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def check(network: nn.Module, replaced: dict[str, str], x: Tensor, left: tuple[str, ...] = ()) -> Any:
    """The values of the network in float64 within rounding, and a report that tells the truth."""
    settled(network)
    state = copy.deepcopy(network.state_dict())
    optimized: Any = fastcv.optimize(network)
    assert dict(optimized.report.replaced) == replaced
    assert tuple(name for name, _ in optimized.report.left) == left
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(x.double())
        actual = optimized(x)
        exact = fastcv.optimize(network.double())(x.double())
    assert (actual - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert (exact - expected).abs().max() <= 1e-13 * expected.abs().max()
    for name, value in network.float().state_dict().items():
        assert torch.equal(value, state[name])
    for name, what in replaced.items():
        made = optimized if name == "(itself)" else optimized.get_submodule(name)
        assert type(made) is (ConvTranspose2d if "transposed" in what else Conv2d)
        assert made._packed is not None
    return optimized


class Generator(nn.Module):
    """Normalisation with every kind of bias and activation behind transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.up1 = nn.ConvTranspose2d(6, 8, 4, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.up2 = nn.ConvTranspose2d(8, 7, 3, (2, 1), 1, (1, 0))
        self.bn2 = nn.BatchNorm2d(7)
        self.up3 = ConvTranspose2d(7, 5, 2, stride=2, activation="relu")
        self.bn3 = nn.BatchNorm2d(5)
        self.up4 = nn.ConvTranspose2d(5, 5, 2, stride=2)
        self.up5 = nn.ConvTranspose2d(5, 4, 2, stride=2)
        self.conv = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.up1(x)))
        x = F.leaky_relu(self.bn2(self.up2(x)), 0.2)
        x = self.bn3(self.up3(x))
        y = self.up4(x, output_size=[2 * x.shape[2], 2 * x.shape[3]])
        return self.conv(torch.relu(self.up5(y)) + F.interpolate(self.up4(x), scale_factor=2.0).sum(1, keepdim=True))


def test_normalisation_and_relu_are_fused() -> None:
    replaced = {
        "up1": "transposed, batch normalisation, relu",
        "up2": "transposed, batch normalisation",
        "up3": "transposed, relu",
        "up4": "transposed",
        "up5": "transposed, relu",
        "conv": "",
    }
    optimized = check(Generator(), replaced, torch.randn(2, 6, 5, 7), ("bn3",))
    assert "replaced 6 convolutions" in str(optimized.report)
    names = [str(node.target) for node in optimized.graph.nodes if node.op == "call_module"]
    assert names == ["up1", "up2", "up3", "bn3", "up4", "up5", "up4", "conv"]


def test_unet() -> None:
    replaced: dict[str, str] = {}
    for part in ("encoder", "decoder"):
        for level in range(3 if part == "encoder" else 2):
            replaced |= {f"{part}.{level}.{i}": "batch normalisation, relu" for i in (0, 3)}
    replaced |= {f"upsample.{level}": "transposed" for level in range(2)} | {"head": ""}
    check(UNet(3, 2, base_channels=8, depth=2), replaced, torch.randn(1, 3, 32, 48), ("(itself)",))


def test_what_is_left_is_named() -> None:
    """Groups and strides of one, where torch's is as fast; hooks; other classes; other forwards."""

    class Mine(nn.ConvTranspose2d):
        pass

    network = nn.Sequential(
        nn.ConvTranspose2d(4, 4, 4, 2, 1, groups=4),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 4, 3, padding=1),
        Mine(4, 4, 2, 2),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.ConvTranspose2d(4, 4, 2, 2),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
    )
    seen: list[Any] = []
    network[4].register_forward_hook(lambda module, inputs, output: seen.append(output))
    network[5].forward = lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    network[7].forward = lambda x: x * 2
    network[8].forward = lambda x: x + 1
    left = ("0", "1", "2", "conv_transpose2d", "4", "5", "8")
    optimized = check(network, {"6": "transposed"}, torch.randn(1, 4, 5, 6), left)
    assert len(seen) == 3
    text = str(optimized.report)
    for why in ("groups", "stride", "without a module of its own", "hooks", "its forward has been replaced"):
        assert why in text
    network.forward = lambda x: x
    assert dict(fastcv.optimize(network).report.replaced) == {"6": "transposed"}, "part by part"


def test_one_by_itself() -> None:
    check(nn.ConvTranspose2d(3, 5, 2, stride=2), {"(itself)": "transposed"}, torch.randn(1, 3, 5, 5))
    check(ConvTranspose2d(3, 5, 2, 2, activation="relu"), {"(itself)": "transposed, relu"}, torch.randn(1, 3, 5, 5))
    ready = ConvTranspose2d(3, 5, 2, 2).optimize()
    assert not fastcv.optimize(nn.Sequential(ready)).report.replaced


@pytest.mark.parametrize("groups", [1, 3])
def test_from_conv(groups: int) -> None:
    """A normalisation is multiplied into the weights of every group; the layer stays as it is."""
    network = settled(nn.Sequential(nn.ConvTranspose2d(6, 9, 3, 2, 1, 1, groups=groups), nn.BatchNorm2d(9)))
    made = ConvTranspose2d.from_conv(network[0], network[1], "relu")  # type: ignore[arg-type]
    x = torch.randn(2, 6, 4, 5)
    with torch.no_grad():
        expected = network.double()(x.double()).relu()
    assert (made(x) - expected).abs().max() <= 2e-6 * expected.abs().max()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        made.train()
    with torch.no_grad():
        made.weight.mul_(0)
    assert torch.equal(made(x), made.bias.relu()[:, None, None].expand_as(expected))


def test_results_live_in_the_arena() -> None:
    _C.release_arena()
    made = ConvTranspose2d.from_conv(nn.ConvTranspose2d(8, 16, 2, stride=2))
    x = torch.randn(1, 8, 64, 64)
    before = _C.arena_use()[0]
    y = made(x)
    where, values = y.data_ptr(), y.clone()
    assert _C.arena_use()[0] - before == y.nbytes
    del y
    again = made(x)
    assert again.data_ptr() == where
    assert torch.equal(again, values)
    del again
    _C.release_arena()


def test_gradients_and_other_dtypes() -> None:
    network = settled(nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU()))
    optimized: Any = fastcv.optimize(network)
    x = torch.randn(1, 3, 6, 5, requires_grad=True)
    (expected,) = torch.autograd.grad(network(x).square().sum(), x)
    (actual,) = torch.autograd.grad(optimized(x).square().sum(), x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        half = optimized.to(torch.bfloat16)(x.bfloat16())
        torch.testing.assert_close(half.float(), network(x), rtol=0.05, atol=0.05)
