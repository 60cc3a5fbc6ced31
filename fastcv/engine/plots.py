"""Pictures of a training: losses and metrics, precision over recall, confusion of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastcv._files import replaced_file

__all__ = ["can_plot", "plot_confusion", "plot_losses", "plot_precision_recall"]

Path = str | PathLike[str]

# Colours that stay apart for people who see fewer of them.
COLOURS = ("#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#4a3aa7", "#e34948", "#e87ba4", "#008300")
INK, QUIET, GRID = "#1d1d1f", "#6b6b70", "#e6e6e3"
_MOST_CURVES, _MOST_COUNTS = 8, 16


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def plot_losses(losses: Mapping[str, Sequence[float]], history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the losses of all steps and, if there are any, the main metrics of the epochs.

    Parameters
    ----------
    losses : dict of lists
        "loss" and its parts, by step.
    history : sequence of dict
        For each epoch "step" and the metrics; those by class are left out.
    path : path
        A PNG file.
    """
    metrics = _metric_names(history)
    figure, axes = _figure(2 if metrics else 1, 6.2, 4.2)
    left = axes[0]
    steps = np.arange(1, len(losses["loss"]) + 1)
    left.plot(steps, losses["loss"], color=COLOURS[0], alpha=0.22, linewidth=0.8)
    parts = [name for name in losses if name != "loss"]
    for place, name in enumerate(["loss", *(parts if len(parts) > 1 else [])]):
        colour = COLOURS[place % len(COLOURS)]
        width = 2.2 if name == "loss" else 1.3
        label = "sum" if name == "loss" else name.removeprefix("loss_").replace("_", " ")
        left.plot(steps, _smooth(losses[name]), color=colour, linewidth=width, label=label)
    _title(left, "Training loss", "step")
    left.set_ylim(bottom=0, top=_top(losses["loss"]))
    left.set_xlim(1, max(2, len(steps)))
    if len(parts) > 1:
        _legend(left, "upper right")
    if metrics:
        right = axes[1]
        for place, name in enumerate(metrics):
            rows = [(row["step"], row[name]) for row in history if row.get(name, -1) >= 0]
            if rows:
                right.plot(
                    *zip(*rows, strict=True), color=COLOURS[place], linewidth=1.8, marker="o", ms=3.5, label=name
                )
        _title(right, "Held-out data", "step")
        right.set_ylim(0, 1.02)
        _legend(right, "lower right")
    _save(figure, path)


def _metric_names(history: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for row in history for name in row)
    wanted = [
        name for name in names if name.endswith(("/AP", "/AP50")) or name in ("mIoU", "accuracy", "class_accuracy")
    ]
    return wanted[:6]


def plot_precision_recall(curves: Mapping[str, NDArray[np.float64]], path: Path, kind: str = "bbox") -> None:
    """Draw precision over recall at an IoU of 0.5 for each class, and their mean.

    Parameters
    ----------
    curves : dict of array (R,)
        By class, at R recalls from 0 to 1; -1 is not drawn.
    path : path
        A PNG file.
    kind : {"bbox", "segm", "keypoints"}
        For the title.
    """
    figure, (axis,) = _figure(1, 5.6, 4.8)
    ordered = sorted(curves.items(), key=lambda item: -item[1].mean())
    few = len(ordered) <= _MOST_CURVES
    for place, (name, precision) in enumerate(ordered):
        recall = np.linspace(0, 1, len(precision))
        style = {"color": COLOURS[place % len(COLOURS)], "lw": 1.5} if few else {"color": "#b9c4d2", "lw": 0.7}
        axis.plot(recall, precision, label=f"{name}  {precision.mean():.2f}" if few else None, **style)
    if len(ordered) > 1:
        mean = np.mean([precision for _, precision in ordered], axis=0)
        label = f"mean of {len(ordered)}  {mean.mean():.2f}"
        axis.plot(np.linspace(0, 1, len(mean)), mean, color=INK, linewidth=2.6, label=label)
    what = {"bbox": "boxes, IoU 0.5", "segm": "masks, IoU 0.5", "keypoints": "keypoints, OKS 0.5"}.get(kind, kind)
    _title(axis, f"Precision over recall: {what}", "recall")
    axis.set_ylabel("precision", color=QUIET)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    if ordered:
        _legend(axis, "lower left", title="class, AP")
    _save(figure, path)


def plot_confusion(confusion: Tensor, names: Sequence[str], path: Path) -> None:
    """Draw counts of true (row) and found (column) classes, coloured by their share of the row.

    Parameters
    ----------
    confusion : Tensor (K, K)
        As from :func:`fastcv.engine.confusion_matrix`.
    names : list of str
        K names.
    path : path
        A PNG file.
    """
    counts = confusion.double().numpy()
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 2.6 + 0.55 * len(names))
    figure, (axis,) = _figure(1, side + 0.6, side)
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 9 if len(names) <= 24 else 6
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.grid(False)
    axis.tick_params(length=0)
    for edge in axis.spines.values():
        edge.set_visible(False)
    if len(names) <= _MOST_COUNTS:
        for row, column in np.argwhere(counts > 0):
            ink = "white" if share[row, column] > 0.55 else INK
            text = _short(counts[row, column])
            axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=8 if len(text) < 5 else 7)
    axis.set_ylabel("truth", color=QUIET)
    _title(axis, "Confusion", "found as")
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03, ticks=[0, 0.5, 1], label="share of the row")
    bar.outline.set_visible(False)
    bar.ax.yaxis.label.set_color(QUIET)
    bar.ax.tick_params(length=0, colors=QUIET, labelsize=8)
    _save(figure, path)


def _short(count: float) -> str:
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if count >= limit:
            scaled = count / (1e6 if unit == "M" else 1e3)
            return f"{scaled:.1f}{unit}" if scaled < 10 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def _figure(panels: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no window, and no state that others share
    from matplotlib.figure import Figure

    figure = Figure(figsize=(panels * width, height), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axis in axes:
        axis.grid(True, color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(colors=QUIET, labelsize=9, length=0)
        for name, edge in axis.spines.items():
            edge.set_visible(name in ("left", "bottom"))
            edge.set_color(GRID)
    return figure, axes


def _title(axis: Any, title: str, x: str) -> None:
    axis.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=10)
    axis.set_xlabel(x, color=QUIET)


def _legend(axis: Any, place: str, title: str | None = None) -> None:
    if not axis.get_legend_handles_labels()[0]:
        return
    legend = axis.legend(loc=place, fontsize=8.5, frameon=True, facecolor="white", edgecolor="none", framealpha=0.85)
    if title:
        legend.set_title(title, prop={"size": 8.5, "weight": "bold"})


def _smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the moving average over a twentieth of the steps, less at the ends."""
    line = np.asarray(values, dtype=np.float64)
    half = max(0, len(line) // 40)
    total = np.concatenate([[0.0], np.cumsum(line)])
    place = np.arange(len(line))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(line))
    averaged: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return averaged


def _top(values: Sequence[float]) -> float:
    """Return an upper end that a few outliers at the start do not stretch."""
    line = np.asarray(values, dtype=np.float64)
    return float(max(1e-6, min(line.max(), 2 * np.quantile(line, 0.95)))) * 1.05


def _save(figure: Any, path: Path) -> None:
    with replaced_file(path) as file:
        figure.savefig(file, format="png")
