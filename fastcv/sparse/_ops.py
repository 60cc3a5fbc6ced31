"""The operators that the layers stand on."""

from fastcv.ops.sparse_pool import sparse_avg_pool, sparse_max_pool
from fastcv.reference.sparse_conv import sparse_conv
from fastcv.reference.sparse_kernel_map import sparse_kernel_map

__all__ = ["sparse_avg_pool", "sparse_conv", "sparse_kernel_map", "sparse_max_pool"]
