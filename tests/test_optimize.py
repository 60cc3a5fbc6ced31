"""fastcv.optimize on networks of all kinds: the same answers, the original untouched, a report that tells the truth."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fastcv
from fastcv.nn import Conv2d


def settled(network: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics that are none of the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.weight, 0.5)):
                assert value is not None
                value.data.copy_(torch.rand(value.shape, generator=generator) + low)
    return network.eval()


def image(*shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 33, 41), generator=torch.Generator().manual_seed(0))


def check(network: nn.Module, replaced: dict[str, str], x: Tensor | None = None, left: tuple[str, ...] = ()) -> Any:
    """The same values within rounding, these convolutions replaced, and the original as it was."""
    torch.manual_seed(0)
    settled(network)
    state = copy.deepcopy(network.state_dict())
    x = image() if x is None else x
    kept = x.clone()
    optimized: Any = fastcv.optimize(network)
    assert dict(optimized.report.replaced) == replaced
    assert tuple(name for name, _ in optimized.report.left) == left
    with torch.no_grad():
        expected, actual = network(x.clone()), optimized(x)
        again = optimized(x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(actual, again)
    assert torch.equal(x, kept)
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert not optimized.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(parameter.requires_grad for parameter in network.parameters())
    for name in replaced:
        assert name in str(optimized.report)
    return optimized


class Block(nn.Module):
    """A residual block as people write it."""

    def __init__(self, inputs: int, outputs: int, in_place: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=in_place)
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs)) if inputs != outputs else None
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.down is None else self.down(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.in_place:
            y += identity
        else:
            y = identity + y
        return self.relu(y)


@pytest.mark.parametrize("in_place", [True, False])
def test_residual_blocks(in_place: bool) -> None:
    network = nn.Sequential(Block(3, 20, in_place), Block(20, 20, in_place))
    replaced = {
        "0.conv1": "batch normalisation, relu",
        "0.conv2": "batch normalisation, addition, relu",
        "0.down.0": "batch normalisation",
        "1.conv1": "batch normalisation, relu",
        "1.conv2": "batch normalisation, addition, relu",
    }
    if not in_place:  # the shortcut comes first, and takes what follows
        replaced |= {"0.conv2": "batch normalisation", "0.down.0": "batch normalisation, addition, relu"}
    check(network, replaced)


def test_activations_of_all_kinds() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(8 if i else 3, 8, 3) for i in range(8))
            self.leaky, self.silu, self.gelu = nn.LeakyReLU(0.2), nn.SiLU(), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.leaky(self.convs[0](x))
            x = self.silu(self.convs[1](x))
            x = F.leaky_relu(self.convs[2](x), 0.3)
            x = F.leaky_relu(self.convs[3](x), negative_slope=0.4, inplace=True)
            x = F.relu(self.convs[4](x), inplace=True)
            x = self.convs[5](x).relu_()
            x = torch.relu(self.convs[6](x))
            return self.gelu(self.convs[7](x))

    names = ["leaky_relu", "silu", "leaky_relu", "leaky_relu", "relu", "relu", "relu", ""]
    check(Network(), {f"convs.{i}": name for i, name in enumerate(names)})


def test_what_is_used_twice_is_not_fused_away() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            z = self.norm(y)
            return self.b(z).relu() + y * 2 + self.b(y)

    network = settled(Network())
    optimized: Any = fastcv.optimize(network)
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), network(image()), rtol=1e-4, atol=1e-4)
    assert dict(optimized.report.left) == {"norm": "no convolution of its own before it"}
    assert sorted(optimized.report.replaced)[0] == ("a", "")


def test_a_convolution_that_is_called_twice_is_packed_once() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.shared(self.shared(x).relu()).relu()

    optimized = check(Network(), {"first": "", "shared": "relu"})
    assert sum(isinstance(module, Conv2d) for module in optimized.modules()) == 2


def test_writing_in_place_is_noticed() -> None:
    """Where a convolution would read its input after something writes to it, or an addition write elsewhere."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            y = self.a(x)
            x.mul_(2)
            z = y + x
            x.add_(self.b(z))
            return x + z

    check(Network(), {"a": "", "b": ""})


class Writer(nn.Module):
    """Somebody's own, which a trace leaves as it is when it has hooks."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


@pytest.mark.parametrize("how", ["out", "module", "keyword"])
def test_writing_in_place_out_of_sight(how: str) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.writer = nn.Conv2d(3, 3, 3, padding=1), Writer()
            self.writer.register_forward_hook(lambda *_: None)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            y = self.conv(x)
            z = torch.mul(x, 2, out=x) if how == "out" else self.writer(x=x) if how == "keyword" else self.writer(x)
            return F.relu(y) + z

    check(Network(), {"conv": ""})


def test_the_copy_has_parameters_and_state_of_its_own() -> None:
    class Network(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5))
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return super().forward(x)

    network = Network()
    fastcv.optimize(network)  # not initialised yet
    network(image(2, 3, 5, 5))
    network.requires_grad_(False)
    optimized = fastcv.optimize(network)
    assert optimized.get_parameter("2.weight").data_ptr() == network[2].weight.data_ptr()
    optimized.double()(image(2, 3, 5, 5).double())
    optimized.requires_grad_(True)
    assert network[2].weight.dtype is torch.float32
    assert not network[2].weight.requires_grad
    assert network.calls == 1


def test_names_that_are_taken_and_other_views() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.report = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.report(x).view(torch.int32).view(dtype=torch.float32)

    network = Network()
    with torch.no_grad():
        torch.testing.assert_close(fastcv.optimize(network)(image()), network(image()), rtol=1e-4, atol=1e-4)


def test_what_is_broadcast_is_added_all_the_same() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.offset = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) + x.mean((2, 3), keepdim=True)).relu() + self.conv(x) + self.offset

    network = settled(Network())
    optimized: Any = fastcv.optimize(network)
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), network(image()), rtol=1e-4, atol=1e-4)


def test_maps_that_are_viewed() -> None:
    """The feature maps are channels_last, whose rows have no view as one."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4 * 4 * 4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.adaptive_avg_pool2d(self.conv(x), 4).view(x.shape[0], -1))

    check(Network(), {"conv": ""})


def test_what_cannot_be_traced_is_optimized_in_parts() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return self.head(x) if x.sum() > 0 else self.head(-x)

    optimized = check(Network(), {"body.0": "batch normalisation, relu", "head": ""}, left=("(itself)",))
    assert type(optimized) is Network
    assert "cannot trace Network" in str(optimized.report)


def test_hooks_and_other_classes_are_left() -> None:
    class Mine(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = Mine(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.c(self.b(self.a(x))), torch.ones(1, 3, 1, 1))

    network = Network()
    network.b.register_forward_hook(lambda *_: None)
    optimized = fastcv.optimize(settled(network))
    assert dict(optimized.report.replaced) == {"c": ""}
    left = dict(optimized.report.left)
    assert left["b"] == "it has hooks"
    assert "a" in left or any("conv2d" in name for name in left)
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), network(image()), rtol=1e-4, atol=1e-4)


def test_a_convolution_by_itself_and_nothing_at_all() -> None:
    check(nn.Conv2d(3, 4, 3), {"(itself)": ""})
    check(nn.Sequential(nn.Flatten(), nn.Linear(3 * 33 * 41, 2)), {})
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got int"):
        fastcv.optimize(3)  # type: ignore[arg-type]


def test_exact() -> None:
    network = settled(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1)))
    x = image(1, 32, 40, 40)
    with torch.no_grad():
        expected = network.double()(x.double())
        network.float()
        errors = [(fastcv.optimize(network, exact=e)(x) - expected).abs().max().item() for e in (True, False)]
    assert errors[0] < 2e-6
    assert errors[0] < errors[1] < 1e-4


def test_a_gradient_goes_through() -> None:
    """By torch's convolution."""
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    x = image().requires_grad_()
    fastcv.optimize(network)(x).square().sum().backward()
    expected = image().requires_grad_()
    network(expected).square().sum().backward()
    torch.testing.assert_close(x.grad, expected.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121", "googlenet", "efficientnet_b0"]
)
def test_torchvisions_networks(name: str) -> None:
    """Everything that follows a convolution in them is fused."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    network = settled(getattr(models, name)(weights=None, **options))
    optimized: Any = fastcv.optimize(network)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    aux = 6 if name == "googlenet" else 0  # two heads that only training calls
    assert len(optimized.report.replaced) >= convolutions - aux
    x = image(2, 3, 64, 64)
    with torch.no_grad():
        expected, actual = network(x), optimized(x)
    assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_torchvisions_frozen_normalisation() -> None:
    misc = pytest.importorskip("torchvision.ops.misc")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), misc.FrozenBatchNorm2d(4), nn.ReLU())
    network[1].running_var.mul_(3)
    optimized: Any = fastcv.optimize(network)
    assert optimized.report.replaced == [("0", "batch normalisation, relu")]
    assert type(network[1]) is misc.FrozenBatchNorm2d
    with torch.no_grad():
        torch.testing.assert_close(optimized(image()), network(image()), rtol=1e-4, atol=1e-5)
