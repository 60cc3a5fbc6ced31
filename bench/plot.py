"""Bars: how many times faster than the peer, per workload and thread count, with the target marked."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench import text
from bench.summary import Row, Summary

ONE_THREAD, ALL_THREADS, INK, MUTED = "#8fb8de", "#1f5f99", "#222222", "#888888"
TICKS = (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BAR, GAP = 0.8, 0.7  # of the distance of two bars: how thick one is, and what lies between groups


def plot_ratios(summary: Summary, path: Path) -> bool:
    """Draw fastcv's ratios to ``path``; False, and no file, when nothing was compared with a peer."""
    rows = [row for row in summary.rows if row.contender == "fastcv" and row.ratio is not None]
    if not rows:
        return False
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.workload, row.variant), []).append(row)
    height = 1.6 + 0.3 * len(rows) + 0.22 * len(groups)
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    place, labels = 0.0, []
    for (workload, variant), members in groups.items():
        first = place
        for row in members:
            draw_bar(axes, row, place)
            place += 1
        title = members[0].title.split(",")[0]
        data = "" if variant == "f32" else f", {variant}"
        labels.append(((first + place - 1) / 2, f"{workload}{data}\n{title}"))
        place += GAP
    style(axes, rows, labels)
    peers = " / ".join(dict.fromkeys(row.peer for row in rows))
    axes.set_title(f"fastcv: times faster than {peers}\n{summary.device}", loc="left", fontsize=11, color=INK)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def draw_bar(axes: Axes, row: Row, place: float) -> None:
    """One bar from 1 (as fast as the peer) to the ratio, the ratio in figures, a mark at the target."""
    assert row.ratio is not None
    low, high = sorted((1.0, row.ratio))
    colour = ONE_THREAD if row.threads == 1 and row.device == "cpu" else ALL_THREADS
    hatch = None if row.ratio >= 1 else "////"  # slower than the peer
    axes.barh(place, high - low, left=low, height=BAR, color=colour, hatch=hatch, edgecolor="white")
    note = f"{text.factor(row.ratio)}  {text.duration(row.seconds)}"
    wanted = row.target.get("ratio")
    if wanted is not None:
        axes.plot([wanted, wanted], [place - BAR / 2, place + BAR / 2], color="#d1495b", linewidth=2.5, zorder=3)
    # the figures stand to the right of the bar, and of the mark where the two would run into each other
    edge = wanted * 1.02 if wanted is not None and high <= wanted < high * 2 else high
    axes.annotate(note, (edge, place), (5, 0), textcoords="offset points", va="center", fontsize=8, color=INK)


def style(axes: Axes, rows: list[Row], labels: list[tuple[float, str]]) -> None:
    """Axes, grid and legend."""
    values = [row.ratio for row in rows if row.ratio] + [row.target["ratio"] for row in rows if "ratio" in row.target]
    low, high = min(1.0, *values), max(2.0, *values)
    axes.set_xscale("log")
    axes.set_xlim(low * (0.8 if low < 1 else 0.97), high * 2.2)  # room for the figures
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.axvline(1, color=INK, linewidth=1)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_yticks([place for place, _ in labels], [label for _, label in labels], fontsize=9)
    axes.set_ylim(len(rows) + GAP * (len(labels) - 1) - 0.4, -0.6)  # from the top, without empty space at the ends
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, labelcolor=MUTED)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.figure.legend(handles=legend(rows), loc="outside lower left", ncols=3, frameon=False, fontsize=8)


def legend(rows: list[Row]) -> list[Patch | Line2D]:
    """What colours and marks mean; only what occurs."""
    handles: list[Patch | Line2D] = []
    cpu_threads = {row.threads for row in rows if row.device == "cpu"}
    if 1 in cpu_threads:
        handles.append(Patch(color=ONE_THREAD, label="one thread"))
    if max(cpu_threads, default=0) > 1:
        handles.append(Patch(color=ALL_THREADS, label=f"{max(cpu_threads)} threads"))
    if any("ratio" in row.target for row in rows):
        handles.append(Line2D([], [], color="#d1495b", linewidth=2.5, label="target"))
    return handles
