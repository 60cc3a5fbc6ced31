"""Changes of point clouds with their labels. All random numbers come from the generator given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv.data.objects import uniform
from fastcv.data.transforms import Compose

__all__ = ["JitterPoints", "PointDropout", "RotateZ", "ScalePoints", "ShufflePoints", "cloud_augmentation"]


class RotateZ:
    """Turn a cloud around the z axis. Columns behind the third stay as they are.

    Parameters
    ----------
    most : float
        Greatest angle in degrees, to either side; 180 for any direction.
    """

    def __init__(self, most: float = 180.0) -> None:
        if not 0 <= most <= 180:
            raise ValueError(f"most must be 0 to 180 degrees, got {most}")
        self.most = most

    def __call__(self, points: Tensor, target: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        angle = math.radians(uniform(-self.most, self.most, generator))
        cosine, sine = math.cos(angle), math.sin(angle)
        x, y = points[:, 0], points[:, 1]
        turned = torch.stack([cosine * x - sine * y, sine * x + cosine * y], 1)
        return torch.cat([turned, points[:, 2:]], 1), target


class ScalePoints:
    """Scale x, y and z by one random factor, spread evenly in its logarithm.

    Parameters
    ----------
    least, most : float
        Range of the factor.
    """

    def __init__(self, least: float = 0.8, most: float = 1.25) -> None:
        if not 0 < least <= most < math.inf:
            raise ValueError(f"least and most must be positive and in order, got {least} and {most}")
        self.least, self.most = least, most

    def __call__(self, points: Tensor, target: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        factor = self.least * (self.most / self.least) ** uniform(0, 1, generator)
        return torch.cat([points[:, :3] * factor, points[:, 3:]], 1), target


class JitterPoints:
    """Move each point a little: by normal noise along x, y and z.

    Parameters
    ----------
    deviation : float
        Standard deviation, in the unit of the points.
    most : float
        What is farther is moved by this.
    """

    def __init__(self, deviation: float = 0.01, most: float = 0.05) -> None:
        if not 0 <= deviation <= most:
            raise ValueError(f"deviation and most must not be negative and in order, got {deviation} and {most}")
        self.deviation, self.most = deviation, most

    def __call__(self, points: Tensor, target: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        noise = self.deviation * torch.randn(len(points), 3, generator=generator)
        noise = noise.clamp(-self.most, self.most).to(points)
        return torch.cat([points[:, :3] + noise, points[:, 3:]], 1), target


class PointDropout:
    """Leave out points, as if something hid them or the sensor had missed them; how many is random.

    The first point that is left stands in for those that are not, with its label: the number of points stays, so that
    clouds make a batch.

    Parameters
    ----------
    most : float
        Greatest part that is left out, 0 to below 1.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.3, which drops up to 0.95.
    """

    def __init__(self, most: float = 0.5) -> None:
        if not 0 <= most < 1:
            raise ValueError(f"most must be from 0 to below 1, got {most}")
        self.most = most

    def __call__(self, points: Tensor, target: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        part = uniform(0, self.most, generator)
        kept = torch.rand(len(points), generator=generator) >= part
        first = int(kept.long().argmax())  # 0 where none is left
        chosen = torch.where(kept, torch.arange(len(points)), first)
        return points[chosen], target[chosen] if isinstance(target, Tensor) else target


class ShufflePoints:
    """Give the points in another order, and their labels with them.

    Networks that choose points by their order (:class:`fastcv.models.pointcloud.PointNet2`) see other choices.
    """

    def __call__(self, points: Tensor, target: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        order = torch.randperm(len(points), generator=generator)
        return points[order], target[order] if isinstance(target, Tensor) else target


def cloud_augmentation(name: str) -> Compose | None:
    """Return the augmentation of ``fastcv train --augment``: "none", "turn" or "strong"."""
    turn: Sequence[Any] = [RotateZ(), ShufflePoints()]
    if name == "strong":
        return Compose([*turn, ScalePoints(0.9, 1.1), JitterPoints(), PointDropout()])
    return None if name == "none" else Compose(turn)
