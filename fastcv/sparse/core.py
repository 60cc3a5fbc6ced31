"""The sparse tensor: features of the active sites of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._arguments import as_ints
from fastcv.ops.sparse_kernel_map import Geometry, KernelMap, build_kernel_map
from fastcv.sparse.map4d import build_map_of_four_axes

__all__ = ["ImplicitGemmIndiceData", "IndiceData", "SparseConvTensor", "expand_nd", "scatter_nd"]

IndiceData = ImplicitGemmIndiceData = KernelMap
"""spconv's name for what is kept under an ``indice_key``."""

_CARRIED = (
    "grid",
    "voxel_num",
    "benchmark",
    "benchmark_record",
    "thrust_allocator",
    "force_algo",
    "int8_scale",
    "_timer",
)


class SparseConvTensor:
    """Features of the active sites of a batch of grids with one to four axes.

    Parameters
    ----------
    features : Tensor (N, C)
        One row per active site: float16, bfloat16, float32 or float64.
    indices : Tensor (N, 1 + D)
        int32: batch index and coordinates, axes in the order of ``spatial_shape`` (z, y, x). The sites are distinct,
        and inside the grid; the first layer that needs their neighbours looks, and raises ValueError otherwise.
    spatial_shape : sequence of D ints
        Size of the grid. Its volume may exceed 2³¹.
    batch_size : int
        Number of grids.
    grid, voxel_num, benchmark, permanent_thrust_allocator, enable_timer, force_algo
        Accepted for the sake of code written for spconv, and not used.
    indice_dict : dict, optional
        Kernel maps by ``indice_key``, as layers before have left them.

    Raises
    ------
    TypeError
        For features or indices that are not tensors, or of an unsupported dtype.
    ValueError
        For shapes that do not fit each other, tensors on different devices, or a negative batch size.

    Examples
    --------
    >>> indices = torch.tensor([[0, 1, 2, 3], [0, 4, 4, 4]], dtype=torch.int32)
    >>> x = SparseConvTensor(torch.randn(2, 16), indices, spatial_shape=[8, 8, 8], batch_size=1)
    >>> x.dense().shape
    torch.Size([1, 16, 8, 8, 8])
    """

    def __init__(
        self,
        features: Tensor,
        indices: Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        grid: Tensor | None = None,
        voxel_num: Tensor | None = None,
        indice_dict: dict[str, KernelMap] | None = None,
        benchmark: bool = False,
        permanent_thrust_allocator: bool = False,
        enable_timer: bool = False,
        force_algo: Any = None,
    ) -> None:
        shape = [int(size) for size in spatial_shape]
        _check(features, indices, shape, batch_size)
        self._features = features
        self.indices = indices
        self.spatial_shape = shape
        self.batch_size = int(batch_size)
        self.indice_dict: dict[str, KernelMap] = {} if indice_dict is None else indice_dict
        self.grid = grid
        self.voxel_num = voxel_num
        self.benchmark = benchmark
        self.benchmark_record: dict[str, Any] = {}
        self.thrust_allocator = None
        self.force_algo = force_algo
        self.int8_scale = None
        self._timer = None

    @property
    def features(self) -> Tensor:
        """The features (N, C). To change them, call :meth:`replace_feature`."""
        return self._features

    @property
    def spatial_size(self) -> int:
        """Number of sites of one grid, active or not."""
        return math.prod(self.spatial_shape)

    @property
    def is_quantized(self) -> bool:
        """False: quantized features are no features here."""
        return False

    def q_scale(self) -> float:
        """Raise ValueError, as spconv does for tensors that are not quantized."""
        raise ValueError("sparse tensor must be quantized, and quantized features are not supported")

    def dequantize(self) -> SparseConvTensor:
        """Return a new object: nothing is quantized."""
        return self.shadow_copy()

    def replace_feature(self, feature: Tensor) -> SparseConvTensor:
        """Return a tensor with the same sites and kernel maps, and other features (N, C').

        Their number may be another if ``indices`` are assigned before the tensor is used.
        """
        return self._derived(feature, self.indices, self.spatial_shape, self.indice_dict)

    def shadow_copy(self) -> SparseConvTensor:
        """Return a new object with everything unchanged."""
        return self.replace_feature(self._features)

    def find_indice_pair(self, key: str | None) -> KernelMap | None:
        """Return the kernel map stored under ``key``, or None."""
        return None if key is None else self.indice_dict.get(key)

    def select_by_index(self, valid_indices: Tensor) -> SparseConvTensor:
        """Return the sites that a mask (N,) or row numbers choose; kernel maps are forgotten."""
        return self._derived(self._features[valid_indices], self.indices[valid_indices], self.spatial_shape, {})

    def minus(self) -> SparseConvTensor:
        """Return a tensor with negated features."""
        return self.replace_feature(-self._features)

    @classmethod
    def from_dense(cls, x: Tensor) -> SparseConvTensor:
        """Make the sites of a dense tensor (B, \\*spatial, C) active where a channel is not zero."""
        active = (x != 0).any(-1)
        indices = active.nonzero().to(torch.int32)
        return cls(x[active], indices, x.shape[1:-1], x.shape[0])

    def dense(self, channels_first: bool = True) -> Tensor:
        """Write the features into a grid of zeros.

        Parameters
        ----------
        channels_first : bool
            Whether the result is (B, C, \\*spatial_shape) or (B, \\*spatial_shape, C).

        Returns
        -------
        Tensor
            Contiguous; differentiable in the features.

        Raises
        ------
        ValueError
            For a site outside the grid. (This costs a synchronisation on CUDA; compiled code does not look.)
        """
        self._check_rows()
        if not torch.compiler.is_compiling():
            self._check_sites()
        channels = self._features.shape[1]
        if channels_first:
            grid = self._features.new_zeros(self.batch_size, channels, *self.spatial_shape)
            view = grid.movedim(1, -1)
        else:
            grid = view = self._features.new_zeros(self.batch_size, *self.spatial_shape, channels)
        view[self.indices.long().unbind(1)] = self._features
        return grid

    def __add__(self, other: SparseConvTensor | Tensor) -> SparseConvTensor:
        if isinstance(other, SparseConvTensor):
            check_same_sites(self, other)
            other = other.features
        return self.replace_feature(self._features + other)

    __radd__ = __add__

    def __repr__(self) -> str:
        return (
            f"SparseConvTensor(features={tuple(self._features.shape)}, spatial_shape={self.spatial_shape}, "
            f"batch_size={self.batch_size})"
        )

    def _map_for(self, geometry: Geometry, key: str | None, with_reverse: bool) -> KernelMap:
        """Return the kernel map stored under ``key``, or a new one, for the geometry of a layer.

        Only submanifold layers share a map by its key, for only they leave the sites as they are.
        """
        found = self.find_indice_pair(key)
        if found is None:
            ones = (1,) * (3 - len(self.spatial_shape))
            grid = ones + tuple(index(size) for size in self.spatial_shape)
            build = build_kernel_map if len(grid) == 3 else build_map_of_four_axes
            return build(self.indices, self.batch_size, Geometry(grid, *geometry[1:]), with_reverse)
        if not geometry.subm:
            raise ValueError(f"indice_key {key!r} is taken: only submanifold layers share a kernel map")
        made = found.geometry
        if not made.subm or (made.kernel_size, made.dilation) != (geometry.kernel_size, geometry.dilation):
            raise ValueError(
                f"layers that share indice_key {key!r} must have the same kernel and dilation: it was made for "
                f"{made}, wanted is {geometry}"
            )
        if found.spatial_shape != self.spatial_shape or found.indices.shape != self.indices.shape:
            raise ValueError(
                f"layers that share indice_key {key!r} must have the same sites: it was made for "
                f"{found.indices.shape[0]} sites in {found.spatial_shape}, got {self.indices.shape[0]} in "
                f"{self.spatial_shape}"
            )
        return found

    def _wants_gradient(self) -> bool:
        """Whether a layer's result will be differentiated by the features."""
        return self._features.requires_grad and torch.is_grad_enabled()

    def _map_to_undo(self, kernel_size: list[int], key: str | None) -> KernelMap:
        """Return the map stored under ``key``, that an inverse convolution runs backwards."""
        found = self.find_indice_pair(key)
        if found is None:
            raise ValueError(f"indice_key {key!r} must name a layer before this one; none has it")
        if found.is_subm:
            raise ValueError(f"indice_key {key!r} names a submanifold layer, which has nothing to undo")
        undone = list(found.geometry.kernel_size[-len(self.spatial_shape) :])
        if undone != kernel_size:
            raise ValueError(
                f"kernel_size must be that of the layer {key!r} which is undone, {undone}, got {kernel_size}"
            )
        if found.out_spatial_shape != self.spatial_shape or found.out_indices.shape != self.indices.shape:
            raise ValueError(
                f"input must have the sites that the layer {key!r} left: {found.out_indices.shape[0]} in "
                f"{found.out_spatial_shape}, got {self.indices.shape[0]} in {self.spatial_shape}"
            )
        return found

    def _output(self, features: Tensor, links: KernelMap, key: str | None) -> SparseConvTensor:
        """Return the output of a layer; it and what comes after it find the map under ``key``."""
        maps = self.indice_dict
        if key is not None and key not in maps:
            maps = {**maps, key: links}
        return self._derived(features, links.out_indices, links.out_spatial_shape, maps)

    def _derived(
        self, features: Tensor, indices: Tensor, spatial_shape: list[int], indice_dict: dict[str, KernelMap]
    ) -> SparseConvTensor:
        """Return a tensor made of parts that have been checked before, but for the features."""
        if features.dim() != 2:
            raise ValueError(f"features must have two axes, got shape {tuple(features.shape)}")
        new = SparseConvTensor.__new__(SparseConvTensor)
        new._features = features
        new.indices = indices
        new.spatial_shape = spatial_shape
        new.batch_size = self.batch_size
        new.indice_dict = indice_dict
        for name in _CARRIED:
            setattr(new, name, getattr(self, name))
        return new

    def features_beside(self) -> tuple[Tensor, Tensor | None]:
        """Return the features, in two parts of equal size where they lie so."""
        return self._features, None

    @property
    def _channels(self) -> int:
        return self._features.shape[1]

    def _check_rows(self) -> None:
        if self._features.shape[0] != self.indices.shape[0]:
            raise ValueError(
                f"features must have a row for each of {self.indices.shape[0]} sites, got {tuple(self._features.shape)}"
            )

    def _check_sites(self) -> None:
        limits = torch.tensor([self.batch_size, *self.spatial_shape], device=self.indices.device)
        outside = ((self.indices < 0) | (self.indices >= limits)).any(1)
        if bool(outside.any()):
            row = int(outside.long().argmax())
            raise ValueError(
                f"indices must lie in [0, {self.batch_size}) and the grid {self.spatial_shape}, got "
                f"{self.indices[row].tolist()} in row {row}"
            )


def expand_nd(ndim: int, val: int | Sequence[int]) -> list[int]:
    """Return one int for each axis, as spconv's layers do it."""
    return list(as_ints(val, ndim, "val", -(2**63)))


def scatter_nd(indices: Tensor, updates: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a zero tensor of a shape with the rows of ``updates`` at ``indices`` (..., axes), which are distinct."""
    result = torch.zeros(list(shape), dtype=updates.dtype, device=updates.device)
    return result.index_put(indices.long().unbind(-1), updates)


def _check(features: Any, indices: Any, spatial_shape: list[int], batch_size: int) -> None:
    for name, value in (("features", features), ("indices", indices)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if value.dim() != 2:
            raise ValueError(f"{name} must have two axes, got shape {tuple(value.shape)}")
    if not features.dtype.is_floating_point:
        raise TypeError(f"features must be of a floating dtype, got {_name(features.dtype)}")
    if indices.dtype is not torch.int32:
        raise TypeError(f"indices must be int32, got {_name(indices.dtype)}")
    if not 1 <= len(spatial_shape) <= 4:
        raise ValueError(f"spatial_shape must have one to four sizes, got {spatial_shape}")
    if indices.shape[1] != len(spatial_shape) + 1:
        raise ValueError(
            f"indices must have shape (N, {len(spatial_shape) + 1}) for spatial_shape {spatial_shape}, got "
            f"{tuple(indices.shape)}"
        )
    if any(size < 1 for size in spatial_shape):
        raise ValueError(f"spatial_shape must be positive, got {spatial_shape}")
    if features.shape[0] != indices.shape[0]:
        raise ValueError(f"features must have a row per site: {features.shape[0]} rows, {indices.shape[0]} sites")
    if features.device != indices.device:
        raise ValueError(f"indices must be on the device of features ({features.device}), got {indices.device}")
    if batch_size < 0:
        raise ValueError(f"batch_size must not be negative, got {batch_size}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_input(input: Any, ndim: int) -> None:
    """Raise an error unless a layer for grids with ``ndim`` axes can take ``input``."""
    if not isinstance(input, SparseConvTensor):
        raise TypeError(f"input must be a SparseConvTensor, got {type(input).__name__}")
    if len(input.spatial_shape) != ndim:
        raise ValueError(f"input must have {ndim} spatial axes, got spatial_shape {input.spatial_shape}")
    input._check_rows()


def check_same_sites(first: SparseConvTensor, second: SparseConvTensor) -> None:
    if first.indices is second.indices:
        return
    same = (
        first.spatial_shape == second.spatial_shape
        and first.batch_size == second.batch_size
        and first.indices.shape == second.indices.shape
    )
    if not same or (not torch.compiler.is_compiling() and not torch.equal(first.indices, second.indices)):
        raise ValueError(f"sparse tensors can be added only where their sites are the same: {first} and {second}")
