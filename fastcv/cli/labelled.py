"""A picture of a cloud whose points have classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from fastcv.cli.clouds import INK, as_array, projected, view_of

__all__ = ["draw_labels"]

_COLOURS = (
    "#9aa0a6",
    "#b5651d",
    "#1f77b4",
    "#d62728",
    "#f2b701",
    "#2e8b57",
    "#9467bd",
    "#17becf",
    "#e377c2",
    "#393b79",
)
_SHOWN = 0.85  # of the points, those nearest to the middle: a scan reaches far, and most of it lies near


def draw_labels(points: Tensor, labels: Tensor, names: Mapping[int, str], title: str, output: Path) -> None:
    """Draw points in the colours of their classes, near ones larger, stronger and over far ones.

    Parameters
    ----------
    points : Tensor (P, 3 or more)
    labels : Tensor (P,)
    names : dict
        Name of each label, for the legend.
    title : str
    output : path
        PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import to_rgb

    xyz, of_point = as_array(points), labels.numpy()
    away = np.linalg.norm(xyz[:, :2] - np.median(xyz[:, :2], axis=0), axis=1)
    shown = away <= np.quantile(away, _SHOWN)
    xyz, of_point = xyz[shown], of_point[shown]
    view = view_of(xyz)
    width = 12.0
    figure = plt.figure(figsize=(width, float(np.clip(width * view.half[1] / view.half[0], 4, 9)) + 0.6))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.9))
    place, near = projected(xyz, view.middle, view.radius)
    order = np.argsort(near)
    place, near, of_point = place[order], near[order], of_point[order]
    palette = np.array([to_rgb(_COLOURS[label % len(_COLOURS)]) for label in range(max(names) + 1)])
    span = (near - near.min()) / max(float(np.ptp(near)), 1e-9)
    haze = (0.6 * (1 - span))[:, None]  # far points fade into the paper
    colour = palette[of_point] * (1 - haze) + 0.93 * haze
    size = float(np.clip(9e4 / len(xyz), 1.0, 40))
    axes.scatter(place[:, 0], place[:, 1], s=size * (0.4 + 1.1 * span), c=colour, linewidths=0)
    axes.set_xlim(view.centre[0] - view.half[0], view.centre[0] + view.half[0])
    axes.set_ylim(view.centre[1] - view.half[1], view.centre[1] + view.half[1])
    axes.set_aspect("equal")
    axes.axis("off")
    for label, name in names.items():
        axes.scatter([], [], s=60, color=palette[label], label=name)
    figure.legend(loc="upper center", ncols=len(names), frameon=False, fontsize=13, labelcolor=INK)
    figure.text(0.01, 0.01, f"{title}: {len(points):,} points", color=INK, fontsize=11)
    figure.savefig(output, dpi=110, format="png")
    plt.close(figure)
