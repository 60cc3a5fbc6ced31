"""Networks for point clouds."""

from fastcv.models.pointcloud.sparse_encoder import SparseEncoder

__all__ = ["SparseEncoder"]
