"""The kernel map of a grid with four axes, made by torch: the compiled one ends at three."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from fastcv.ops.sparse_kernel_map import Geometry, KernelMap, output_shape, sparse_reverse_map

__all__ = ["build_map_of_four_axes"]


def build_map_of_four_axes(indices: Tensor, batch_size: int, geometry: Geometry, with_reverse: bool) -> KernelMap:
    """Return the map of sites (N, 5).

    A site is known by its place among all sites of the batch, active or not, of which there may be 2⁶³. It takes time
    and memory for a number per site and kernel element, sorts them, and waits for a CUDA device.
    """
    in_shape, out_shape = list(geometry.spatial_shape), _output_shape(geometry)
    for shape in (in_shape, out_shape):
        if batch_size * math.prod(shape) >= 2**63:
            raise ValueError(f"spatial_shape must have fewer than 2^63 sites with batch_size {batch_size}, got {shape}")
    keys = _keys(indices.long(), [batch_size, *in_shape])
    _check_sites(indices, keys, batch_size, in_shape)
    if geometry.subm:
        ordered, order = keys.sort()
        targets = _fed(indices, geometry, in_shape, mirrored=True)
        place = torch.searchsorted(ordered, targets).clamp(max=max(len(keys) - 1, 0))
        found = (targets >= 0) & (ordered[place] == targets) if len(keys) else targets >= 0
        neighbours = torch.where(found, order[place] if len(keys) else -1, -1).int()
        return KernelMap(geometry, indices, indices, neighbours, neighbours[:0], in_shape, in_shape)
    targets = _fed(indices, geometry, out_shape)
    outputs, place = targets.unique(return_inverse=True)
    missing = int(len(outputs) > 0 and outputs[0] < 0)
    outputs = outputs[missing:]
    reverse = (place.reshape(targets.shape) - missing).int()
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
    key = sites[..., 0]
    for axis, size in enumerate(shape[1:], 1):
        key = key * size + sites[..., axis]
    return key


def _fed(indices: Tensor, geometry: Geometry, out_shape: list[int], mirrored: bool = False) -> Tensor:
    """Return the key (K, N) of the site that each site feeds through each kernel element, or -1.

    ``mirrored`` gives the site that feeds it, in a submanifold convolution.
    """
    site = indices.long()
    batch, site = site[:, :1], site[:, 1:]
    limits = site.new_tensor(out_shape)
    kernel, dilation = geometry.kernel_size, site.new_tensor(geometry.dilation)
    stride, padding = site.new_tensor(geometry.stride), site.new_tensor(geometry.padding)
    centre = site.new_tensor([size // 2 for size in kernel]) * dilation
    found = []
    for element in itertools.product(*(range(size) for size in kernel)):
        step = site.new_tensor(element) * dilation
        if geometry.subm:
            there = site + (step - centre if mirrored else centre - step)
            fits = torch.ones_like(site, dtype=torch.bool)
        elif geometry.transposed:
            there = site * stride - padding + step
            fits = torch.ones_like(site, dtype=torch.bool)
        else:
            reach = site + padding - step
            there = reach.div(stride, rounding_mode="floor")
            fits = there * stride == reach
        inside = (fits & (there >= 0) & (there < limits)).all(1)
        found.append(torch.where(inside, _keys(torch.cat([batch, there], 1), [0, *out_shape]), -1))
    return torch.stack(found)


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
