"""Which input site feeds which output site: made once per geometry, and shared by layers through ``indice_key``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastcv.ops._arguments import as_ints
from fastcv.ops.sparse_conv import sparse_row_order
from fastcv.ops.sparse_kernel_map import Geometry, kernel_map, output_shape

__all__ = ["Geometry", "KernelMap", "Size", "build", "layer_geometry"]

Size = int | Sequence[int]


@dataclass
class KernelMap:
    """The links between input and output sites of a layer.

    Attributes
    ----------
    indices, out_indices : Tensor (N, 1 + D), (M, 1 + D)
        Sites before and after.
    neighbours : Tensor (K, M)
        The input row that feeds each output row through each kernel element, or -1.
    stored_reverse : Tensor (K, N), or None
        The output row that each input row feeds through each kernel element, or -1; None where it mirrors
        ``neighbours`` and nobody has asked for it.
    order, reverse_order : Tensor (M,), Tensor (N,), or None
        On CUDA, in which order the kernels take the rows of both: see :func:`fastcv.ops.sparse_row_order`.
    """

    geometry: Geometry
    indices: Tensor
    out_indices: Tensor
    neighbours: Tensor
    stored_reverse: Tensor | None
    spatial_shape: list[int]
    out_spatial_shape: list[int]
    order: Tensor | None = None
    reverse_order: Tensor | None = None

    @property
    def is_subm(self) -> bool:
        """Whether it was made by a submanifold layer."""
        return self.geometry.subm

    @property
    def reverse(self) -> Tensor:
        """The map seen from the input, made now if nobody has asked before."""
        if self.stored_reverse is None:
            self.stored_reverse = self.neighbours.flip(0)
        return self.stored_reverse


def layer_geometry(
    ndim: int,
    kernel_size: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    output_padding: Size = 0,
    subm: bool = False,
    transposed: bool = False,
) -> Geometry:
    """Return the geometry of a layer, which knows of no grid yet. Missing axes come first and have size one."""
    if not 1 <= ndim <= 3:
        raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
    ones, zeros = (1,) * (3 - ndim), (0,) * (3 - ndim)
    return Geometry(
        (),
        ones + as_ints(kernel_size, ndim, "kernel_size", 1),
        ones + as_ints(stride, ndim, "stride", 1),
        zeros + as_ints(padding, ndim, "padding", 0),
        ones + as_ints(dilation, ndim, "dilation", 1),
        zeros + as_ints(output_padding, ndim, "output_padding", 0),
        subm,
        transposed,
    )


def build(indices: Tensor, batch_size: int, geometry: Geometry) -> KernelMap:
    """Return the map of sites (N, 1 + D) in a grid whose first 3 - D axes have size one."""
    missing, volume = 4 - indices.shape[1], math.prod(geometry.kernel_size)
    shapes = list(geometry.spatial_shape[missing:]), list(output_shape(geometry)[missing:])
    if volume == 1 and (geometry.subm or not _moves(geometry)):
        rows = torch.arange(indices.shape[0], dtype=torch.int32, device=indices.device)[None]
        return KernelMap(geometry, indices, indices, rows, rows, *shapes)
    sites = indices
    if missing:
        zeros = indices.new_zeros(indices.shape[0], missing)
        sites = torch.cat([indices[:, :1], zeros, indices[:, 1:]], 1)
    out_indices, neighbours, reverse = kernel_map(sites, batch_size, geometry, with_reverse=False)
    if geometry.subm:
        out_indices = indices
    elif missing:
        out_indices = torch.cat([out_indices[:, :1], out_indices[:, 1 + missing :]], 1)
    mirrors = geometry.subm and volume % 2 == 1
    links = KernelMap(geometry, indices, out_indices, neighbours, None if mirrors else reverse, *shapes)
    if _uses_row_order(neighbours):
        links.order = sparse_row_order(neighbours)
        # A mirrored map has the same elements mirrored: equal rows stay together.
        links.reverse_order = links.order if mirrors else sparse_row_order(reverse)
    return links


def _moves(geometry: Geometry) -> bool:
    """Whether a kernel of one element takes sites elsewhere."""
    return set(geometry.stride) != {1} or any(geometry.padding) or any(geometry.output_padding)


def _uses_row_order(neighbours: Tensor) -> bool:
    return neighbours.is_cuda
