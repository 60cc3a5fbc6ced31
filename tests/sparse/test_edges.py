"""Where sparse convolutions go wrong: huge grids, bad coordinates, few sites, orders of rows and of threads."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcv import sparse


def sites_of(shape: tuple[int, ...], batch: int = 1, fill: float = 0.3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sites = (torch.rand(batch, *shape, generator=generator) < fill).nonzero().int()
    return sites[torch.randperm(len(sites), generator=generator)]


def values(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def tensor(backend: Any, features: Tensor, sites: Tensor, shape: Any, batch: int = 1) -> sparse.SparseConvTensor:
    return sparse.SparseConvTensor(features.to(backend.device), sites.to(backend.device), shape, batch)


@pytest.mark.parametrize("kind", ["SubMConv3d", "SparseConv3d", "SparseConvTranspose3d", "SparseMaxPool3d"])
def test_grids_beyond_32_bits(backend: Any, kind: str) -> None:
    """A cluster of sites gives the same wherever it lies in a grid of 3000³; transposed, the output has 6000³ cells."""
    sites = sites_of((7, 7, 7))
    far = sites + torch.tensor([0, 2980, 2978, 2986], dtype=torch.int32)
    features = values(len(sites), 4)
    torch.manual_seed(0)
    options = {} if kind == "SubMConv3d" else {"stride": 2}
    arguments = (3,) if "Pool" in kind else (4, 5, 3)
    layer = getattr(sparse, kind)(*arguments, **options).double().to(backend.device)
    near = layer(tensor(backend, features, sites + torch.tensor([0, 4, 4, 4], dtype=torch.int32), (30, 30, 30)))
    distant = layer(tensor(backend, features, far, (3000, 3000, 3000)))
    shift = torch.tensor([0, 2976, 2974, 2982])
    scale = {"SubMConv3d": 1, "SparseConvTranspose3d": 2}.get(kind, 0.5)
    assert torch.equal(distant.features, near.features)
    assert torch.equal(distant.indices.cpu(), (near.indices.cpu() + shift * scale).int())
    expected = {"SubMConv3d": 3000, "SparseConvTranspose3d": 6001}.get(kind, 1499)
    assert distant.spatial_shape == [expected] * 3


BAD_SITES = [
    ([[0, 1, 2, 3], [0, 1, -1, 3]], "-1"),
    ([[0, 1, 2, 3], [0, 4, 0, 0]], "4"),
    ([[0, 1, 2, 3], [2, 0, 0, 0]], "2"),
    ([[-1, 0, 0, 0]], "-1"),
    ([[0, 1, 2, 3], [1, 1, 2, 3], [0, 1, 2, 3]], "1, 2, 3"),
]


@pytest.mark.parametrize(("sites", "named"), BAD_SITES)
@pytest.mark.parametrize("layer", [sparse.SubMConv3d(2, 3, 3), sparse.SparseConv3d(2, 3, 2), sparse.SparseMaxPool3d(2)])
def test_bad_sites(backend: Any, layer: Any, sites: list[list[int]], named: str) -> None:
    features = torch.ones(len(sites), 2)
    with pytest.raises(ValueError, match=named):
        layer.to(backend.device)(tensor(backend, features, torch.tensor(sites, dtype=torch.int32), (4, 5, 6), 2))


def network() -> sparse.SparseSequential:
    torch.manual_seed(0)
    return sparse.SparseSequential(
        sparse.SubMConv3d(3, 8, 3, indice_key="sites"),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        sparse.SubMConv3d(8, 8, 3, indice_key="sites"),
        sparse.SparseConv3d(8, 16, 3, stride=2, padding=1, indice_key="down"),
        sparse.SparseBatchNorm(16),
        sparse.SparseReLU(),
        sparse.SparseMaxPool3d(2, 1, 1, indice_key="pool"),
        sparse.SparseInverseConv3d(16, 16, 2, "pool"),
        sparse.SparseInverseConv3d(16, 8, 3, "down"),
        sparse.SparseAvgPool3d(3, 1, 1),
        sparse.SparseConvTranspose3d(8, 4, 2, stride=2),
        torch.nn.BatchNorm1d(4, track_running_stats=False),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 60])
@pytest.mark.parametrize("training", [True, False])
def test_any_number_of_sites(backend: Any, count: int, training: bool) -> None:
    sites = sites_of((6, 7, 8), 2)[:count]
    features = values(count, 3, dtype=torch.float32).to(backend.device).requires_grad_()
    net = network().train(training).to(backend.device)
    output = net(sparse.SparseConvTensor(features, sites.to(backend.device), (6, 7, 8), 2))
    assert output.features.shape[1] == 4
    assert output.spatial_shape == [12, 14, 16]
    grid = output.dense()
    assert grid.shape == (2, 4, 12, 14, 16)
    assert grid.isfinite().all()
    grid.square().sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert features.grad is not None
    assert features.grad.shape == features.shape
    for pool in (sparse.SparseGlobalMaxPool(), sparse.SparseGlobalAvgPool()):
        assert pool(output).shape == (2, 4)
    if count < 2:
        assert not net[1].running_mean.any()  # nothing was learnt from too few sites


def test_kernel_of_125(backend: Any) -> None:
    sites = sites_of((9, 8, 7), 2)
    features = values(len(sites), 3)
    layer = sparse.SubMConv3d(3, 4, 5).double().to(backend.device)
    output = layer(tensor(backend, features, sites, (9, 8, 7), 2))
    grid = tensor(backend, features, sites, (9, 8, 7), 2).dense()
    index = sites.long().unbind(1)
    expected = F.conv3d(grid, layer.weight.movedim(-1, 1), layer.bias, 1, 2).movedim(1, -1)[index]
    torch.testing.assert_close(output.features, expected, rtol=1e-11, atol=1e-11)


def test_order_of_rows(backend: Any) -> None:
    """Permuting the input permutes the rows of what keeps its sites, and nothing of what sorts them."""
    sites = sites_of((8, 9, 10), 2)
    features = values(len(sites), 6, dtype=torch.float32)
    order = torch.randperm(len(sites), generator=torch.Generator().manual_seed(3))
    net = [sparse.SubMConv3d(6, 20, 3), sparse.SparseConv3d(6, 20, 3, 2, 1), sparse.SparseMaxPool3d(3, 2)]
    for layer in (module.to(backend.device) for module in net):
        first = layer(tensor(backend, features, sites, (8, 9, 10), 2))
        second = layer(tensor(backend, features[order], sites[order], (8, 9, 10), 2))
        if isinstance(layer, sparse.SubMConv3d):
            assert torch.equal(second.features, first.features[order])
        else:
            assert torch.equal(second.indices, first.indices)
            assert torch.equal(second.features, first.features)


def test_same_bits_for_every_run_and_thread_count(backend: Any) -> None:
    sites = sites_of((12, 13, 14), 2).to(backend.device)
    features = values(len(sites), 3, dtype=torch.float32).to(backend.device).requires_grad_()
    net = network().to(backend.device).eval()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 4, 1):
            torch.set_num_threads(count)
            output = net[3](net[0](sparse.SparseConvTensor(features, sites, (12, 13, 14), 2)))
            output = net[4](output)
            pooled = sparse.SparseGlobalAvgPool()(output)
            leaves = [features, net[0].weight, net[4].weight, net[4].bias]
            loss = output.features.square().sum(dtype=torch.float64)
            results.append((output.features.detach(), pooled.detach(), *torch.autograd.grad(loss, leaves)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("kind", ["SubMConv3d", "SparseConv3d", "SparseInverseConv3d"])
@pytest.mark.parametrize("kernel", [2, 3])
def test_order_that_kernels_take_the_rows_in(
    backend: Any, monkeypatch: pytest.MonkeyPatch, kind: str, kernel: int
) -> None:
    """Layers make it on CUDA; it changes no bit, of the gradient neither."""
    sites = sites_of((6, 7, 8), 2)
    features = values(len(sites), 8, dtype=torch.float32).to(backend.device).requires_grad_()
    torch.manual_seed(0)
    layer = getattr(sparse, kind)(8, 16, kernel, indice_key="a").to(backend.device)
    results = []
    for ordered in (False, True):
        module = importlib.import_module("fastcv.ops.sparse_kernel_map")  # whose name in fastcv.ops is the operator's
        monkeypatch.setattr(module, "_uses_row_order", lambda _, ordered=ordered: ordered)
        x = tensor(backend, features, sites, (6, 7, 8), 2)
        if kind == "SparseInverseConv3d":
            x = sparse.SparseConv3d(8, 8, kernel, 2, indice_key="a", bias=False).to(backend.device)(x)
            x = x.replace_feature(torch.ones_like(x.features, requires_grad=True))
        y = layer(x)
        assert (y.indice_dict["a"].order is not None) == ordered
        leaves = [x.features, layer.weight, layer.bias]
        results.append((y.features, *torch.autograd.grad(y.features.square().sum(), leaves)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types(backend: Any, dtype: torch.dtype) -> None:
    """In half types and under autocast: the sums are in float32, so that only values in between are rounded."""
    sites = sites_of((8, 9, 10), 2)
    features = values(len(sites), 16, dtype=dtype)
    layer = sparse.SubMConv3d(16, 32, 3, dtype=dtype).to(backend.device)
    x = tensor(backend, features, sites, (8, 9, 10), 2)
    output = layer(x)
    assert output.features.dtype is dtype
    wide = layer.double()(x.replace_feature(x.features.double()))
    tolerance = 1e-3 if dtype is torch.float16 else 8e-3
    torch.testing.assert_close(output.features.double(), wide.features, rtol=tolerance, atol=tolerance)
    with torch.autocast(backend.device, dtype):
        cast = layer.float()(x.replace_feature(x.features.float()))
    assert torch.equal(cast.features, output.features)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend: Any, dynamic: bool) -> None:
    net = network().to(backend.device).eval()

    def run(features: Tensor, sites: Tensor) -> tuple[Tensor, Tensor]:
        output = net(sparse.SparseConvTensor(features, sites, (6, 7, 8), 2))
        return output.features, output.indices

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for fill in (0.3, 0.2) if dynamic else (0.3,):
        sites = sites_of((6, 7, 8), 2, fill).to(backend.device)
        features = values(len(sites), 3, dtype=torch.float32).to(backend.device)
        (actual, actual_sites), (expected, expected_sites) = compiled(features, sites), run(features, sites)
        assert torch.equal(actual_sites, expected_sites)
        torch.testing.assert_close(actual, expected)


def test_nothing_crashes(in_new_process: Callable[[str], str]) -> None:
    script = """
    import torch
    from fastcv import sparse

    wild = torch.randint(-2**31, 2**31 - 1, (50, 4), dtype=torch.int32)
    huge = 2**31 - 1
    x = torch.randn(50, 4)
    for sites in (wild, wild.abs(), torch.zeros_like(wild), wild % 7):
        for shape in ([1, 1, 1], [7, 7, 7], [huge, huge, huge]):
            for layer in (
                sparse.SubMConv3d(4, 4, 3), sparse.SparseConv3d(4, 4, 3, 2, 1, dilation=2), sparse.SparseMaxPool3d(2),
                sparse.SparseConvTranspose3d(4, 4, 3, 2), sparse.SparseGlobalAvgPool(), sparse.SparseGlobalMaxPool(),
                sparse.SparseConv3d(4, 4, (1, 1, 1)), sparse.SparseConv3d(4, 4, 3, huge, huge, dilation=huge),
            ):
                try:
                    layer(sparse.SparseConvTensor(x, sites, shape, 2))
                except ValueError as error:
                    print(error)
    try:
        sparse.SparseConvTensor(x, wild, [7, 7, 7], 2).dense()
    except ValueError as error:
        print(error)
    print("alive")
    """
    printed = in_new_process(script)
    assert printed.endswith("alive\n")
