"""Readers, writers and generators of data."""

from fastcv.data.kitti import read_velodyne, write_velodyne
from fastcv.data.street import street_scan
from fastcv.data.synthetic_shapes import synthetic_instances, synthetic_shapes

__all__ = [
    "read_velodyne",
    "street_scan",
    "synthetic_instances",
    "synthetic_shapes",
    "write_velodyne",
]
