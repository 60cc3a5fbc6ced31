"""Features and boxes for the tests of pooling operators."""

from __future__ import annotations

import torch
from torch import Tensor


def random_boxes(count: int, batch: int, height: float, width: float, seed: int = 0) -> Tensor:
    """Boxes of all sizes, some of them partly or wholly outside the image, some on half pixels."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 4, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    corners *= torch.tensor([width, height, width, height], dtype=torch.float64)
    corners[::3] = corners[::3].floor() + 0.5
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    index = torch.randint(0, batch, (count, 1), generator=generator).double()
    return torch.cat([index, low, high], dim=1)


def random_input(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
