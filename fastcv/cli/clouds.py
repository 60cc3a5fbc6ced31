"""What the commands on point clouds share: reading a cloud, and pictures with depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcv.cli.errors import fail, reason
from fastcv.data import SOLIDS, labelled_street_scan, read_points, synthetic_solids

Array = NDArray[np.float64]

VIEW = (22.0, -58.0)  # elevation and azimuth in degrees
INK, PAPER = "#23262b", "#ffffff"
_LIGHT = np.array([-0.35, -0.55, 0.75]) / np.linalg.norm([-0.35, -0.55, 0.75])


def read_cloud(cloud: Path, columns: int | None, count: int | None, seed: int, drop_invalid: bool) -> Tensor:
    """Read a cloud from a file, or make the one of that name (``cone``, ``street``), or end the command.

    ``count`` is the number of points of surfaces; None for the usual.
    """
    if not cloud.exists() and cloud.name == str(cloud):
        if cloud.name in SOLIDS:
            number = list(SOLIDS).index(cloud.name)
            return synthetic_solids(number + 1, points=count or 4096, seed=seed, noise=0.008)[number][0]
        if cloud.name == "street":
            return labelled_street_scan(seed, 64, 1440)[0]
    try:
        return read_points(cloud, columns, count or 4096, seed, "drop" if drop_invalid else "raise")
    except FileNotFoundError:
        fail(f"there is no file {cloud}, and no such shape: those are {', '.join(SOLIDS)}, street")
    except OSError as error:
        fail(f"cannot read {cloud}: {reason(error)}")
    except ValueError as error:
        fail(str(error).replace("columns=", "--columns ").replace("pass invalid='drop'", "give --drop-invalid"))


def camera() -> Array:
    """Return the directions right, up and towards the eye of the pictures, as rows."""
    elevation, azimuth = np.radians(VIEW)
    towards = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


@dataclass(frozen=True)
class View:
    """What a picture shows: the ball around a cloud, and the part of the plane that it is drawn to."""

    middle: Array  # (3,)
    radius: float
    centre: Array  # (2,), on the picture
    half: Array  # (2,), half of the picture's width and height


def projected(points: Array, middle: Array, radius: float) -> tuple[Array, Array]:
    """Return places on the picture (N, 2), about -1 to 1, and nearness to the eye, 0 to 1.

    There is perspective: what is near is larger.
    """
    seen = (points - middle) @ camera().T / radius
    scale = 3.2 / (3.2 - seen[:, 2:])
    nearness: Array = np.clip((seen[:, 2] + 1) / 2, 0, 1)
    return seen[:, :2] * scale, nearness


def view_of(points: Array) -> View:
    """Return the view that shows a cloud at its largest; few stray points are let out."""
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    middle = (low + high) / 2
    radius = float(np.percentile(np.linalg.norm(points - middle, axis=1), 99.5))
    radius = radius or 1.0
    places, _ = projected(np.concatenate([points, _floor(points, radius)]), middle, radius)
    lowest, highest = np.percentile(places, [0.5, 99.5], axis=0)
    half = np.maximum((highest - lowest) / 2 * 1.25, 0.2)
    half = np.maximum(half, half[::-1] * 0.4)
    return View(middle, radius, (lowest + highest) / 2, half)


def _floor(points: Array, radius: float) -> Array:
    """Return the shadow of points on the floor a little below them."""
    shadow: Array = points.copy()
    shadow[:, 2] = np.percentile(points[:, 2], 0.5) - 0.04 * radius
    return shadow


def draw_points(axes: Any, points: Array, view: View) -> None:
    """Draw points: height as colour, nearness as size and strength, near ones over far ones, and a shadow below."""
    from matplotlib import colormaps

    if len(points) > 60_000:  # more make no other picture
        points = points[np.random.default_rng(0).permutation(len(points))[:60_000]]
    low, high = np.percentile(points[:, 2], [0.5, 99.5])
    size = float(np.clip(5e4 / len(points), 1.0, 60))
    shadow, _ = projected(_floor(points, view.radius), view.middle, view.radius)
    axes.scatter(*shadow.T, s=size * 1.5, c="#000000", alpha=float(np.clip(90 / len(points), 0.01, 0.1)), linewidths=0)
    place, near = projected(points, view.middle, view.radius)
    order = np.argsort(near)
    place, near, height = place[order], near[order], points[order, 2]
    shade = np.clip((height - low) / max(high - low, 1e-9), 0, 1)
    span = (near - near.min()) / max(float(np.ptp(near)), 1e-9)
    colour = colormaps["viridis"](0.04 + 0.86 * shade)[:, :3]
    haze = (0.62 * (1 - span))[:, None]  # far points fade into the paper
    colour = colour * (1 - haze) + 0.93 * haze
    edge = colour * 0.62
    axes.scatter(*place.T, s=size * (0.45 + 0.9 * span), c=colour, edgecolors=edge, linewidths=0.05 * size**0.5)
    _frame(axes, view)


def draw_voxels(axes: Any, grid: NDArray[np.bool_], low: Array, size: float, view: View) -> None:
    """Draw the faces of occupied voxels (x, y, z) that the eye can see, lit from the left above."""
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection

    padded = np.pad(grid, 1)
    towards = camera()[2]
    corners, normals, cells = [], [], []
    for axis in range(3):
        sign = 1 if towards[axis] > 0 else -1  # of two opposite faces one is seen
        hidden = np.roll(padded, -sign, axis)[1:-1, 1:-1, 1:-1]
        cell = np.argwhere(grid & ~hidden)
        square = np.zeros((4, 3))
        square[:, axis] = sign > 0
        square[:, [a for a in range(3) if a != axis]] = [(0, 0), (1, 0), (1, 1), (0, 1)]
        corners.append(cell[:, None] + square)
        normal = np.zeros(3)
        normal[axis] = sign
        normals.append(np.broadcast_to(normal, (len(cell), 3)))
        cells.append(cell)
    faces, normal, cell = np.concatenate(corners), np.concatenate(normals), np.concatenate(cells)
    if len(faces):
        places, near = projected((low + faces * size).reshape(-1, 3), view.middle, view.radius)
        depth = near.reshape(-1, 4).mean(1)
        order = np.argsort(depth)
        span = (depth - depth.min()) / max(float(np.ptp(depth)), 1e-9)
        height = cell[:, 2] - cell[:, 2].min()
        colour = colormaps["viridis"](0.04 + 0.86 * height / max(float(height.max()), 1.0))[:, :3]
        light = 0.5 + 0.55 * np.clip(normal @ _LIGHT, 0, 1)
        light = light * (0.72 + 0.28 * _openness(padded, cell, normal))
        colour = np.clip(colour * light[:, None], 0, 1)
        haze = (0.35 * (1 - span))[:, None]
        colour = colour * (1 - haze) + 0.93 * haze
        width = float(np.clip(60 / max(grid.shape), 0.1, 0.7))
        axes.add_collection(
            PolyCollection(
                list(places.reshape(-1, 4, 2)[order]),
                facecolors=colour[order],
                edgecolors=colour[order] * 0.72,
                linewidths=width,
            )
        )
    _frame(axes, view)


def _openness(padded: NDArray[np.bool_], cell: NDArray[np.int64], normal: Array) -> Array:
    """Return for each face how many of the nine voxels before it are empty, 0 to 1: corners become darker."""
    before = cell + 1 + normal.astype(np.int64)
    taken = np.zeros(len(cell))
    wide = np.pad(padded, 1)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            step = np.zeros_like(cell)
            flat = np.abs(normal) < 0.5  # the two axes along the face
            rows = np.arange(len(cell))
            first = flat.argmax(1)
            second = 2 - flat[:, ::-1].argmax(1)
            step[rows, first], step[rows, second] = i, j
            at = before + step + 1
            taken += wide[at[:, 0], at[:, 1], at[:, 2]]
    return 1 - taken / 9


def _frame(axes: Any, view: View) -> None:
    axes.set_xlim(view.centre[0] - view.half[0], view.centre[0] + view.half[0])
    axes.set_ylim(view.centre[1] - view.half[1], view.centre[1] + view.half[1])
    axes.set_aspect("equal")
    axes.axis("off")


def describe(points: Tensor) -> str:
    """Return a line on a cloud: points, columns, and size."""
    size = (points[:, :3].amax(0) - points[:, :3].amin(0)).tolist()
    return f"{len(points):,} points of {points.shape[1]} columns, {' x '.join(f'{side:.3g}' for side in size)}"


def as_array(points: Tensor) -> Array:
    """Return x, y and z in double precision."""
    return points[:, :3].to(torch.float64).numpy()
