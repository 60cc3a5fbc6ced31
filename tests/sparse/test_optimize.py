"""fastcv.optimize on sparse networks: the same answers, all modules and weights as they were, hooks respected."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sparse_backbones import VoxelBackbone
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import fastcv
from fastcv import sparse
from fastcv.models.pointcloud import OctNet, SECONDBackbone, SparseUNet, SparseVoxNet
from fastcv.sparse import (
    SparseBatchNorm,
    SparseConv3d,
    SparseConvTensor,
    SparseInverseConv3d,
    SparseReLU,
    SparseSequential,
    SubMConv3d,
)


def spread(model: nn.Module) -> nn.Module:
    """Statistics and affine parameters that are not those of a new model."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            for value, low in ((module.running_mean, -0.5), (module.running_var, 0.5), (module.weight, 0.5)):
                if value is not None:
                    value.data.copy_(torch.rand(value.shape, generator=generator) + low)
            if module.bias is not None:
                module.bias.data.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return model.eval()


def voxels(channels: int, dtype: torch.dtype = torch.float32, count: int = 300) -> SparseConvTensor:
    generator = torch.Generator().manual_seed(0)
    sites = torch.randperm(2 * 8 * 9 * 10, generator=generator)[:count]
    indices = torch.stack([sites // 720, sites // 90 % 8, sites // 10 % 9, sites % 10], 1).int()
    return SparseConvTensor(torch.randn(count, channels, generator=generator).to(dtype), indices, [8, 9, 10], 2)


def chain(norm: Callable[..., nn.Module] = nn.BatchNorm1d) -> SparseSequential:
    torch.manual_seed(0)
    return SparseSequential(
        SubMConv3d(3, 8, 3, bias=False, indice_key="a"),
        norm(8),
        nn.ReLU(),
        SparseConv3d(8, 12, 3, stride=2, padding=1, indice_key="down"),
        norm(12),
        nn.LeakyReLU(0.3),
        SubMConv3d(12, 12, 1, groups=2),
        nn.SiLU(),
        SparseInverseConv3d(12, 5, 3, indice_key="down"),
        norm(5),
        SparseReLU(),
    )


REPLACED = {
    "0": "batch normalisation, relu",
    "3": "batch normalisation, leaky_relu",
    "6": "silu",
    "8": "batch normalisation, relu",
}


def results(network: Any, x: Any) -> Tensor:
    with torch.no_grad():
        output = network(x)
    tensor: Tensor = output.features if isinstance(output, SparseConvTensor) else output
    return tensor


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, bool]]:
    """The fused calls to come: activation, and whether there was an addition."""
    from fastcv.sparse import inference

    calls: list[tuple[str | None, bool]] = []
    original = inference.infer

    def infer(*arguments: Any) -> Tensor:
        calls.append((arguments[8], arguments[7] is not None))
        return original(*arguments)

    monkeypatch.setattr(inference, "infer", infer)
    return calls


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, SparseBatchNorm, lambda n: nn.BatchNorm1d(n, affine=False)])
def test_a_chain(norm: Any, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = spread(chain(norm)).to(backend.device)
    state = copy.deepcopy(network.state_dict())
    optimized: Any = fastcv.optimize(network)
    assert dict(optimized.report.replaced) == REPLACED
    assert optimized.report.left == []
    assert type(optimized) is SparseSequential
    x = voxels(3)
    x = SparseConvTensor(x.features.to(backend.device), x.indices.to(backend.device), x.spatial_shape, 2)
    exact = copy.deepcopy(network).double()
    calls = counted(monkeypatch)
    actual = results(optimized, x)
    assert [activation for activation, _ in calls] == ["relu", "leaky_relu", "silu", "relu"]
    expected = results(exact, x.replace_feature(x.features.double()))
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(actual, results(network, x), rtol=1e-4, atol=1e-4)
    assert len(calls) == 4  # the original is as it was
    for one in (network, optimized):
        assert one.state_dict().keys() == state.keys()
        for name, value in one.state_dict().items():
            assert torch.equal(value, state[name])
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in optimized.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    network = spread(chain()).to(dtype)
    x = voxels(3, dtype)
    expected = results(copy.deepcopy(network).double(), x.replace_feature(x.features.double()))
    actual = results(fastcv.optimize(network), x)
    assert actual.dtype is dtype
    tolerance = {torch.float64: 1e-12, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    assert float((actual.double() - expected).abs().max()) <= tolerance * float(expected.abs().max())


def test_gradients_traces_and_autocast_take_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    network = spread(chain())
    optimized = fastcv.optimize(network)
    calls = counted(monkeypatch)
    x = voxels(3)
    leaves = [x.features.clone().requires_grad_() for _ in range(2)]
    for model, leaf in zip((network, optimized), leaves, strict=True):
        model(x.replace_feature(leaf)).features.square().sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-4, atol=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(optimized(x).features, network(x).features)
    assert calls == []
    optimized[0].weight.requires_grad_(True)
    optimized(x).features.sum().backward()
    assert optimized[0].weight.grad is not None
    assert len(calls) == 0 or calls.count(("relu", False)) < 2  # what follows it has a gradient to pass on


def test_training_is_refused() -> None:
    optimized = fastcv.optimize(spread(chain()))
    with pytest.raises(RuntimeError, match="an optimized convolution cannot be trained: it keeps its packed weight"):
        optimized.train()
    with pytest.raises(RuntimeError, match="an optimized network cannot be trained: it keeps its packed weights"):
        fastcv.optimize(SparseVoxNet(3)).train()
    assert not optimized.eval().training


def test_what_is_written_is_seen() -> None:
    network, x = spread(chain()), voxels(3)
    optimized = fastcv.optimize(network)
    results(optimized, x)
    torch.manual_seed(5)
    other = spread(chain())
    for parameter in other.parameters():
        nn.init.uniform_(parameter, -1, 1)
    optimized.load_state_dict(other.state_dict())
    torch.testing.assert_close(results(optimized, x), results(other, x), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        optimized[1].running_var.mul_(4)
        other[1].running_var.mul_(4)
    torch.testing.assert_close(results(optimized, x), results(other, x), rtol=1e-4, atol=1e-4)
    optimized.half().float()  # new memory, rounded
    other.half().float()
    torch.testing.assert_close(results(optimized, x), results(other, x), rtol=1e-4, atol=1e-4)
    optimized[0].weight = nn.Parameter(2 * other[0].weight.detach(), requires_grad=False)
    other[0].weight = nn.Parameter(2 * other[0].weight.detach())
    torch.testing.assert_close(results(optimized, x), results(other, x), rtol=1e-4, atol=1e-4)


def test_copies_and_files() -> None:
    optimized, x = fastcv.optimize(spread(chain())), voxels(3)
    expected = results(optimized, x)
    saved = io.BytesIO()
    torch.save(optimized, saved)
    saved.seek(0)
    for other in (copy.deepcopy(optimized), torch.load(saved, weights_only=False), fastcv.optimize(optimized)):
        assert torch.equal(results(other, x), expected)
        with pytest.raises(RuntimeError, match="cannot be trained"):
            other.train()
        with torch.no_grad():
            other[1].running_mean.add_(1)
        assert not torch.equal(results(other, x), expected)
        with torch.no_grad():
            other[1].running_mean.sub_(1)


class Doubled(SubMConv3d):
    """A convolution with a forward of its own."""

    def forward(self, *arguments: Any) -> SparseConvTensor:
        """Twice what it should be."""
        output = super().forward(*arguments)
        return output.replace_feature(2 * output.features)


def _double(network: Any) -> None:
    network[0].__class__ = Doubled


def _hook_convolution(network: Any) -> None:
    network[0].register_forward_hook(lambda module, inputs, x: x.replace_feature(2 * x.features))


def _hook_norm(network: Any) -> None:
    network[1].register_forward_hook(lambda module, inputs, x: 3 * x)


def _hook_activation(network: Any) -> None:
    network[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] - 1,))


def _replace_forward(network: Any) -> None:
    network[0].forward = lambda x: x.replace_feature(x.features[:, :1].repeat(1, 8))


def _weight_norm(network: Any) -> None:
    parametrizations.weight_norm(network[0])
    with torch.no_grad():
        network[0].parametrizations.weight.original0.mul_(1.5)


def _train_norm(network: Any) -> None:
    network[1].running_mean = None
    network[1].running_var = None
    network[1].track_running_stats = False


CHANGES = [_double, _hook_convolution, _hook_norm, _hook_activation, _replace_forward, _weight_norm, _train_norm]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changed_layers(change: Callable[[Any], None]) -> None:
    """Before optimize, and after it where torch allows that."""
    network, x = spread(chain()), voxels(3)
    unchanged = results(network, x)
    late = fastcv.optimize(network)
    change(network)
    expected = results(network, x)
    assert not torch.allclose(expected, unchanged)
    early: Any = fastcv.optimize(network)
    torch.testing.assert_close(results(early, x), expected, rtol=1e-4, atol=1e-4)
    change(late)
    torch.testing.assert_close(results(late, x), expected, rtol=1e-4, atol=1e-4)
    if change in (_double, _hook_convolution, _weight_norm):
        assert [name for name, _ in early.report.left] == ["0"]


def test_hooks_see_what_they_saw() -> None:
    """On a convolution and a norm in the middle, and on the whole chain."""
    network = spread(chain())
    seen: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = output.features if isinstance(output, SparseConvTensor) else output
        seen.setdefault(module, []).append(tensor.clone())

    optimized, x = fastcv.optimize(network), voxels(3)
    for model in (network, optimized):
        for module in (model, model[3], model[9]):
            module.register_forward_hook(keep)
        results(model, x)
    for one, other in zip((network, network[3], network[9]), (optimized, optimized[3], optimized[9]), strict=True):
        torch.testing.assert_close(seen[one][0], seen[other][0], rtol=1e-4, atol=1e-4)


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "SparseUNet": (lambda: SparseUNet(4, 0.15, [-1, -1, -1, 1, 1, 1], 4, (8, 16, 20), blocks=2), 4),
    "SECOND": (lambda: SECONDBackbone(4, (0.1, 0.1, 0.05), (-1.0, -1.2, -1.0, 1.0, 1.2, 1.0), 50), 4),
    "SparseVoxNet": (lambda: SparseVoxNet(5), 3),
    "OctNet": (lambda: OctNet(5, depth=4, in_channels=4), 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make, columns = MODELS[name]
    torch.manual_seed(0)
    model = spread(make()).to(backend.device)
    for parameter in (p for n, p in model.named_parameters() if n.endswith("conv1.bias") or n.endswith("conv2.bias")):
        nn.init.uniform_(parameter, -1, 1)
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 200, columns, generator=generator)
    points[:, :, :3] = 0.9 * F.normalize(points[:, :, :3], dim=2)
    points = points.to(backend.device)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(points.double())
        optimized: Any = fastcv.optimize(model)
        calls = counted(monkeypatch)
        actual, again = optimized(points), optimized(points)
    convolutions = sum(isinstance(m, sparse.SparseConvolution | nn.Conv3d) for m in model.modules())
    assert len(calls) == 2 * convolutions == 2 * len(optimized.report.replaced)
    assert torch.equal(actual, again)
    scale = max(1.0, float(expected.abs().max()))
    assert float((actual.double() - expected).abs().max()) <= 2e-4 * scale
    assert model.state_dict().keys() == optimized.state_dict().keys()
    if name == "SparseUNet":
        assert calls.count(("relu", True)) == 2 * 10  # each block adds on the way out
    passes = name in ("SparseUNet", "OctNet")  # gradients to the points
    with torch.enable_grad():  # and one by one where a gradient is wanted
        calls.clear()
        points.requires_grad_(passes)
        torch.testing.assert_close(optimized(points), actual, rtol=1e-3, atol=1e-4 * scale)
        assert not passes or calls == []


def test_other_peoples_networks(backend: Any) -> None:
    torch.manual_seed(0)
    for residual in (False, True):
        network = spread(VoxelBackbone(sparse, residual)).to(backend.device)
        x = voxels(4)
        x = SparseConvTensor(x.features.to(backend.device), x.indices.to(backend.device), [41, 16, 16], 2)
        optimized: Any = fastcv.optimize(network)
        one, other = results(network, x), results(optimized, x)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)


def test_a_sparse_part_of_a_dense_network() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sparse = chain()
            self.dense = nn.Sequential(nn.Conv2d(40, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())

        def forward(self, x: SparseConvTensor) -> Tensor:
            output: Tensor = self.dense(self.sparse(x).dense().flatten(1, 2))
            return output

    network, x = spread(Both()), voxels(3)
    optimized: Any = fastcv.optimize(network)
    assert {name for name, _ in optimized.report.replaced} == {f"sparse.{name}" for name in REPLACED} | {"dense.0"}
    torch.testing.assert_close(results(optimized, x), results(network, x), rtol=1e-4, atol=1e-4)


def test_errors_are_those_of_the_layers() -> None:
    optimized = fastcv.optimize(spread(chain()))
    for x, text in (
        (voxels(4), "input must have 3 channels, got 4"),
        (voxels(3).features, "input must be a SparseConvTensor"),
        (SparseConvTensor(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.int32), [4, 4], 1), "3 spatial axes"),
    ):
        with pytest.raises((ValueError, TypeError), match=text), torch.no_grad():
            optimized(x)
