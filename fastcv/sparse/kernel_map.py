"""Which input site feeds which output site: made once per geometry, and shared by layers through ``indice_key``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastcv.ops.sparse_conv import sparse_row_order, uses_row_order
from fastcv.ops.sparse_kernel_map import sparse_kernel_map

if TYPE_CHECKING:
    from fastcv.sparse.tensor import SparseConvTensor

__all__ = ["Geometry", "KernelMap", "expand", "map_for", "result"]


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over the grid: one number per axis."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    subm: bool
    transposed: bool

    @property
    def volume(self) -> int:
        """Number of kernel offsets."""
        return math.prod(self.kernel_size)

    @property
    def keeps_sites(self) -> bool:
        """Whether the output has the input's sites, row for row."""
        nothing_moves = set(self.stride) == {1} and not any(self.padding) and not any(self.output_padding)
        return self.subm or (self.volume == 1 and nothing_moves)

    def output_shape(self, spatial_shape: Sequence[int]) -> list[int]:
        """Return the size of the output's grid, as of ``F.conv3d`` and ``F.conv_transpose3d``."""
        if self.keeps_sites:
            return list(spatial_shape)
        sizes = []
        axes = zip(
            spatial_shape,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.output_padding,
            strict=True,
        )
        for size, kernel, stride, padding, dilation, extra in axes:
            reach = dilation * (kernel - 1) + 1
            if self.transposed:
                sizes.append((size - 1) * stride - 2 * padding + reach + extra)
            else:
                sizes.append((size + 2 * padding - reach) // stride + 1)
        if min(sizes) < 1:
            raise ValueError(
                f"spatial_shape {list(spatial_shape)} is too small for kernel_size {list(self.kernel_size)}, dilation "
                f"{list(self.dilation)} and padding {list(self.padding)}: the output would be of size {sizes}"
            )
        return sizes


@dataclass(frozen=True)
class KernelMap:
    """The links between input and output sites of a layer.

    Attributes
    ----------
    indices, out_indices : Tensor (N, 1 + D), (M, 1 + D)
        Sites before and after.
    neighbours : Tensor (K, M)
        The input row that feeds each output row through each kernel offset, or -1.
    reverse : Tensor (K, N)
        The output row that each input row feeds through each kernel offset, or -1.
    order, reverse_order : Tensor (M,), Tensor (N,), or None
        On CUDA, in which order the kernels take the rows of both: see :func:`fastcv.ops.sparse_row_order`.
    """

    geometry: Geometry
    indices: Tensor
    out_indices: Tensor
    neighbours: Tensor
    reverse: Tensor
    spatial_shape: list[int]
    out_spatial_shape: list[int]
    order: Tensor | None = None
    reverse_order: Tensor | None = None

    @property
    def is_subm(self) -> bool:
        """Whether it was made by a submanifold layer."""
        return self.geometry.subm


def expand(value: int | Sequence[int], ndim: int, name: str, minimum: int) -> tuple[int, ...]:
    """Return one integer per axis, each at least ``minimum``; one integer stands for all axes."""
    try:
        values = (index(value),) * ndim if not isinstance(value, Iterable) else tuple(index(v) for v in value)
    except TypeError:
        raise TypeError(f"{name} must be an int or {ndim} ints, got {value!r}") from None
    if len(values) != ndim:
        raise ValueError(f"{name} must be an int or {ndim} ints, got {value!r}")
    if min(values) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return values


def map_for(x: SparseConvTensor, geometry: Geometry, key: str | None) -> KernelMap:
    """Return the kernel map stored under ``key``, or a new one.

    Only submanifold layers share a map by its key, for only they leave the sites as they are.
    """
    found = x.find_indice_pair(key)
    if found is None:
        return _build(x, geometry)
    if not geometry.subm:
        raise ValueError(f"indice_key {key!r} is taken: only submanifold layers share a kernel map")
    if found.geometry != geometry:
        raise ValueError(
            f"layers that share indice_key {key!r} must have the same kernel and dilation: it was made for "
            f"{found.geometry}, wanted is {geometry}"
        )
    if found.spatial_shape != x.spatial_shape or found.indices.shape != x.indices.shape:
        raise ValueError(
            f"layers that share indice_key {key!r} must have the same sites: it was made for "
            f"{found.indices.shape[0]} sites in {found.spatial_shape}, got {x.indices.shape[0]} in {x.spatial_shape}"
        )
    return found


def result(x: SparseConvTensor, features: Tensor, links: KernelMap, key: str | None) -> SparseConvTensor:
    """Return the output of a layer; it and what comes after it find the map under ``key``."""
    maps = x.indice_dict
    if key is not None and key not in maps:
        maps = {**maps, key: links}
    return x._derived(features, links.out_indices, links.out_spatial_shape, maps)


def _build(x: SparseConvTensor, geometry: Geometry) -> KernelMap:
    shape, out_shape = x.spatial_shape, geometry.output_shape(x.spatial_shape)
    if geometry.volume == 1 and geometry.keeps_sites:
        rows = torch.arange(x.indices.shape[0], dtype=torch.int32, device=x.indices.device)[None]
        return KernelMap(geometry, x.indices, x.indices, rows, rows, shape, out_shape)
    # The operator knows three axes; missing ones come first and have size one.
    missing = 3 - len(shape)
    indices = x.indices
    if missing:
        zeros = indices.new_zeros(indices.shape[0], missing)
        indices = torch.cat([indices[:, :1], zeros, indices[:, 1:]], 1)
    ones, none = (1,) * missing, (0,) * missing
    out_indices, neighbours, reverse = sparse_kernel_map(
        indices,
        (*ones, *shape),
        x.batch_size,
        (*ones, *geometry.kernel_size),
        (*ones, *geometry.stride),
        (*none, *geometry.padding),
        (*ones, *geometry.dilation),
        (*none, *geometry.output_padding),
        geometry.subm,
        geometry.transposed,
    )
    if geometry.subm:
        out_indices = x.indices
    elif missing:
        out_indices = torch.cat([out_indices[:, :1], out_indices[:, 1 + missing :]], 1)
    orders = _orders(geometry, neighbours, reverse) if uses_row_order(neighbours) else (None, None)
    return KernelMap(geometry, x.indices, out_indices, neighbours, reverse, shape, out_shape, *orders)


def _orders(geometry: Geometry, neighbours: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the orders of a map's rows: the second for the gradient, or for the inverse convolution."""
    order = sparse_row_order(neighbours)
    if geometry.subm and geometry.volume % 2:
        return order, order  # the reverse map has the same elements mirrored: equal rows stay together
    return order, sparse_row_order(reverse)
