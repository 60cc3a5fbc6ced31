"""Synthetic clouds of solid shapes, for classifiers: ten classes in any size, pose and proportion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcv.data.clouds import CloudDataset
from fastcv.data.surfaces import Array, Faces, sample_surface, to_unit_ball

__all__ = ["SOLIDS", "SyntheticSolids", "synthetic_solids"]

Mesh = tuple[Array, Faces]
Random = np.random.Generator

_ROUND = 48  # straight pieces of a circle


def revolved(profile: Sequence[tuple[float, float]] | Array, closed: bool = False) -> Mesh:
    """Turn a line of (radius, height) around the z axis."""
    line = np.asarray(profile, dtype=np.float64)
    angle = np.arange(_ROUND) * (2 * math.pi / _ROUND)
    radius, height = line[:, :1], np.broadcast_to(line[:, 1:], (len(line), _ROUND))
    vertices = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 2).reshape(-1, 3)
    rows = np.arange(len(line) if closed else len(line) - 1)
    row, column = np.meshgrid(rows, np.arange(_ROUND), indexing="ij")
    below, above, right = row * _ROUND, (row + 1) % len(line) * _ROUND, (column + 1) % _ROUND
    quads = np.stack([below + column, below + right, above + right, above + column], 2).reshape(-1, 4)
    return vertices, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def extruded(outline: Sequence[tuple[float, float]] | Array, centre: tuple[float, float], height: float) -> Mesh:
    """Raise an outline, all of which is visible from its centre, to a solid of that height."""
    line = np.asarray(outline, dtype=np.float64)
    count = len(line)
    flat = np.concatenate([line, [centre]])
    low, high = (np.column_stack([flat, np.full(count + 1, z)]) for z in (-height / 2, height / 2))
    here, following = np.arange(count), (np.arange(count) + 1) % count
    cap = np.stack([here, following, np.full(count, count)], 1)
    up = count + 1
    sides = [np.stack([here, following, following + up], 1), np.stack([here, following + up, here + up], 1)]
    return np.concatenate([low, high]), np.concatenate([cap, cap + up, *sides])


def arc(radius: float, begin: float, end: float, pieces: int = 24) -> Array:
    """Return (radius, height) along a circle around the origin, angles from the equator."""
    angle = np.linspace(begin, end, pieces + 1)
    return radius * np.column_stack([np.cos(angle), np.sin(angle)])


def ball(random: Random) -> Mesh:
    vertices, faces = revolved(arc(1.0, -math.pi / 2, math.pi / 2))
    return vertices * random.uniform(0.8, 1.25, 3), faces


def box(random: Random) -> Mesh:
    x, y, z = random.uniform(0.5, 1.2, 3)
    return extruded([(-x, -y), (x, -y), (x, y), (-x, y)], (0, 0), 2 * z)


def cylinder(random: Random) -> Mesh:
    radius, height = random.uniform(0.4, 0.8), random.uniform(0.6, 1.2)
    return revolved([(0, -height), (radius, -height), (radius, height), (0, height)])


def cone(random: Random) -> Mesh:
    radius, height = random.uniform(0.5, 0.9), random.uniform(1.2, 2.0)
    return revolved([(0, 0), (radius, 0), (0, height)])


def torus(random: Random) -> Mesh:
    ring = arc(random.uniform(0.2, 0.4), 0, 2 * math.pi)[:-1]
    return revolved(ring + np.array([1.0, 0.0]), closed=True)


def pyramid(random: Random) -> Mesh:
    x, y, height = random.uniform(0.6, 1.0), random.uniform(0.6, 1.0), random.uniform(1.1, 1.8)
    base = [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0), (0, 0, height)]
    return np.array(base), np.array([[0, 1, 2], [0, 2, 3], [0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])


def bowl(random: Random) -> Mesh:
    rim, wall = random.uniform(-0.2, 0.35), random.uniform(0.05, 0.12)
    return revolved(np.concatenate([arc(1.0, -math.pi / 2, rim), arc(1.0 - wall, rim, -math.pi / 2)]))


def tube(random: Random) -> Mesh:
    inner, height = random.uniform(0.55, 0.8), random.uniform(0.8, 1.6)
    return revolved([(1.0, -height), (1.0, height), (inner, height), (inner, -height)], closed=True)


def stairs(random: Random) -> Mesh:
    steps, rise = int(random.integers(3, 6)), random.uniform(0.7, 1.1)
    outline = [(0.0, 0.0), (float(steps), 0.0)]
    for step in range(steps):
        outline += [(steps - step, rise * (step + 1)), (steps - step - 1, rise * (step + 1))]
    return extruded(outline, (0, 0), random.uniform(0.6, 1.2) * steps)


def star(random: Random) -> Mesh:
    tips, inner = int(random.integers(4, 8)), random.uniform(0.35, 0.55)
    angle = np.arange(2 * tips) * (math.pi / tips)
    radius = np.where(np.arange(2 * tips) % 2, inner, 1.0)[:, None]
    return extruded(radius * np.column_stack([np.cos(angle), np.sin(angle)]), (0, 0), random.uniform(0.3, 0.8))


SOLIDS: dict[str, Callable[[Random], Mesh]] = {
    shape.__name__: shape for shape in (ball, box, cylinder, cone, torus, pyramid, bowl, tube, stairs, star)
}


def rotation(random: Random, tilt: float, most: float = 360.0) -> Array:
    """Return a turn around the z axis by up to ``most`` degrees, then around a level axis by up to ``tilt`` degrees."""
    turn, direction = random.uniform(0, 2 * math.pi, 2) * [most / 360, 1]
    lowest = math.cos(math.radians(tilt))
    angle = math.acos(random.uniform(lowest, 1.0)) if tilt else 0.0  # as many poses per area of the sphere of up
    axis = np.array([math.cos(direction), math.sin(direction), 0.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    tilted = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    cosine, sine = math.cos(turn), math.sin(turn)
    turned: Array = tilted @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
    return turned


class SyntheticSolids(CloudDataset):
    """The data set that :func:`synthetic_solids` returns: ``data[i]`` is a cloud (N, 3) and its label."""

    def __init__(
        self,
        count: int,
        points: int,
        seed: int,
        noise: float,
        tilt: float,
        occlusion: float,
        first_label: int,
        turn: float = 360.0,
    ) -> None:
        for name, value, least in (("count", count, 0), ("points", points, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not 0 <= noise < 1:
            raise ValueError(f"noise must be from 0 to below 1, got {noise}")
        if not 0 <= tilt <= 180:
            raise ValueError(f"tilt must be from 0 to 180 degrees, got {tilt}")
        if not 0 <= turn <= 360:
            raise ValueError(f"turn must be from 0 to 360 degrees, got {turn}")
        if not 0 <= occlusion <= 0.9:
            raise ValueError(f"occlusion must be from 0 to 0.9, got {occlusion}")
        self.count, self.seed = count, seed
        self.points: int = points
        self.noise, self.tilt, self.occlusion, self.turn = noise, tilt, occlusion, turn
        self.first_label = first_label
        self.names = dict(enumerate(SOLIDS, first_label))
        self.task, self.model_options = "classification", {"in_channels": 3}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -self.count <= index < self.count:
            raise IndexError(f"index {index} is out of range for {self.count} clouds")
        index %= self.count
        random = np.random.default_rng([self.seed, index])
        label = index % len(SOLIDS)
        vertices, faces = list(SOLIDS.values())[label](random)
        vertices = vertices @ rotation(random, self.tilt, self.turn).T
        hidden = self.occlusion * random.random()
        cloud = sample_surface(vertices, faces, math.ceil(self.points / (1 - hidden)), random)
        cloud = self._visible(cloud, random)
        points = to_unit_ball(torch.from_numpy(cloud))
        points += self.noise * torch.from_numpy(random.normal(size=points.shape))
        return points.float(), label + self.first_label

    def _visible(self, cloud: Array, random: Random) -> Array:
        """Return what is left when the part that is farthest in some direction is cut away, in random order."""
        direction = random.normal(size=3)
        depth: NDArray[np.float64] = cloud @ direction
        return np.asarray(random.permutation(cloud[np.argsort(depth, kind="stable")[: self.points]]))


def synthetic_solids(
    count: int,
    points: int = 1024,
    seed: int = 0,
    noise: float = 0.02,
    tilt: float = 30.0,
    occlusion: float = 0.3,
    first_label: int = 0,
    turn: float = 360.0,
) -> SyntheticSolids:
    """Generate clouds of solid shapes: a data set for classifiers that needs no download.

    Each cloud has its own proportions, stands turned by any angle around the z axis and tilted, is cut off in a random
    direction, moved and scaled into the unit ball, and noisy. The same arguments give the same clouds, and a cloud
    depends on its index alone, not on ``count``.

    Parameters
    ----------
    count : int
        Number of clouds; the classes take turns.
    points : int
        Points of each cloud.
    seed : int
        Random seed; another seed gives other shapes.
    noise : float
        Standard deviation of the noise of x, y and z, where the cloud's radius is one.
    tilt : float
        Greatest angle between the shape's axis and z in degrees; 180 for any pose.
    occlusion : float
        Greatest part of the surface that is cut away, 0 to 0.9.
    first_label : int
        Label of the first class.
    turn : float
        Greatest turn around the z axis in degrees; 0 with a tilt of 0: every shape in the same pose.

    Returns
    -------
    Dataset
        ``data[i]`` is (points (N, 3) float32, label int); ``data.names`` the name of each label.

    Examples
    --------
    >>> data = synthetic_solids(20, points=256)
    >>> points, label = data[4]
    >>> points.shape, data.names[label]
    (torch.Size([256, 3]), 'torus')
    """
    return SyntheticSolids(count, points, seed, noise, tilt, occlusion, first_label, turn)
