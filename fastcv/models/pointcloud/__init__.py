"""Networks for point clouds."""

from fastcv.models.pointcloud.octnet import OctNet
from fastcv.models.pointcloud.pointnet import PointNet, PointNetSegmentation, orthogonality_loss
from fastcv.models.pointcloud.pointnet2 import (
    PointNet2,
    PointNet2MSG,
    PointNet2MSGSegmentation,
    PointNet2Segmentation,
)
from fastcv.models.pointcloud.second import SECONDBackbone
from fastcv.models.pointcloud.sparse_encoder import SparseEncoder
from fastcv.models.pointcloud.sparse_unet import SparseUNet
from fastcv.models.pointcloud.voxnet import SparseVoxNet, VoxNet

__all__ = [
    "OctNet",
    "PointNet",
    "PointNet2",
    "PointNet2MSG",
    "PointNet2MSGSegmentation",
    "PointNet2Segmentation",
    "PointNetSegmentation",
    "SECONDBackbone",
    "SparseEncoder",
    "SparseUNet",
    "SparseVoxNet",
    "VoxNet",
    "orthogonality_loss",
]
