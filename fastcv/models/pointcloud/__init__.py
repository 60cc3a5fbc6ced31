"""Networks for point clouds."""

from fastcv.models.pointcloud.pointnet import PointNet, PointNetSegmentation, orthogonality_loss
from fastcv.models.pointcloud.pointnet2 import (
    PointNet2,
    PointNet2MSG,
    PointNet2MSGSegmentation,
    PointNet2Segmentation,
)
from fastcv.models.pointcloud.sparse_encoder import SparseEncoder

__all__ = [
    "PointNet",
    "PointNet2",
    "PointNet2MSG",
    "PointNet2MSGSegmentation",
    "PointNet2Segmentation",
    "PointNetSegmentation",
    "SparseEncoder",
    "orthogonality_loss",
]
