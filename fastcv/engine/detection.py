"""Precision, recall and confusion of detections at one score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcv.ops import box_iou

__all__ = ["DetectionScore", "detection_confusion", "evaluate_detection", "scores_for_metrics"]

_LEAST_SCORE = 0.005  # Darknet's own for YOLO's metrics
_LEAST_SCORE_OF_RCNN = 0.05  # torchvision's

Targets = Sequence[dict[str, Tensor]]


class DetectionScore(NamedTuple):
    """Precision and recall of detections; NaN where there are no detections or no objects."""

    precision: float
    recall: float


@contextmanager
def scores_for_metrics(model: nn.Module) -> Iterator[None]:
    """Let a detector find in the block what has low scores, too: average precision is over all of the curve."""
    heads: Any = getattr(model, "roi_heads", None)
    owner, least = (model, _LEAST_SCORE) if heads is None else (heads, _LEAST_SCORE_OF_RCNN)
    own = getattr(owner, "score_thresh", None)
    if not isinstance(own, float | int):  # a detector of someone else
        yield
        return
    owner.score_thresh = min(own, least)
    try:
        yield
    finally:
        owner.score_thresh = own


@torch.no_grad()
def evaluate_detection(
    model: nn.Module,
    images: Sequence[Tensor],
    targets: Targets,
    *,
    score: float = 0.5,
    overlap: float = 0.5,
    batch_size: int = 8,
) -> tuple[DetectionScore, list[dict[str, Any]]]:
    """Return precision and recall, and the detections of each image.

    Detections with a score below ``score`` are ignored. The others are matched by descending score: a detection is
    correct if its IoU with an object of the same label, not yet matched, is at least ``overlap``; it is matched to the
    object with the largest IoU. The model is left in evaluation mode.
    """
    model.eval()
    found: list[dict[str, Tensor]] = []
    for first in range(0, len(images), batch_size):
        found += model(list(images[first : first + batch_size]))
    right = 0
    for index, (finding, target) in enumerate(zip(found, targets, strict=True)):
        found[index] = finding = {name: value[finding["scores"] >= score] for name, value in finding.items()}
        free = box_iou(finding["boxes"], target["boxes"])
        free[finding["labels"][:, None] != target["labels"][None]] = 0
        for row in range(len(free) if free.shape[1] else 0):  # scores descend
            best = int(free[row].argmax())
            if free[row, best] >= overlap:
                right += 1
                free[:, best] = 0
    findings, objects = (sum(len(each["labels"]) for each in several) for several in (found, targets))
    share = [right / count if count else float("nan") for count in (findings, objects)]
    return DetectionScore(*share), found


def detection_confusion(
    images: Sequence[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]],
    labels: Sequence[int],
    *,
    score: float = 0.5,
    overlap: float = 0.5,
) -> Tensor:
    """Count objects by their label (row) and the label they are found as (column).

    Parameters
    ----------
    images : sequence of tuples
        For each image boxes (N, 4) and labels (N,) of the objects, and boxes (D, 4), labels (D,) and scores (D,) of the
        detections. Those with a score below ``score`` are ignored.
    labels : sequence of int
        All labels, in the order of rows and columns; others are ignored.
    overlap : float
        Least IoU of an object and its detection. Pairs are made by descending IoU, whatever their labels.

    Returns
    -------
    Tensor (L + 1, L + 1)
        int64. The last column counts objects that are not found, the last row detections of nothing.
    """
    place = {label: index for index, label in enumerate(labels)}
    nothing = len(labels)
    confusion = torch.zeros(nothing + 1, nothing + 1, dtype=torch.int64)
    for truth, truth_labels, boxes, found_labels, scores in images:
        kept = scores >= score
        rows = [place.get(int(label), -1) for label in truth_labels]
        columns = [place.get(int(label), -1) for label in found_labels[kept]]
        iou = box_iou(truth.float(), boxes[kept].float())
        free_rows, free_columns = set(range(len(rows))), set(range(len(columns)))
        pairs = (iou >= overlap).nonzero().tolist()
        for row, column in sorted(pairs, key=lambda pair: -float(iou[pair[0], pair[1]])):
            if row in free_rows and column in free_columns:
                free_rows.remove(row)
                free_columns.remove(column)
                if rows[row] >= 0 and columns[column] >= 0:
                    confusion[rows[row], columns[column]] += 1
        for row in free_rows:
            if rows[row] >= 0:
                confusion[rows[row], nothing] += 1
        for column in free_columns:
            if columns[column] >= 0:
                confusion[nothing, columns[column]] += 1
    return confusion
