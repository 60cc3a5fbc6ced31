"""Soft-NMS in plain torch (Bodla, Singh, Chellappa, Davis 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcv.reference.nms import overlap_with


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
) -> tuple[Tensor, Tensor]:
    """Return the boxes (N, 4) in the order in which they are taken, as indices, and their decayed scores."""
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    boxes, left = boxes.to(dtype), scores.to(dtype).clone()
    kept, kept_scores = [], []
    while True:
        (candidates,) = torch.where(left >= min_score)
        if len(candidates) == 0:
            break
        best = candidates[int(torch.where(left[candidates] == left[candidates].max())[0][0])]
        kept.append(int(best))
        kept_scores.append(float(left[best]))
        overlap = overlap_with(boxes[best], boxes)
        if method == "linear":
            weight = torch.where(overlap.double() > iou_threshold, 1 - overlap, 1.0)
        else:
            weight = torch.where(overlap > 0, torch.exp(-(overlap**2) / sigma), 1.0)
        left *= weight
        left[best] = float("nan")  # out, like all that are not at least min_score
        left[~(left >= min_score)] = float("nan")
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(kept_scores, dtype=dtype).to(scores.dtype)
