"""Grids with four axes against dense convolutions, frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcv import sparse

SHAPE = (4, 5, 6, 4)


def sites_of(batch: int = 2, fill: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    sites = (torch.rand(batch, *SHAPE, generator=generator) < fill).nonzero().int()
    return sites[torch.randperm(len(sites), generator=generator)]


def dense_convolution(grid: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """The convolution of (B, C, T, Z, Y, X) by weight (C_out, kt, kz, ky, kx, C_in), as sums of those of frames."""
    frames = F.pad(grid, (0,) * 6 + (padding[0],) * 2)
    reach = dilation[0] * (weight.shape[1] - 1) + 1
    rest = (None, stride[1:], padding[1:], dilation[1:])
    outputs = []
    for start in range(0, frames.shape[2] - reach + 1, stride[0]):
        parts = (
            F.conv3d(frames[:, :, start + k * dilation[0]], weight[:, k].movedim(-1, 1), *rest)
            for k in range(weight.shape[1])
        )
        outputs.append(sum(parts))
    return torch.stack(outputs, 2)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3, 3, 3), (2, 2, 2, 2), (1, 1, 1, 1), (1, 1, 1, 1)),
        ((2, 1, 3, 2), (1, 2, 1, 3), (0, 0, 2, 1), (1, 1, 2, 1)),
    ],
)
def test_strided(kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    torch.manual_seed(0)
    layer = sparse.SparseConv4d(3, 4, kernel, stride, padding, dilation, bias=False, dtype=torch.float64)
    sites = sites_of()
    features = torch.randn(len(sites), 3, dtype=torch.float64, requires_grad=True)
    x = sparse.SparseConvTensor(features, sites, SHAPE, 2)
    y = layer(x)
    expected = dense_convolution(x.dense(), layer.weight, stride, padding, dilation)
    torch.testing.assert_close(y.dense(), expected)
    ones = torch.ones(1, *kernel, 1, dtype=torch.float64)
    counts = dense_convolution(x.replace_feature(torch.ones_like(features[:, :1])).dense(), ones, *y_geometry(layer))
    assert torch.equal(y.indices.long(), (counts[:, 0] > 0).nonzero())
    upstream = torch.randn_like(expected)
    leaves = (features, layer.weight)
    for actual, wanted in zip(
        torch.autograd.grad(y.dense(), leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(actual, wanted)


def y_geometry(layer: Any) -> tuple[Any, Any, Any]:
    return layer.stride, layer.padding, layer.dilation


@pytest.mark.parametrize("kernel", [(3, 3, 3, 3), (1, 3, 2, 3), (2, 2, 1, 1)])
def test_submanifold_and_inverse(kernel: Any) -> None:
    torch.manual_seed(0)
    layer = sparse.SubMConv4d(3, 4, kernel, bias=False, dtype=torch.float64, indice_key="a")
    sites = sites_of()
    features = torch.randn(len(sites), 3, dtype=torch.float64, requires_grad=True)
    x = sparse.SparseConvTensor(features, sites, SHAPE, 2)
    y = layer(x)
    padding = [k // 2 for k in kernel]
    grid = dense_convolution(x.dense(), layer.weight, (1,) * 4, padding, (1,) * 4)
    expected = grid.movedim(1, -1)[sites.long().unbind(1)]
    torch.testing.assert_close(y.features, expected)
    upstream = torch.randn_like(expected)
    (actual,) = torch.autograd.grad(y.features, features, upstream)
    (wanted,) = torch.autograd.grad(expected, features, upstream)
    torch.testing.assert_close(actual, wanted)
    down = sparse.SparseConv4d(3, 4, kernel, 2, 1, bias=False, dtype=torch.float64, indice_key="b")
    up = sparse.SparseInverseConv4d(4, 3, kernel, "b", bias=False, dtype=torch.float64)
    with torch.no_grad():
        up.weight.copy_(down.weight.movedim(0, -1).movedim(-2, 0))
    leaf = torch.randn(down(x).features.shape, dtype=torch.float64)
    back = up(down(x).replace_feature(leaf))
    assert back.indices is sites
    (transpose,) = torch.autograd.grad(down(x).features, features, leaf)  # what an inverse layer of these weights is
    torch.testing.assert_close(back.features, transpose)


def test_transposed_and_pools() -> None:
    sites = sites_of()
    x = sparse.SparseConvTensor(torch.randn(len(sites), 3), sites, SHAPE, 2)
    up = sparse.SparseConvTranspose4d(3, 4, 2, 2, bias=False)(x)
    assert up.spatial_shape == [8, 10, 12, 8]
    assert len(up.indices) == 16 * len(sites)
    pooled = sparse.SparseMaxPool4d(2)(up)
    assert torch.equal(pooled.indices.long(), sites[pooled_order(sites)].long())
    one = sparse.SubMConv4d(3, 4, 1, bias=False)
    torch.testing.assert_close(one(x).features, x.features @ one.weight.view(3, 4))


def pooled_order(sites: Tensor) -> Tensor:
    key = torch.zeros(len(sites), dtype=torch.long)
    for axis, size in enumerate((2, *SHAPE)):
        key = key * size + sites[:, axis]
    return key.argsort()


@pytest.mark.parametrize("kind", ["SubMConv4d", "SparseConv4d"])
def test_errors_and_empty(kind: str) -> None:
    layer = getattr(sparse, kind)(3, 4, 3, padding=1)

    def run(rows: list[list[int]], shape: tuple[int, ...] = SHAPE) -> Any:
        sites = torch.tensor(rows, dtype=torch.int32).reshape(-1, 5)
        return layer(sparse.SparseConvTensor(torch.zeros(len(sites), 3), sites, shape, 2))

    with pytest.raises(ValueError, match=r"indices must be at least 0 and below \(2, 4, 5, 6, 4\), got .* in row 1"):
        run([[0, 0, 0, 0, 0], [0, 0, 5, 0, 0]])
    with pytest.raises(ValueError, match=r"indices must have each site once, got \(1, 2, 3, 4, 0\) in rows 0 and 2"):
        run([[1, 2, 3, 4, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 0]])
    with pytest.raises(ValueError, match="fewer than 2"):
        run([[0, 0, 0, 0, 0]], (2**20, 2**20, 2**20, 2**20))
    assert run([]).features.shape == (0, 4)
    with pytest.raises(ValueError, match="ndim must be 1 to 4, got 5"):
        sparse.SparseConvolution(5, 3, 4)


@pytest.mark.parametrize("kind", ["SubMConv4d", "SparseConv4d", "SparseConvTranspose4d"])
def test_huge_grids(kind: str) -> None:
    """Where no table of all sites fits, sites far from the origin give what they give near it."""
    sites = sites_of(1)
    features = torch.randn(len(sites), 3)
    layer = getattr(sparse, kind)(3, 4, 3, 2, 1, bias=False)
    near = layer(sparse.SparseConvTensor(features, sites + torch.tensor([0, 2, 2, 2, 2]).int(), [20] * 4, 1))
    far = torch.tensor([0, 2**13, 2**12, 2**13, 2**14]).int()
    there = layer(sparse.SparseConvTensor(features, sites + far, [2**14, 2**13, 2**14, 2**15], 1))
    moved = far - torch.tensor([0, 2, 2, 2, 2])
    if kind == "SparseConv4d":
        moved = moved // 2
    elif kind == "SparseConvTranspose4d":
        moved = moved * 2
    assert torch.equal(there.indices, near.indices + moved.int())
    assert torch.equal(there.features, near.features)
