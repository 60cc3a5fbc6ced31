"""Sparse layers computed on whole grids by plain torch: a grid of features and a mask of the active sites."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv import sparse


class Grid(NamedTuple):
    x: Tensor  # (B, C, Z, Y, X), zero where there is no site
    mask: Tensor  # (B, 1, Z, Y, X), of the same dtype
    finer: dict[str, Tensor]  # masks before strided layers, by their indice_key

    def replace(self, x: Tensor) -> Grid:
        return Grid(x * self.mask, self.mask, self.finer)


def rows(grid: Grid, module: nn.Module) -> Grid:
    """Apply a module to the features of the sites, as rows."""
    inside = grid.mask[:, 0] > 0
    changed = module(grid.x.movedim(1, -1)[inside])
    x = changed.new_zeros(*inside.shape, changed.shape[1])
    x[inside] = changed
    return Grid(x.movedim(-1, 1), grid.mask, grid.finer)


def run(module: nn.Module, grid: Grid) -> Grid:
    """Apply a layer, or layers one after the other."""
    if isinstance(module, sparse.SparseSequential):
        for one in module._modules.values():
            grid = run(one, grid)
        return grid
    if isinstance(module, sparse.SparseMaxPool):
        low = grid.x.masked_fill(grid.mask == 0, -torch.inf)
        sizes = module.kernel_size, module.stride, module.padding
        mask = F.max_pool3d(grid.mask, *sizes)
        return Grid(F.max_pool3d(low, *sizes).masked_fill(mask == 0, 0), mask, grid.finer)
    if not isinstance(module, sparse.SparseConvolution):
        if isinstance(module, nn.BatchNorm1d):
            return rows(grid, lambda x: F.batch_norm(  # type: ignore[arg-type]
                x, module.running_mean.clone(), module.running_var.clone(), module.weight, module.bias,
                module.training, 0.1, module.eps,
            ))  # fmt: skip
        return rows(grid, module)
    weight = module.weight.permute(0, 4, 1, 2, 3)
    if module.subm:
        return grid.replace(F.conv3d(grid.x, weight, module.bias, padding=[size // 2 for size in module.kernel_size]))
    if module.inverse:
        mask = grid.finer[module.indice_key]
        x = F.conv_transpose3d(grid.x, weight.transpose(0, 1), module.bias, stride=2)
        return Grid(x * mask, mask, grid.finer)
    sizes = {"stride": module.stride, "padding": module.padding}
    mask = (F.conv3d(grid.mask, torch.ones_like(weight[:1, :1]), **sizes) > 0).to(grid.mask.dtype)
    return Grid(
        F.conv3d(grid.x, weight, module.bias, **sizes) * mask, mask, {**grid.finer, str(module.indice_key): grid.mask}
    )


def voxel_means(points: Tensor, low: Tensor, size: Tensor, cells: list[int]) -> tuple[Grid, Tensor]:
    """Return the grid of mean offsets and further columns of points inside it, and the place of each point."""
    scaled = (points[..., :3] - low) / size
    place = scaled.floor().long().flip(-1)  # z, y, x
    batch = torch.arange(len(points))[:, None].expand(place.shape[:-1])
    flat = ((batch * cells[0] + place[..., 0]) * cells[1] + place[..., 1]) * cells[2] + place[..., 2]
    features = torch.cat([scaled - scaled.floor() - 0.5, points[..., 3:]], -1).flatten(0, 1)
    total = len(points) * cells[0] * cells[1] * cells[2]
    sums = features.new_zeros(total, features.shape[1]).index_add(0, flat.flatten(), features)
    counts = features.new_zeros(total).index_add(0, flat.flatten(), torch.ones_like(features[:, 0]))
    x = (sums / counts.clamp(min=1)[:, None]).view(len(points), *cells, -1).movedim(-1, 1)
    mask = (counts > 0).to(x.dtype).view(len(points), 1, *cells)
    return Grid(x, mask, {}), torch.cat([batch[..., None], place], -1)
