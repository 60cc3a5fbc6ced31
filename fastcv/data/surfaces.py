"""Surfaces of triangles, points on them, and clouds brought to one size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["sample_surface", "to_unit_ball"]

Array = NDArray[np.float64]
Faces = NDArray[np.int64]


def sample_surface(vertices: Array, faces: Faces, count: int, generator: np.random.Generator) -> Array:
    """Return points on triangles, as many on each as its area is worth.

    Parameters
    ----------
    vertices : array (V, 3)
        Corners.
    faces : int array (F, 3)
        Which three make a triangle.
    count : int
        Number of points.
    generator : numpy.random.Generator
        The same state gives the same points.

    Returns
    -------
    array (count, 3)

    Raises
    ------
    ValueError
        If no triangle has an area.
    """
    corners = vertices[faces].astype(np.float64)
    first, along, across = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    ends = np.linalg.norm(np.cross(along, across), axis=1).cumsum()
    if not len(ends) or not 0 < ends[-1] < np.inf:
        raise ValueError("its faces have no area to put points on")
    chosen = np.minimum(np.searchsorted(ends, generator.random(count) * ends[-1], side="right"), len(ends) - 1)
    a, b = generator.random((2, count, 1))
    outside = a + b > 1  # the other half of the parallelogram
    a, b = np.where(outside, 1 - a, a), np.where(outside, 1 - b, b)
    points: Array = first[chosen] + a * along[chosen] + b * across[chosen]
    return points


def to_unit_ball(points: Tensor) -> Tensor:
    """Move a cloud's mean to the origin, and scale it into the ball of radius one, as networks for shapes expect it.

    Parameters
    ----------
    points : Tensor (..., N, 3 or more)
        Clouds; columns behind the third stay as they are.

    Returns
    -------
    Tensor of the same shape
        A cloud of a single place becomes zeros.

    Examples
    --------
    >>> to_unit_ball(torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 5.0]]))
    tensor([[ 0.,  0., -1.],
            [ 0.,  0.,  1.]])
    """
    if points.dim() < 2 or points.shape[-1] < 3 or points.shape[-2] == 0:
        raise ValueError(f"points must have shape (..., N, 3 or more) and N not 0, got {tuple(points.shape)}")
    xyz = points[..., :3] - points[..., :3].mean(-2, keepdim=True)
    radius = xyz.norm(dim=-1).amax(-1)[..., None, None]
    xyz = xyz / torch.where(radius > 0, radius, 1)
    return torch.cat([xyz, points[..., 3:]], -1)
