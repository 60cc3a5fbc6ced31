"""Layers for data that fills little of its grid, such as voxels of a LiDAR scan.

Names, arguments and weight layout are those of ``spconv.pytorch``, so that a program changes its import and loads its
checkpoints. See :class:`SparseConvTensor` and :class:`SparseSequential`.

Examples
--------
>>> import torch
>>> from torch import nn
>>> from fastcv import sparse
>>> net = sparse.SparseSequential(
...     sparse.SubMConv3d(4, 16, 3, indice_key="sites"),
...     nn.BatchNorm1d(16),
...     nn.ReLU(),
...     sparse.SparseConv3d(16, 32, 3, stride=2, padding=1, indice_key="down"),
...     nn.ReLU(),
...     sparse.SparseInverseConv3d(32, 16, 3, indice_key="down"),
... )
>>> indices = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [1, 7, 0, 0]], dtype=torch.int32)
>>> x = sparse.SparseConvTensor(torch.randn(3, 4), indices, spatial_shape=[8, 16, 16], batch_size=2)
>>> net(x).dense().shape
torch.Size([2, 16, 8, 16, 16])
"""

from fastcv.sparse import constants, functional, hash, ops, utils
from fastcv.sparse.constants import ConvAlgo
from fastcv.sparse.conv import (
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseConvolution,
    SparseConvTranspose1d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseInverseConv1d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SubMConv1d,
    SubMConv2d,
    SubMConv3d,
)
from fastcv.sparse.conv4d import SparseConv4d, SparseConvTranspose4d, SparseInverseConv4d, SubMConv4d
from fastcv.sparse.core import SparseConvTensor
from fastcv.sparse.identity import Identity
from fastcv.sparse.modules import (
    RemoveGrid,
    SparseBatchNorm,
    SparseIdentity,
    SparseModule,
    SparseReLU,
    SparseSequential,
    SparseSyncBatchNorm,
    ToDense,
    assign_name_for_sparse_modules,
    is_spconv_module,
)
from fastcv.sparse.pool import (
    SparseAvgPool,
    SparseAvgPool1d,
    SparseAvgPool2d,
    SparseAvgPool3d,
    SparseGlobalAvgPool,
    SparseGlobalMaxPool,
    SparseMaxPool,
    SparseMaxPool1d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseMaxPool4d,
)
from fastcv.sparse.tables import AddTable, AddTableMisaligned, ConcatTable, JoinTable
from fastcv.sparse.utils import PointToVoxel, gather_features_by_pc_voxel_id

__all__ = [
    "AddTable",
    "AddTableMisaligned",
    "ConcatTable",
    "ConvAlgo",
    "Identity",
    "JoinTable",
    "PointToVoxel",
    "RemoveGrid",
    "SparseAvgPool",
    "SparseAvgPool1d",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseBatchNorm",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConv4d",
    "SparseConvTensor",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvTranspose4d",
    "SparseConvolution",
    "SparseGlobalAvgPool",
    "SparseGlobalMaxPool",
    "SparseIdentity",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseInverseConv4d",
    "SparseMaxPool",
    "SparseMaxPool1d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseMaxPool4d",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "SparseSyncBatchNorm",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
    "SubMConv4d",
    "ToDense",
    "assign_name_for_sparse_modules",
    "constants",
    "functional",
    "gather_features_by_pc_voxel_id",
    "hash",
    "is_spconv_module",
    "ops",
    "utils",
]
