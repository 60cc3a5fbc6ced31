"""The YOLO family: Darknet's configurations and weights, read, written and run."""

from fastcv.models.yolo.anchors import fit_anchors
from fastcv.models.yolo.builders import yolo_v1, yolov2_tiny, yolov3_tiny
from fastcv.models.yolo.config import DarknetConfig, Section, make_config, parse_config, read_config, write_config
from fastcv.models.yolo.detector import YOLO
from fastcv.models.yolo.heads import DetectionHead, Head, RegionHead, YOLOHead
from fastcv.models.yolo.losses import Truth
from fastcv.models.yolo.network import DarknetNetwork
from fastcv.models.yolo.transform import letterbox, stretch
from fastcv.models.yolo.weights import DarknetWeights, WeightsHeader, read_weights, write_weights

__all__ = [
    "YOLO",
    "DarknetConfig",
    "DarknetNetwork",
    "DarknetWeights",
    "DetectionHead",
    "Head",
    "RegionHead",
    "Section",
    "Truth",
    "WeightsHeader",
    "YOLOHead",
    "fit_anchors",
    "letterbox",
    "make_config",
    "parse_config",
    "read_config",
    "read_weights",
    "stretch",
    "write_config",
    "write_weights",
    "yolo_v1",
    "yolov2_tiny",
    "yolov3_tiny",
]
