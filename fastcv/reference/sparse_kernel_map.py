"""Kernel maps of sparse convolution in plain torch (Graham et al. 2018, "3D Semantic Segmentation with Submanifold
Sparse Convolutional Networks", section 3): which input site feeds which output site through which kernel element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Site = tuple[int, ...]


def sparse_kernel_map(
    indices: Tensor,
    spatial_shape: Sequence[int],
    batch_size: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
    subm: bool = False,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Map sites (N, 4) = batch, z, y, x to the sites that a convolution reaches.

    Returns the output sites (M, 4), sorted by batch, z, y, x (of a submanifold convolution: ``indices`` itself), the
    input row that feeds each through each kernel element (K, M), and the output row that each input feeds (K, N); -1
    where there is none. Element (z, y, x) of the kernel has the number ``(z * KY + y) * KX + x``.
    """
    kernel, steps, pads = _triple(kernel_size), _triple(stride), _triple(padding)
    dilations, extra = _triple(dilation), _triple(output_padding)
    shape = tuple(spatial_shape)
    if subm:
        steps, pads = (1, 1, 1), tuple(k // 2 * d for k, d in zip(kernel, dilations, strict=True))
    rows = _rows(indices, shape, batch_size)
    out_shape = shape if subm else _output_shape(shape, kernel, steps, pads, dilations, extra, transposed)

    links: list[tuple[int, int, Site]] = []  # kernel element, input row, output site
    for element, place in enumerate(_places(*kernel)):
        for (batch, *site), row in rows.items():
            reached: list[int] = []
            for i, s, p, d, k, size in zip(site, steps, pads, dilations, place, out_shape, strict=True):
                moved = i * s - p + k * d if transposed else i + p - k * d
                out = moved if transposed else moved // s
                if (not transposed and moved % s != 0) or not 0 <= out < size:
                    break
                reached.append(out)
            else:
                links.append((element, row, (batch, *reached)))

    if subm:
        numbers = rows
        out_indices = indices
    else:
        sites = sorted({site for _, _, site in links})
        numbers = {site: number for number, site in enumerate(sites)}
        out_indices = torch.tensor(sites, dtype=torch.int32).reshape(-1, 4).to(indices.device)
    volume = kernel[0] * kernel[1] * kernel[2]
    neighbours = torch.full((volume, len(numbers)), -1, dtype=torch.int32)
    reverse = torch.full((volume, len(rows)), -1, dtype=torch.int32)
    for element, row, site_ in links:
        if site_ in numbers:
            neighbours[element, numbers[site_]] = row
            reverse[element, row] = numbers[site_]
    return out_indices, neighbours.to(indices.device), reverse.to(indices.device)


def _places(*kernel: int) -> list[Site]:
    return [(z, y, x) for z in range(kernel[0]) for y in range(kernel[1]) for x in range(kernel[2])]


def _triple(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)


def _rows(indices: Tensor, shape: tuple[int, ...], batch_size: int) -> dict[Site, int]:
    """Return the row of each site, after checking them all."""
    if indices.dim() != 2 or indices.shape[1] != 4:
        raise ValueError(f"indices must have the shape (N, 4), got {tuple(indices.shape)}")
    rows: dict[Site, int] = {}
    for row, site in enumerate(map(tuple, indices.tolist())):
        if not 0 <= site[0] < batch_size:
            raise ValueError(f"indices must have batch indices in [0, {batch_size}), got {site[0]} in row {row}")
        if not all(0 <= i < size for i, size in zip(site[1:], shape, strict=True)):
            raise ValueError(f"indices must lie in the spatial shape {shape}, got {site[1:]} in row {row}")
        if site in rows:
            raise ValueError(f"indices must be distinct, got {site} in rows {rows[site]} and {row}")
        rows[site] = row
    return rows


def _output_shape(
    shape: Site, kernel: Site, stride: Site, padding: Site, dilation: Site, extra: Site, transposed: bool
) -> Site:
    sizes = []
    for i, k, s, p, d, e in zip(shape, kernel, stride, padding, dilation, extra, strict=True):
        reach = d * (k - 1) + 1
        size = (i - 1) * s - 2 * p + reach + e if transposed else (i + 2 * p - reach) // s + 1
        if size < 1:
            raise ValueError(f"spatial_shape {shape} leaves no output: its size would be {size}")
        sizes.append(size)
    return tuple(sizes)
