"""The kernel map of a grid with four axes, made by torch: the compiled one ends at three."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcv.ops.sparse_kernel_map import Geometry, KernelMap, output_shape, sparse_reverse_map

__all__ = ["build_map_of_four_axes"]


def build_map_of_four_axes(indices: Tensor, batch_size: int, geometry: Geometry, with_reverse: bool) -> KernelMap:
    """Return the map of sites (N, 5).

    A site is known by its place among all sites of the batch, active or not, of which there may be 2⁶³. It takes time
    and memory for a number per site and kernel element, sorts sites, and waits for a CUDA device.
    """
    in_shape, out_shape = list(geometry.spatial_shape), _output_shape(geometry)
    for shape in (in_shape, out_shape):
        if batch_size * math.prod(shape) >= 2**63:
            raise ValueError(f"spatial_shape must have fewer than 2^63 sites with batch_size {batch_size}, got {shape}")
    keys = _keys(indices.long(), in_shape)
    _check_sites(indices, keys, batch_size, in_shape)
    targets = _targets(indices.long(), geometry, out_shape)
    cells = batch_size * math.prod(out_shape)
    if geometry.subm:
        neighbours = _rows(keys, targets, cells)
        return KernelMap(geometry, indices, indices, neighbours, neighbours[:0], in_shape, in_shape)
    outputs = targets[targets >= 0].unique()
    reverse = _rows(outputs, targets, cells)
    columns = []
    for size in reversed(out_shape):
        columns.append(outputs % size)
        outputs = outputs // size
    out_indices = torch.stack([outputs, *reversed(columns)], 1).int()
    neighbours = sparse_reverse_map(reverse, len(out_indices))
    return KernelMap(geometry, indices, out_indices, neighbours, reverse, in_shape, out_shape)


def _output_shape(geometry: Geometry) -> list[int]:
    """Of the four axes, three at a time: which checks them too."""
    sizes, flags = geometry[:6], geometry[6:]
    first = output_shape(*(size[:3] for size in sizes), *flags)
    last = output_shape(*(size[1:] for size in sizes), *flags)
    return [*first, last[2]]


def _keys(sites: Tensor, shape: list[int]) -> Tensor:
    key = sites[:, 0]
    for axis, size in enumerate(shape, 1):
        key = key * size + sites[:, axis]
    return key


def _targets(sites: Tensor, geometry: Geometry, out_shape: list[int]) -> Tensor:
    """Return the key (K, N) of the output site that each site feeds through each kernel element, or -1.

    Of a submanifold convolution, that of the site which feeds it.
    """
    key = sites[:, 0] * math.prod(out_shape)
    inside = torch.ones_like(key, dtype=torch.bool)
    for axis, size in enumerate(out_shape):
        place, dilation = sites[:, axis + 1], geometry.dilation[axis]
        stride, padding = geometry.stride[axis], geometry.padding[axis]
        step = torch.arange(geometry.kernel_size[axis], device=sites.device)[:, None] * dilation
        if geometry.subm:
            there = place + step - geometry.kernel_size[axis] // 2 * dilation
        elif geometry.transposed:
            there = place * stride - padding + step
        else:
            reach = place + padding - step
            there = reach.div(stride, rounding_mode="floor")
        fits = (there >= 0) & (there < size)
        if not geometry.subm and not geometry.transposed:
            fits &= there * stride == reach
        key = key[..., None, :] + there * math.prod(out_shape[axis + 1 :])
        inside = inside[..., None, :] & fits
    return torch.where(inside, key, -1).reshape(math.prod(geometry.kernel_size), sites.shape[0])


def _rows(keys: Tensor, wanted: Tensor, cells: int) -> Tensor:
    """Return the row of each wanted key among distinct ``keys`` below ``cells``, or -1 (int32)."""
    if cells <= 4 * wanted.numel():  # a table takes no more memory than the map
        table = torch.full((cells + 1,), -1, dtype=torch.int32, device=keys.device)  # and one place for -1
        table[keys] = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
        return table[wanted]
    if len(keys) == 0:
        return torch.full_like(wanted, -1, dtype=torch.int32)
    ordered, order = keys.sort()
    place = torch.searchsorted(ordered, wanted).clamp(max=len(keys) - 1)
    return torch.where(ordered[place] == wanted, order[place], -1).int()


def _check_sites(indices: Tensor, keys: Tensor, batch_size: int, shape: list[int]) -> None:
    limits = indices.new_tensor([batch_size, *shape])
    outside = ((indices < 0) | (indices >= limits)).any(1)
    if bool(outside.any()):
        row = int(outside.long().argmax())
        raise ValueError(
            f"indices must be at least 0 and below {(batch_size, *shape)}, got {tuple(indices[row].tolist())} "
            f"in row {row}"
        )
    ordered, order = keys.sort(stable=True)
    again = ordered[1:] == ordered[:-1]
    if bool(again.any()):
        place = int(again.long().argmax())
        rows = order[place : place + 2].tolist()
        raise ValueError(
            f"indices must have each site once, got {tuple(indices[rows[0]].tolist())} in rows {rows[0]} and {rows[1]}"
        )
