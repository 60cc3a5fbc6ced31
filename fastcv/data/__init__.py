"""Readers, writers and generators of data."""

from fastcv.data.augmented import MixUp, Mosaic, Transformed
from fastcv.data.cloud_folder import CloudFolder
from fastcv.data.clouds import CloudDataset
from fastcv.data.coco import CocoDataset, coco_annotations, write_coco
from fastcv.data.dataset import DetectionDataset, summary
from fastcv.data.kitti import read_velodyne, write_velodyne
from fastcv.data.opening import open_dataset
from fastcv.data.point_files import POINT_FORMATS, read_points
from fastcv.data.scenes import synthetic_scenes
from fastcv.data.solids import SOLIDS, synthetic_solids
from fastcv.data.street import STREET_CLASSES, labelled_street_scan, street_scan, synthetic_streets
from fastcv.data.surfaces import sample_surface, to_unit_ball
from fastcv.data.synthetic_shapes import synthetic_instances, synthetic_shapes
from fastcv.data.voc import VocDataset
from fastcv.data.yolo_format import YoloDataset

__all__ = [
    "POINT_FORMATS",
    "SOLIDS",
    "STREET_CLASSES",
    "CloudDataset",
    "CloudFolder",
    "CocoDataset",
    "DetectionDataset",
    "MixUp",
    "Mosaic",
    "Transformed",
    "VocDataset",
    "YoloDataset",
    "coco_annotations",
    "labelled_street_scan",
    "open_dataset",
    "read_points",
    "read_velodyne",
    "sample_surface",
    "street_scan",
    "summary",
    "synthetic_instances",
    "synthetic_scenes",
    "synthetic_shapes",
    "synthetic_solids",
    "synthetic_streets",
    "to_unit_ball",
    "write_coco",
    "write_velodyne",
]
