"""Position-sensitive RoIPool in plain torch (Dai et al. 2016, "R-FCN", section 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ps_roi_pool(input: Tensor, boxes: Tensor, output_size: int | tuple[int, int], spatial_scale: float = 1.0) -> Tensor:
    """Pool boxes (K, 5) from input (N, C * P * Q, H, W) to (K, C, P, Q); differentiable in ``input``."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    channels = input.shape[1] // (bins_y * bins_x)
    zero = input.sum() * 0
    pooled = [zero + input.new_zeros(0, channels, bins_y, bins_x)]
    for box in boxes:
        scaled = (box[1:] * spatial_scale).tolist()
        cells = [zero + input.new_zeros(channels)] * (bins_y * bins_x)
        if all(math.isfinite(value) for value in scaled):
            x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(value) + 0.5), value)) for value in scaled)
            image = input[int(box[0])].unflatten(0, (channels, bins_y, bins_x))
            rows, columns = _bins(y1, y2, bins_y, input.shape[2], box), _bins(x1, x2, bins_x, input.shape[3], box)
            for index in range(bins_y * bins_x):
                p, q = divmod(index, bins_x)
                values = image[:, p, q, rows[p], columns[q]].flatten(1)
                if values.shape[1]:
                    cells[index] = values.mean(1)
        pooled.append(torch.stack(cells, 1).reshape(1, channels, bins_y, bins_x))
    return torch.cat(pooled)


def _bins(first: int, last: int, bins: int, size: int, like: Tensor) -> list[slice]:
    """Return the pixels of each bin of one axis; the last of the map belongs to none."""
    width = torch.tensor(max(last - first, 1), dtype=like.dtype) / bins
    edges = [(first + math.floor(float(i * width)), first + math.ceil(float((i + 1) * width))) for i in range(bins)]
    end = max(size - 1, 0)
    return [slice(min(max(low, 0), end), min(max(high, 0), end)) for low, high in edges]
