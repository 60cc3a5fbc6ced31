"""Augmentation of point clouds: callables ``transform(points, target, generator) -> (points, target)``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["turned"]


def turned(points: Tensor, target: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
    """Turn a cloud (N, 3 or more) around the z axis, by any angle, and give its points in another order.

    Parameters
    ----------
    points : Tensor (N, 3 or more)
        The cloud; columns behind the third stay as they are.
    target : int or Tensor (N,)
        Its label, or those of its points, which change places with them.
    generator : torch.Generator
        The same state gives the same cloud.
    """
    angle = 2 * math.pi * float(torch.rand((), generator=generator))
    order = torch.randperm(len(points), generator=generator)
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y, rest = points[:, 0], points[:, 1], points[:, 2:]
    moved = torch.cat([torch.stack([cosine * x - sine * y, sine * x + cosine * y], 1), rest], 1)
    return moved[order], target[order] if isinstance(target, Tensor) else target
