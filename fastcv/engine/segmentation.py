"""Metrics of segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["class_iou", "confusion_matrix", "mean_iou"]


def confusion_matrix(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Count pixels by their true class (row) and predicted class (column): int64 (num_classes, num_classes).

    Pixels whose true class is outside [0, num_classes) are ignored.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted must have the shape of truth {tuple(truth.shape)}, got {tuple(predicted.shape)}")
    known = (truth >= 0) & (truth < num_classes)
    pairs = truth[known] * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Return the IoU of each class, float64; NaN for classes that occur neither in predictions nor in truth."""
    hit = confusion.diagonal().double()
    return hit / (confusion.sum(0) + confusion.sum(1) - hit)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean IoU over the classes that occur in predictions or truth.

    ``confusion`` is a result of :func:`confusion_matrix`. NaN for a matrix of zeros.
    """
    return float(class_iou(confusion).nanmean())
