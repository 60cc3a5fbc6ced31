"""Training and evaluating: loops and metrics."""

from fastcv.engine.segmentation import confusion_matrix, evaluate_segmentation, mean_iou, train_segmentation

__all__ = [
    "confusion_matrix",
    "evaluate_segmentation",
    "mean_iou",
    "train_segmentation",
]
