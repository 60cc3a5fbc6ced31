"""Sparse pooling layers, with spconv's names and arguments."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from fastcv.ops.sparse_kernel_map import Size, layer_geometry
from fastcv.ops.sparse_pool import sparse_avg_pool, sparse_max_pool
from fastcv.sparse.core import SparseConvTensor, check_input
from fastcv.sparse.modules import SparseModule

__all__ = [
    "SparseAvgPool",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseMaxPool",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
]

_GROUP = 128


class _Pool(SparseModule):
    """What the pooling layers share.

    Parameters
    ----------
    ndim : int
        Axes of the grid, 1 to 4.
    kernel_size, stride, padding, dilation : int or sequence of ints
        As in ``nn.MaxPool3d``, one number per axis (z, y, x); a stride of None is the kernel's size.
    indice_key : str, optional
        Name under which the kernel map is kept, for an inverse convolution to undo.
    subm : bool
        Keep the input's sites, with the kernel centred on them.
    algo
        Accepted for the sake of code written for spconv, and not used.
    record_voxel_count : bool
        Keep the largest number of output sites so far in the buffer ``max_num_voxels_during_training``.
    name : str, optional
        Kept as an attribute.
    """

    max_num_voxels_during_training: Tensor

    def __init__(
        self,
        ndim: int,
        kernel_size: Size = 3,
        stride: Size | None = 1,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        subm: bool = False,
        algo: Any = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        strides = kernel_size if stride is None else stride
        self._geometry = layer_geometry(ndim, kernel_size, strides, padding, dilation, subm=subm)
        self.ndim = ndim
        shapes = (list(axes[-ndim:]) for axes in self._geometry[1:5])
        self.kernel_size, self.stride, self.padding, self.dilation = shapes
        self.subm = subm
        self.indice_key = indice_key
        self.record_voxel_count = record_voxel_count and not subm
        if self.record_voxel_count:
            self.register_buffer("max_num_voxels_during_training", torch.zeros(1, dtype=torch.int32))

    def get_max_num_voxels(self) -> Tensor | None:
        """Return the largest number of output sites so far, where it is recorded."""
        return getattr(self, "max_num_voxels_during_training", None)

    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        """Pool the sparse tensor."""
        check_input(input, self.ndim)
        wants_reverse = input._wants_gradient() or torch.compiler.is_compiling()
        links = input._map_for(self._geometry, self.indice_key, wants_reverse)
        reverse = links.reverse if wants_reverse else links.neighbours.new_empty((0, input.features.shape[0]))
        output = self._pool(input.features, links.neighbours, reverse)
        if self.record_voxel_count:
            self.max_num_voxels_during_training.clamp_(min=output.shape[0])
        return input._output(output, links, self.indice_key)

    def _pool(self, features: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        parts = [f"kernel_size={self.kernel_size}, stride={self.stride}"]
        parts += [f"padding={self.padding}"] if any(self.padding) else []
        parts += [f"dilation={self.dilation}"] if set(self.dilation) != {1} else []
        parts += [f"indice_key={self.indice_key!r}"] if self.indice_key is not None else []
        return ", ".join(parts)


class SparseMaxPool(_Pool):
    """The largest of the active sites under the kernel; inactive sites are ignored.

    Parameters as in the layers for one to three axes, behind ``ndim``. Output sites are those that at least one input
    site reaches, sorted by batch, z, y, x. As in ``nn.MaxPool3d``, NaN is larger than all, and the gradient goes to the
    first of equal values.
    """

    def _pool(self, features: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
        return sparse_max_pool(features, neighbours, reverse)


class SparseAvgPool(_Pool):
    """The mean of the active sites under the kernel: divided by their number, not by the kernel's volume.

    Parameters as in the layers for one to three axes, behind ``ndim``. Output sites are those that at least one input
    site reaches, sorted by batch, z, y, x.
    """

    def _pool(self, features: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
        return sparse_avg_pool(features, neighbours, reverse)


class _MaxPool(SparseMaxPool):
    _ndim: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        algo: Any = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(
            self._ndim,
            kernel_size,
            stride,
            padding,
            dilation,
            indice_key,
            record_voxel_count=record_voxel_count,
            name=name,
        )


class _AvgPool(SparseAvgPool):
    _ndim: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        algo: Any = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(
            self._ndim,
            kernel_size,
            stride,
            padding,
            dilation,
            indice_key,
            record_voxel_count=record_voxel_count,
            name=name,
        )


class SparseMaxPool1d(_MaxPool):
    """Sparse 1-D max pooling (:class:`SparseMaxPool`)."""

    _ndim = 1


class SparseMaxPool2d(_MaxPool):
    """Sparse 2-D max pooling (:class:`SparseMaxPool`)."""

    _ndim = 2


class SparseMaxPool3d(_MaxPool):
    """Sparse 3-D max pooling (:class:`SparseMaxPool`)."""

    _ndim = 3


class SparseMaxPool4d(_MaxPool):
    """Sparse 4-D max pooling (:class:`SparseMaxPool`)."""

    _ndim = 4


class SparseAvgPool1d(_AvgPool):
    """Sparse 1-D average pooling (:class:`SparseAvgPool`)."""

    _ndim = 1


class SparseAvgPool2d(_AvgPool):
    """Sparse 2-D average pooling (:class:`SparseAvgPool`)."""

    _ndim = 2


class SparseAvgPool3d(_AvgPool):
    """Sparse 3-D average pooling (:class:`SparseAvgPool`)."""

    _ndim = 3


class _GlobalPool(SparseModule):
    """What the global pools share: groups of sites are pooled first, then the groups of each grid.

    So there is work for many threads, no addition whose order depends on them, and nothing to wait for on CUDA.
    """

    def forward(self, input: SparseConvTensor) -> Tensor:
        """Pool each grid of the batch: to (batch_size, C)."""
        if not isinstance(input, SparseConvTensor):
            raise TypeError(f"input must be a SparseConvTensor, got {type(input).__name__}")
        return self._pool(input.features, _Groups(input.indices[:, 0], input.batch_size))

    def _pool(self, features: Tensor, groups: _Groups) -> Tensor:
        raise NotImplementedError


class SparseGlobalMaxPool(_GlobalPool):
    """The largest of all active sites of each grid: a dense tensor (batch_size, C), 0 for a grid without sites."""

    def _pool(self, features: Tensor, groups: _Groups) -> Tensor:
        largest = sparse_max_pool(features, groups.sites, groups.group_of_site)
        return sparse_max_pool(largest, groups.groups, groups.grid_of_group)


class SparseGlobalAvgPool(_GlobalPool):
    """The mean of all active sites of each grid: a dense tensor (batch_size, C), 0 for a grid without sites.

    Half types are averaged in float32.
    """

    def _pool(self, features: Tensor, groups: _Groups) -> Tensor:
        wide = features if features.dtype is torch.float64 else features.float()
        # Both are divided by the number of places, taken or not, which then cancels out.
        mean = sparse_avg_pool(wide, groups.sites, groups.group_of_site, True)
        mean = sparse_avg_pool(mean, groups.groups, groups.grid_of_group, True)
        places = groups.sites.shape[0] * groups.groups.shape[0]
        return (mean * (places / groups.counts.clamp(min=1).to(wide.dtype))[:, None]).to(features.dtype)


class _Groups:
    """The sites of each grid in groups of up to _GROUP, in their order, and the groups of each grid.

    Attributes
    ----------
    sites : Tensor (_GROUP, groups), groups : Tensor (groups of a grid at most, batch_size)
        Rows that are pooled together, -1 where there is none.
    group_of_site : Tensor (1, N), grid_of_group : Tensor (1, groups)
        The same the other way round.
    counts : Tensor (batch_size,)
        Sites per grid.
    """

    def __init__(self, batch: Tensor, batch_size: int) -> None:
        rows, device = batch.shape[0], batch.device
        inside = (batch >= 0) & (batch < batch_size)
        if not batch.is_cuda and not torch.compiler.is_compiling() and not inside.all():
            raise ValueError(f"indices must have batch indices in [0, {batch_size}), got {batch[~inside][0].item()}")
        grid = torch.where(inside, batch, batch_size).long()  # sites of no grid are dropped: the last one is no result
        counts = torch.zeros(batch_size + 1, dtype=torch.long, device=device).scatter_add_(
            0, grid, torch.ones_like(grid)
        )
        group_counts = (counts + _GROUP - 1) // _GROUP
        first_site, first_group = counts.cumsum(0) - counts, group_counts.cumsum(0) - group_counts
        order = grid.argsort(stable=True)
        grid = grid[order]
        rank = torch.arange(rows, device=device) - first_site[grid]
        group = first_group[grid] + rank // _GROUP

        total = rows // _GROUP + batch_size + 1
        sites = torch.full((_GROUP, total), -1, dtype=torch.int32, device=device)
        sites[rank % _GROUP, group] = order.int()
        group_of_site = torch.empty(rows, dtype=torch.int32, device=device)
        group_of_site[order] = group.int()

        grid_of_group = torch.full((total,), batch_size, dtype=torch.long, device=device)
        grid_of_group[group] = grid
        number = torch.arange(total, device=device)
        most = rows // _GROUP + 1
        groups = torch.full((most, batch_size + 1), -1, dtype=torch.int32, device=device)
        groups[(number - first_group[grid_of_group]).clamp(0, most - 1), grid_of_group] = number.int()
        self.sites = sites
        self.group_of_site = group_of_site[None]
        self.groups = groups[:, :batch_size].contiguous()
        self.grid_of_group = torch.where(grid_of_group < batch_size, grid_of_group, -1).int()[None]
        self.counts = counts[:batch_size]
