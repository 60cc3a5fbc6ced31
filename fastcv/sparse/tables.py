"""Containers for networks with branches: lists of sparse tensors, with spconv's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fastcv.sparse.core import SparseConvTensor, check_same_sites
from fastcv.sparse.functional import sparse_add
from fastcv.sparse.modules import SparseModule

__all__ = ["AddTable", "AddTableMisaligned", "ConcatTable", "JoinTable"]


class _Table(SparseModule):
    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the size of the grid that gives this one."""
        return out_size


class JoinTable(_Table):
    """Sparse tensors of the same sites, their channels behind each other."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Join the channels."""
        for other in input:
            check_same_sites(input[0], other)
        return input[0].replace_feature(torch.cat([x.features for x in input], 1))


class AddTable(_Table):
    """The sum of sparse tensors of the same sites."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Add the features."""
        total = input[0]
        for other in input[1:]:
            total = total + other
        return total


class AddTableMisaligned(_Table):
    """The sum of sparse tensors of any sites (:func:`fastcv.sparse.functional.sparse_add`)."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Add the features of the same site."""
        return sparse_add(*input)


class ConcatTable(SparseModule):
    """Modules that all get the same input; their outputs as a list."""

    def forward(self, input: Any) -> list[Any]:
        """Pass ``input`` through each."""
        return [module(input) for module in self.children()]

    def add(self, module: nn.Module) -> ConcatTable:
        """Append a module, and return the table."""
        self.add_module(str(len(self._modules)), module)
        return self

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return that of the first module."""
        first: Any = next(self.children())
        return first.input_spatial_size(out_size)
