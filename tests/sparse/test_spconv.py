"""Agreement with spconv 2.3: the same weights give the same sites and values, and its checkpoints load."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
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
]


@pytest.mark.parametrize(("name", "arguments", "options"), CONVOLUTIONS)
def test_convolutions(spconv: ModuleType, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    shape = {"1": (60,), "2": (17, 18), "3": (9, 11, 12)}[name[-2]]
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
        if name in ("SparseConvTensor", "SparseConvolution") or not hasattr(spconv, name) or "Sequential" in name:
            continue
        theirs = list(inspect.signature(getattr(spconv, name).__init__).parameters)
        ours = list(inspect.signature(getattr(sparse, name).__init__).parameters)
        if "args" not in ours:
            assert ours[: len(theirs)] == theirs, name
