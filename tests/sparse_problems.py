"""Values and kernel maps for tests of sparse convolutions."""

from __future__ import annotations

import torch
from torch import Tensor


def random_values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_map(volume: int, inputs: int, outputs: int, seed: int = 0, density: float = 0.4) -> tuple[Tensor, Tensor]:
    """A map in which each input feeds at most one output through a kernel element, and its reverse."""
    generator = torch.Generator().manual_seed(seed)
    neighbours = torch.full((volume, outputs), -1, dtype=torch.int32)
    reverse = torch.full((volume, inputs), -1, dtype=torch.int32)
    for k in range(volume):
        pairs = int(density * min(inputs, outputs))
        source = torch.randperm(inputs, generator=generator)[:pairs]
        target = torch.randperm(outputs, generator=generator)[:pairs]
        neighbours[k, target] = source.int()
        reverse[k, source] = target.int()
    return neighbours, reverse
