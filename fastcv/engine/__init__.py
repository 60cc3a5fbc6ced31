"""Training and evaluation: loops and metrics."""

from fastcv.engine.detection import DetectionScore, evaluate_detection, train_detection
from fastcv.engine.segmentation import confusion_matrix, evaluate_segmentation, mean_iou, train_segmentation

__all__ = [
    "DetectionScore",
    "confusion_matrix",
    "evaluate_detection",
    "evaluate_segmentation",
    "mean_iou",
    "train_detection",
    "train_segmentation",
]
