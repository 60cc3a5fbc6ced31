"""RoIPool in plain torch (Girshick 2015, "Fast R-CNN", section 2.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def roi_pool(input: Tensor, boxes: Tensor, output_size: int | tuple[int, int], spatial_scale: float = 1.0) -> Tensor:
    """Pool boxes (K, 5) from input (N, C, H, W) to (K, C, P, Q); differentiable in ``input``."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    zero = input.sum() * 0 if torch.isfinite(input).all() else input.new_zeros(())
    pooled = [zero + input.new_zeros(0, input.shape[1], bins_y, bins_x)]
    for box in boxes:
        scaled = (box[1:] * spatial_scale).tolist()
        cells = zero + input.new_zeros(input.shape[1], bins_y, bins_x)
        if all(math.isfinite(value) for value in scaled):
            x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(value) + 0.5), value)) for value in scaled)
            rows = _bins(y1, y2, bins_y, input.shape[2], box)
            columns = _bins(x1, x2, bins_x, input.shape[3], box)
            image = input[int(box[0])]
            cells = torch.stack([torch.stack([_largest(image[:, r, c]) for c in columns], 1) for r in rows], 1)
        pooled.append(cells[None])
    return torch.cat(pooled)


def _bins(first: int, last: int, bins: int, size: int, like: Tensor) -> list[slice]:
    """Return the pixels of each bin of one axis."""
    width = torch.tensor(max(last - first + 1, 1), dtype=like.dtype) / bins
    edges = [(first + math.floor(float(i * width)), first + math.ceil(float((i + 1) * width))) for i in range(bins)]
    return [slice(min(max(low, 0), size), min(max(high, 0), size)) for low, high in edges]


def _largest(values: Tensor) -> Tensor:
    """Return the largest of (C, h, w) per channel; NaN is passed over, of equal values the first counts."""
    if values[0].numel() == 0:
        return values.sum((1, 2))
    lowest = torch.finfo(torch.float32).min
    flat = values.flatten(1)
    known = torch.where(flat > lowest, flat.detach(), torch.tensor(-math.inf, dtype=flat.dtype))
    best = (known == known.max(1, keepdim=True).values).long().argmax(1, keepdim=True)
    value = flat.gather(1, best)[:, 0]
    return torch.where(known.max(1).values > lowest, value, torch.full_like(value, lowest))
