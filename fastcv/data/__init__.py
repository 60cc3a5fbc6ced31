"""Readers, writers and generators of data."""

from fastcv.data.kitti import read_velodyne, write_velodyne
from fastcv.data.street import street_scan

__all__ = [
    "read_velodyne",
    "street_scan",
    "write_velodyne",
]
