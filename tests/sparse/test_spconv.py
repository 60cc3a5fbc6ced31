"""Agreement with spconv 2.3: the same weights give the same sites and values, and its checkpoints load."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from sparse_backbones import BACKBONES, example
from torch import Tensor

from fastcv import sparse


@pytest.fixture(scope="module")
def spconv() -> Iterator[ModuleType]:
    """spconv.pytorch, whose CPU build works with torch up to 2.13; on several threads its sums lose some terms."""
    try:
        module = importlib.import_module("spconv.pytorch")
    except (ImportError, OSError) as error:
        pytest.skip(f"spconv is not available here: {error}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


def random_sites(shape: tuple[int, ...], batch: int, fill: float = 0.15) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    sites = (torch.rand(batch, *shape, generator=generator) < fill).nonzero().int()
    return sites[torch.randperm(len(sites), generator=generator)]


def sorted_rows(x: Any) -> tuple[Tensor, Tensor]:
    """Sites and features in the order of the sites, which spconv leaves open."""
    sites, features = x.indices.long(), x.features
    sizes = torch.tensor([x.batch_size, *x.spatial_shape])
    key = torch.zeros(len(sites), dtype=torch.long)
    for axis, size in enumerate(sizes):
        key = key * size + sites[:, axis]
    order = key.argsort()
    return sites[order], features[order]


def compare(spconv: ModuleType, theirs: Any, ours: Any, shape: tuple[int, ...], channels: int) -> None:
    """Run both on the same input; compare sites and values. (Its CPU build cannot run backward without a GPU.)"""
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    sites = random_sites(shape, 2)
    features = torch.rand(len(sites), channels, generator=torch.Generator().manual_seed(1))  # its pools start at 0
    with torch.no_grad():
        expected = theirs(spconv.SparseConvTensor(features, sites, list(shape), 2))
        actual = ours(sparse.SparseConvTensor(features, sites, list(shape), 2))
    assert actual.spatial_shape == list(expected.spatial_shape)
    assert list(actual.indice_dict) == list(expected.indice_dict)
    for wanted, got in zip(sorted_rows(expected), sorted_rows(actual), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


CONVOLUTIONS = [
    ("SubMConv3d", (3,), {}),
    ("SubMConv3d", ((3, 1, 3),), {"bias": False}),
    ("SubMConv2d", (3,), {"dilation": 2}),
    ("SubMConv1d", (5,), {}),
    ("SubMConv3d", (1,), {"indice_key": "a"}),
    ("SubMConv2d", (1,), {"bias": False}),
    ("SparseConv3d", (1,), {"indice_key": "a"}),
    ("SparseConv1d", (1,), {}),
    ("SparseConvTranspose3d", (1,), {}),
    ("SparseConv3d", (1, 2), {}),
    ("SparseInverseConv3d", (1, "a"), {}),
    ("SparseConv3d", (3, 2, 1), {}),
    ("SparseConv3d", (2, 2), {}),
    ("SparseConv3d", ((3, 1, 1), (2, 1, 1)), {"bias": False}),
    ("SparseConv2d", (3, 1, 1), {"dilation": 2}),
    ("SparseConv1d", (4, 3, 1), {}),
    ("SparseConvTranspose3d", (2, 2), {}),
    ("SparseConvTranspose2d", (3, 2, 1), {}),
    ("SubMConv4d", (3,), {}),
    ("SubMConv4d", ((1, 3, 5, 3),), {"dilation": 2, "bias": False}),
    ("SparseConv4d", (3, 2, 1), {}),
    ("SparseConv4d", ((2, 3, 1, 3), (2, 1, 1, 3), (0, 1, 0, 2)), {}),
    ("SparseConvTranspose4d", (2, 2), {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), CONVOLUTIONS)
def test_convolutions(spconv: ModuleType, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    shape = {"1": (60,), "2": (17, 18), "3": (9, 11, 12), "4": (4, 6, 5, 7)}[name[-2]]
    theirs, ours = (getattr(package, name)(5, 7, *arguments, **options) for package in (spconv, sparse))
    compare(spconv, theirs, ours, shape, 5)


def encoder_decoder(package: ModuleType) -> Any:
    return package.SparseSequential(
        package.SubMConv3d(4, 8, 3, padding=1, indice_key="subm1"),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        package.SubMConv3d(8, 8, 3, padding=1, indice_key="subm1"),
        package.SparseConv3d(8, 16, 3, stride=2, padding=1, indice_key="down"),
        torch.nn.ReLU(),
        package.SubMConv3d(16, 16, 3, indice_key="subm2", bias=False),
        package.SparseInverseConv3d(16, 8, 3, indice_key="down"),
    )


def test_network_with_inverse(spconv: ModuleType) -> None:
    torch.manual_seed(0)
    compare(spconv, encoder_decoder(spconv), encoder_decoder(sparse), (10, 12, 14), 4)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones(spconv: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    theirs, ours = (BACKBONES[name](package).eval() for package in (spconv, sparse))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for value in theirs.state_dict().values():  # statistics that have seen something
        if value.is_floating_point() and value.dim() == 1:
            value.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict())
    for module in theirs.modules():  # in evaluation its CPU build refuses a bias
        module.training = isinstance(module, spconv.conv.SparseConvolution)
    with torch.no_grad():
        expected, actual = theirs(example(spconv)), ours(example(sparse))
    if isinstance(actual, Tensor):
        pairs = [(expected, actual)]
    else:
        assert actual.spatial_shape == list(expected.spatial_shape)
        pairs = list(zip(sorted_rows(expected), sorted_rows(actual), strict=True))
    for wanted, got in pairs:
        assert got.count_nonzero()
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("stride", [None, 1])
def test_max_pooling(spconv: ModuleType, stride: int | None) -> None:
    theirs, ours = (package.SparseMaxPool3d(2, stride) for package in (spconv, sparse))
    compare(spconv, theirs, ours, (9, 11, 12), 6)


def test_dense(spconv: ModuleType) -> None:
    sites = random_sites((5, 6, 7), 2)
    features = torch.randn(len(sites), 3)
    theirs, ours = (package.SparseConvTensor(features, sites, [5, 6, 7], 2) for package in (spconv, sparse))
    for first in (True, False):
        assert torch.equal(ours.dense(first), theirs.dense(first))


def test_arguments_have_the_same_names(spconv: ModuleType) -> None:
    """In the same order, where spconv has them."""
    for name in sparse.__all__:
        theirs_and_ours = [getattr(package, name, None) for package in (spconv, sparse)]
        if name == "SparseConvolution" or "Sequential" in name or not all(isinstance(c, type) for c in theirs_and_ours):
            continue
        theirs = list(inspect.signature(getattr(spconv, name).__init__).parameters)
        ours = list(inspect.signature(getattr(sparse, name).__init__).parameters)
        if "args" not in ours:
            assert ours[: len(theirs)] == theirs, name


def test_voxels(spconv: ModuleType) -> None:
    """But for its mean in empty places, which holds the points of voxels before."""
    points = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    utils = importlib.import_module("spconv.pytorch.utils")
    arguments: Any = ([0.1, 0.05, 0.2], [0, 0, 0, 1, 1, 1], 4, 500, 3)
    theirs, ours = utils.PointToVoxel(*arguments), sparse.PointToVoxel(*arguments)
    assert ours.grid_size == theirs.grid_size
    expected, actual = (generator.generate_voxel_with_id(points) for generator in (theirs, ours))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    found = torch.randn(500, 2)
    gathered = [u.gather_features_by_pc_voxel_id(found, expected[3], 7) for u in (utils, sparse.utils)]
    assert torch.equal(*gathered)


def test_sums(spconv: ModuleType) -> None:
    sites, others = random_sites((9, 11, 12), 2), random_sites((9, 11, 12), 2, 0.3)
    features = [torch.randn(len(s), 3) for s in (sites, others)]
    functional = importlib.import_module("spconv.pytorch.functional")
    sums = []
    for package, add in ((spconv, functional.sparse_add), (sparse, sparse.functional.sparse_add)):
        pairs = zip(features, (sites, others), strict=True)
        sums.append(add(*(package.SparseConvTensor(f, s, [9, 11, 12], 2) for f, s in pairs)))
    for wanted, got in zip(*(sorted_rows(x) for x in sums), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("transposed", [False, True])
def test_pairs(spconv: ModuleType, transposed: bool) -> None:
    sites = random_sites((9, 11, 12), 2)
    geometry = ([3, 2, 3], [2, 1, 2], [1, 0, 1], [1, 1, 1], [0] * 3)
    links = []
    for package in (spconv, sparse):
        out, pairs, counts = package.ops.get_indice_pairs(
            sites, 2, [9, 11, 12], package.ConvAlgo.Native, *geometry, subm=False, transpose=transposed
        )
        rows = [pairs[:, i, :count].long() for i, count in enumerate(counts.tolist())]
        ends = [torch.cat([torch.full((r.shape[1], 1), i), sites[r[0]], out[r[1]]], 1) for i, r in enumerate(rows)]
        links.append(torch.cat(ends).unique(dim=0))  # as sites, for the rows come in another order
    assert torch.equal(*links)
    for name, more in (("get_conv_output_size", ()), ("get_deconv_output_size", ([1, 0, 1],))):
        sizes = ([9, 11, 12], *geometry[:4], *more)
        assert getattr(sparse.ops, name)(*sizes) == getattr(spconv.ops, name)(*sizes)
