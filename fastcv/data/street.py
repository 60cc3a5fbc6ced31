"""Synthetic LiDAR scans of streets: rays cast against boxes, cylinders, spheres and the ground."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcv.data.clouds import CloudDataset, choose_points

__all__ = ["STREET_CLASSES", "SyntheticStreets", "labelled_street_scan", "street_scan", "synthetic_streets"]

Array = NDArray[np.float64]

STREET_CLASSES = ("ground", "building", "car", "person", "pole", "vegetation")
GROUND, BUILDING, CAR, PERSON, POLE, VEGETATION = range(len(STREET_CLASSES))
SCANNER_HEIGHT = 1.73  # metres above the road, as on KITTI's car
FARTHEST = 120.0
TOP, BOTTOM = np.radians(2.0), np.radians(-24.8)  # elevations of an HDL-64E
KERB, ROAD = 0.12, 4.5  # height of the pavement, half of the road's width
RANGE_NOISE, LEAF_NOISE = 0.015, 0.12
_NEVER = np.inf
_KEPT = 300  # scans that a data set keeps: each takes longer to make than a network to learn from it

# For networks on voxels: all that a scan reaches, in whatever direction it is turned.
STREET_MODEL_OPTIONS: dict[str, Any] = {
    "in_channels": 4,
    "voxel_size": [0.25, 0.25, 0.25],
    "point_cloud_range": [-128.0, -128.0, -3.0, 128.0, 128.0, 5.0],
    "height": 2.0,
}


@dataclass(frozen=True)
class Scene:
    """The objects of a street, in metres from the scanner: x along the street, y to the left, z up."""

    boxes: Array  # (N, 7): low x, y, z, high x, y, z, reflectance
    cylinders: Array  # (N, 6): centre x, y, radius, low z, high z, reflectance
    spheres: Array  # (N, 5): centre x, y, z, radius, reflectance
    labels: dict[str, Array] = field(default_factory=dict)  # of each, by the names above; else ground


def make_scene(generator: np.random.Generator) -> Scene:
    """Build a street: house fronts on both sides, parked and driving cars, poles, people, trees and bushes."""
    ground = -SCANNER_HEIGHT
    pavement = ground + KERB
    boxes, cylinders, spheres = [], [], []  # each with its class behind
    for side in (-1.0, 1.0):
        x = -110.0
        while x < 110:  # houses, now and then with an alley between them
            width, height = generator.uniform(8, 18), generator.uniform(6, 16)
            front = side * generator.uniform(8.0, 10.5)
            low, high = sorted((front, front + side * 12))
            reflectance = generator.uniform(0.15, 0.5)
            boxes.append([x, low, ground, x + width, high, ground + height, reflectance, BUILDING])
            for door in np.arange(x + 2, x + width - 2, 3.2):  # bays that stand out a little
                bay_low, bay_high = sorted((front, front - side * 0.35))
                boxes.append(
                    [door, bay_low, pavement, door + 1.1, bay_high, pavement + 2.3, reflectance * 0.6, BUILDING]
                )
            x += width + (generator.uniform(3, 6) if generator.random() < 0.3 else 0.0)
        x = -60 + generator.uniform(0, 4)
        while x < 70:  # cars along the kerb
            if generator.random() < 0.75 and abs(x) > 4:
                boxes += make_car(generator, x, side * generator.uniform(3.3, 3.6))
            x += generator.uniform(5.5, 8.5)
        for x in np.arange(-90, 91, 22.5) + generator.uniform(-3, 3):
            cylinders.append([x, side * (ROAD + 0.6), 0.09, ground, ground + 6.5, 0.55, POLE])
    for x in (-27.0, 14.0, 41.0):
        boxes += make_car(generator, x + generator.uniform(-4, 4), generator.choice([-1.4, 1.4]))
    for _ in range(14):  # people on the pavement
        x, y = generator.uniform(-35, 45), generator.choice([-1, 1]) * generator.uniform(5.2, 7.4)
        height, reflectance = generator.uniform(1.3, 1.65), generator.uniform(0.2, 0.6)
        for leg in (-0.1, 0.1):
            cylinders.append([x + leg, y, 0.08, pavement, pavement + 0.5 * height, reflectance, PERSON])
        cylinders.append([x, y, 0.21, pavement + 0.5 * height, pavement + height, reflectance, PERSON])
        spheres.append([x, y, pavement + height + 0.1, 0.12, 0.4, PERSON])
    for side in (-1.0, 1.0):
        for x in np.arange(-78, 79, 26.0) + generator.uniform(-5, 5):
            if generator.random() < 0.8:
                trunk, leaves = make_tree(generator, x, side * generator.uniform(5.6, 6.6))
                cylinders.append(trunk)
                spheres += leaves
        for x in generator.uniform(-60, 60, 5):  # bushes before the houses
            for _ in range(4):
                place = [x + generator.uniform(-0.8, 0.8), side * generator.uniform(7.2, 7.9), pavement + 0.35]
                spheres.append([*place, generator.uniform(0.3, 0.6), generator.uniform(0.2, 0.45), VEGETATION])
    rows = {"boxes": np.array(boxes), "cylinders": np.array(cylinders), "spheres": np.array(spheres)}
    shapes = {name: values[:, :-1] for name, values in rows.items()}
    return Scene(**shapes, labels={name: values[:, -1] for name, values in rows.items()})


def make_tree(generator: np.random.Generator, x: float, y: float) -> tuple[list[float], list[list[float]]]:
    """Return a trunk, and the balls of leaves that are its crown."""
    ground = KERB - SCANNER_HEIGHT
    height, spread = generator.uniform(2.2, 3.2), generator.uniform(0.9, 1.4)
    crown = []
    for _ in range(12):
        away = generator.normal(0, 0.45 * spread, 3)
        centre = [x + away[0], y + away[1], ground + height + spread + away[2]]
        crown.append([*centre, generator.uniform(0.3, 0.7), generator.uniform(0.2, 0.45), VEGETATION])
    return [x, y, generator.uniform(0.12, 0.2), ground, ground + height + spread, 0.3, VEGETATION], crown


def make_car(generator: np.random.Generator, x: float, y: float) -> list[list[float]]:
    """Return the boxes of a car, each with its class behind: body, cabin and four wheels."""
    ground = -SCANNER_HEIGHT
    length, width = generator.uniform(3.8, 4.7), generator.uniform(1.7, 1.85)
    paint = generator.uniform(0.1, 0.8)
    parts = [
        [x - length / 2, y - width / 2, ground + 0.3, x + length / 2, y + width / 2, ground + 0.85, paint, CAR],
        [
            x - 0.3 * length,
            y - 0.45 * width,
            ground + 0.85,
            x + 0.2 * length,
            y + 0.45 * width,
            ground + 1.45,
            0.1,
            CAR,
        ],
    ]
    for dx in (-0.32 * length, 0.32 * length):
        for dy in (-width / 2, width / 2 - 0.2):
            parts.append([x + dx - 0.3, y + dy, ground, x + dx + 0.3, y + dy + 0.2, ground + 0.6, 0.05, CAR])
    return parts


def _hit_box(rays: Array, box: Array) -> Array:
    """Distance along each ray (3, R) from the origin to a box, by slabs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = box[:3, None] / rays, box[3:6, None] / rays
    enter = np.minimum(near, far).max(axis=0)
    leave = np.maximum(near, far).min(axis=0)
    return np.where((enter <= leave) & (enter > 0), enter, _NEVER)


def _hit_cylinder(rays: Array, cylinder: Array) -> Array:
    """Distance to the side of an upright cylinder."""
    x, y, radius, low, high, _ = cylinder
    a = rays[0] ** 2 + rays[1] ** 2
    b = rays[0] * x + rays[1] * y
    root = b * b - a * (x * x + y * y - radius * radius)
    distance = (b - np.sqrt(np.maximum(root, 0))) / a
    z = distance * rays[2]
    return np.where((root > 0) & (distance > 0) & (z >= low) & (z <= high), distance, _NEVER)


def _hit_sphere(rays: Array, sphere: Array) -> Array:
    """Distance to a sphere; rays are of length one."""
    centre, radius = sphere[:3], sphere[3]
    b = centre @ rays
    root = b * b - centre @ centre + radius * radius
    distance = b - np.sqrt(np.maximum(root, 0))
    return np.where((root > 0) & (distance > 0), distance, _NEVER)


def _hit_ground(rays: Array) -> Array:
    """Distance to the road, or to the pavement beside it."""
    with np.errstate(divide="ignore"):
        road = np.where(rays[2] < 0, -SCANNER_HEIGHT / rays[2], _NEVER)
        pavement = np.where(rays[2] < 0, (KERB - SCANNER_HEIGHT) / rays[2], _NEVER)
    with np.errstate(divide="ignore", invalid="ignore"):
        on_pavement = np.abs(pavement * rays[1]) > ROAD
        kerb = np.where(~on_pavement & (np.abs(road * rays[1]) > ROAD), ROAD / np.abs(rays[1]), road)
    return np.where(on_pavement, pavement, kerb)


def cast(rays: Array, scene: Scene) -> tuple[Array, Array]:
    """Return the distance to the first hit of each ray (3, R) of length one, and its reflectance."""
    return cast_labelled(rays, scene)[:2]


def cast_labelled(rays: Array, scene: Scene) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return what :func:`cast` does, and the number of the class in :data:`STREET_CLASSES`."""
    distance = _hit_ground(rays)
    with np.errstate(invalid="ignore"):
        on_road = np.abs(distance * rays[1]) < ROAD
    reflectance = np.where(on_road, 0.12, 0.25)
    azimuth = np.arctan2(rays[1], rays[0])
    labels = np.full(distance.shape, GROUND, dtype=np.int64)
    for name, hit in (("boxes", _hit_box), ("cylinders", _hit_cylinder), ("spheres", _hit_sphere)):
        shapes: Array = getattr(scene, name)
        for shape, label in zip(shapes, scene.labels.get(name, np.zeros(len(shapes))), strict=True):
            chosen = _towards(azimuth, shape, hit is _hit_box)
            found = hit(rays[:, chosen], shape)
            closer = found < distance[chosen]
            where = np.flatnonzero(chosen)[closer]
            distance[where] = found[closer]
            reflectance[where] = shape[-1]
            labels[where] = int(label)
    return distance, reflectance, labels


def _towards(azimuth: Array, shape: Array, is_box: bool) -> NDArray[np.bool_]:
    """Whether a ray can hit a shape, judged by its horizontal direction."""
    if is_box:
        corners = [(x, y) for x in shape[[0, 3]] for y in shape[[1, 4]]]
        if shape[0] < 0 < shape[3] and shape[1] < 0 < shape[4]:
            return np.ones(azimuth.shape, dtype=bool)
        middle = np.arctan2(shape[1] + shape[4], shape[0] + shape[3])
        angles = np.array([np.arctan2(y, x) for x, y in corners])
        reach = np.abs((angles - middle + np.pi) % (2 * np.pi) - np.pi).max() + 0.01
    else:
        radius = shape[2] if len(shape) == 6 else shape[3]
        middle = np.arctan2(shape[1], shape[0])
        reach = float(np.arcsin(min(1.0, radius / np.hypot(shape[0], shape[1])))) + 0.01
    return np.asarray(np.abs((azimuth - middle + np.pi) % (2 * np.pi) - np.pi) <= reach)


def street_scan(seed: int = 0, rings: int = 64, columns: int = 1920) -> Tensor:
    """Generate a scan of a synthetic street by a rotating LiDAR.

    Parameters
    ----------
    seed
        Seed of the street and the noise: the same seed gives the same scan.
    rings
        Number of lasers, at elevations from 2 to -24.8 degrees.
    columns
        Directions per revolution.

    Returns
    -------
    Tensor (P, 4)
        float32: x forward, y left, z up in metres from the scanner, reflectance in [0, 1]. Ring by ring from the top,
        each counter-clockwise. Rays without a hit within 120 m give no point, and one in fifty is dropped: the
        defaults give about 120 000 points.
    """
    return labelled_street_scan(seed, rings, columns)[0]


def labelled_street_scan(seed: int = 0, rings: int = 64, columns: int = 1920) -> tuple[Tensor, Tensor]:
    """Generate the scan of :func:`street_scan`, and the class of each point.

    Parameters
    ----------
    seed, rings, columns
        As in :func:`street_scan`.

    Returns
    -------
    points : Tensor (P, 4)
        As :func:`street_scan` gives them.
    labels : Tensor (P,)
        int64: the place in :data:`STREET_CLASSES`: ground, building, car, person, pole, vegetation.
    """
    if rings < 1 or columns < 1:
        raise ValueError(f"rings and columns must be positive, got {rings} and {columns}")
    generator = np.random.default_rng(seed)
    scene = make_scene(generator)
    elevation = np.linspace(TOP, BOTTOM, rings)[:, None]
    azimuth = np.linspace(-np.pi, np.pi, columns, endpoint=False)[None, :] + 1e-4
    rays = np.stack(
        [
            (np.cos(elevation) * np.cos(azimuth)).ravel(),
            (np.cos(elevation) * np.sin(azimuth)).ravel(),
            np.broadcast_to(np.sin(elevation), (rings, columns)).ravel(),
        ]
    )
    distance, reflectance, labels = cast_labelled(rays, scene)
    kept = (distance < FARTHEST) & (generator.random(distance.shape) > 0.02)
    labels = labels[kept]
    deviation = np.where(labels == VEGETATION, LEAF_NOISE, RANGE_NOISE)  # leaves let a ray in
    noisy = distance[kept] + deviation * generator.normal(0, 1, len(labels))
    reflectance = np.clip(reflectance[kept] + generator.normal(0, 0.03, noisy.shape), 0, 1)
    points = np.column_stack([(rays[:, kept] * noisy).T, reflectance]).astype(np.float32)
    return torch.from_numpy(points), torch.from_numpy(labels)


class SyntheticStreets(CloudDataset):
    """The data set that :func:`synthetic_streets` returns: ``data[i]`` is a scan (P, 4) and its labels (P,)."""

    def __init__(
        self, count: int, seed: int, rings: int, columns: int, first_label: int, points: int | None = None
    ) -> None:
        least = {"count": 0, "seed": 0, "rings": 1, "columns": 1, "points": 1}
        given = {"count": count, "seed": seed, "rings": rings, "columns": columns, "points": points}
        for name, value in given.items():
            if value is not None and value < least[name]:
                raise ValueError(f"{name} must be at least {least[name]}, got {value}")
        self.count, self.seed, self.rings, self.columns, self.points = count, seed, rings, columns, points
        self.task, self.model_options = "point-segmentation", dict(STREET_MODEL_OPTIONS)
        self.first_label = first_label
        self.names = dict(enumerate(STREET_CLASSES, first_label))
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -self.count <= index < self.count:
            raise IndexError(f"index {index} is out of range for {self.count} scans")
        index %= self.count
        points, labels = self._made.get(index) or self._make(index)
        if len(self._made) < _KEPT:
            self._made[index] = points, labels
        return points.clone(), labels.clone()

    def _make(self, index: int) -> tuple[Tensor, Tensor]:
        seed = np.random.SeedSequence([self.seed, index]).generate_state(1)[0]
        points, labels = labelled_street_scan(int(seed), self.rings, self.columns)
        if self.points is not None:
            chosen = choose_points(len(points), self.points, np.random.default_rng([self.seed, index]))
            points, labels = points[chosen], labels[chosen]
        return points, labels + self.first_label


def synthetic_streets(
    count: int, seed: int = 0, rings: int = 32, columns: int = 720, first_label: int = 0, points: int | None = None
) -> SyntheticStreets:
    """Generate labelled scans of streets: a data set for networks that label points, without a download.

    The same arguments give the same scans, and a scan depends on its index alone, not on ``count``.

    Parameters
    ----------
    count : int
        Number of scans, each of another street.
    seed : int
        Random seed.
    rings, columns : int
        As in :func:`street_scan`; the defaults give about 21 000 points.
    first_label : int
        Label of the ground, the first of :data:`STREET_CLASSES`.
    points : int, optional
        Points to choose from each scan at random, for networks that take clouds of one size. Default: all.

    Returns
    -------
    Dataset
        ``data[i]`` is (points (P, 4) float32, labels (P,) int64); ``data.names`` the name of each label.

    Examples
    --------
    >>> data = synthetic_streets(2, rings=16, columns=180)
    >>> points, labels = data[0]
    >>> points.shape[1], labels.shape == points.shape[:1], data.names[2]
    (4, True, 'car')
    """
    return SyntheticStreets(count, seed, rings, columns, first_label, points)
