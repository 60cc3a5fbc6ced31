"""RoIAlign from a feature pyramid in plain torch (Lin et al. 2017, "Feature Pyramid Networks", section 4.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastcv.reference.roi_align import roi_align


def roi_levels(boxes: Tensor, canonical_scale: float = 224, canonical_level: int = 4) -> Tensor:
    """Return the level of each box (K, 5), equation 1 of the paper, in the dtype of the boxes; not clamped."""
    area = (boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])
    return torch.floor(canonical_level + torch.log2(area.sqrt() / canonical_scale) + torch.tensor(1e-6).to(boxes))


def multiscale_roi_align(
    features: list[Tensor],
    boxes: Tensor,
    output_size: int | tuple[int, int],
    scales: list[float],
    sampling_ratio: int = -1,
    aligned: bool = False,
    canonical_scale: float = 224,
    canonical_level: int = 4,
) -> Tensor:
    """Pool boxes (K, 5) from features, each (N, C, H, W), to (K, C, P, Q); differentiable in ``features``."""
    first, last = int(-math.log2(scales[0])), int(-math.log2(scales[-1]))
    levels = roi_levels(boxes, canonical_scale, canonical_level)
    bins = (output_size, output_size) if isinstance(output_size, int) else output_size
    zeros = sum(feature.sum() * 0 for feature in features) + features[0].new_zeros(1, features[0].shape[1], *bins)
    pooled = []
    for box, level in zip(boxes, levels.tolist(), strict=True):
        index = 0 if len(features) == 1 else None if math.isnan(level) else max(first, min(last, level)) - first
        if index is None or index >= len(features):
            pooled.append(zeros)
        else:
            index = int(index)
            arguments = (output_size, scales[index], sampling_ratio, aligned)
            pooled.append(zeros + roi_align(features[index], box[None], *arguments))
    return torch.cat([zeros[:0], *pooled])
