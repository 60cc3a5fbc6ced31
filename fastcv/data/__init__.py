"""Readers, writers and generators of data."""

from fastcv.data.augmented import MixUp, Mosaic, Transformed
from fastcv.data.coco import CocoDataset, coco_annotations, write_coco
from fastcv.data.dataset import DetectionDataset, summary
from fastcv.data.kitti import read_velodyne, write_velodyne
from fastcv.data.opening import open_dataset
from fastcv.data.scenes import synthetic_scenes
from fastcv.data.street import street_scan
from fastcv.data.synthetic_shapes import synthetic_instances, synthetic_shapes
from fastcv.data.voc import VocDataset
from fastcv.data.yolo_format import YoloDataset

__all__ = [
    "CocoDataset",
    "DetectionDataset",
    "MixUp",
    "Mosaic",
    "Transformed",
    "VocDataset",
    "YoloDataset",
    "coco_annotations",
    "open_dataset",
    "read_velodyne",
    "street_scan",
    "summary",
    "synthetic_instances",
    "synthetic_scenes",
    "synthetic_shapes",
    "write_coco",
    "write_velodyne",
]
