"""Data: readers and generators."""

from fastcv.data.synthetic_shapes import synthetic_shapes

__all__ = [
    "synthetic_shapes",
]
