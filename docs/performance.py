"""Writes tables and plots of the page on performance from ``bench/results/``; conf.py calls :func:`write`."""

from __future__ import annotations

from pathlib import Path

from bench import text
from bench.plot import plot_ratios
from bench.report import about, markdown_table
from bench.summary import Row, Summary, load
from bench.text import slug

RESULTS = Path(__file__).parents[1] / "bench" / "results"


def table(summary: Summary) -> str:
    """A line per workload: how long fastcv takes, and how many times as fast as its peer it is, by threads."""
    ours = [row for row in summary.rows if row.contender == "fastcv"]
    threads = sorted({row.threads for row in ours})
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for row in ours:
        lines.setdefault((row.workload, row.variant), {})[row.threads] = row
    body = []
    for (workload, variant), rows in lines.items():
        some = next(iter(rows.values()))
        data = "" if variant == "f32" else f", {variant}"
        cells = [workload, some.title + data, some.peer or "–"]
        for count in threads:
            measured = rows.get(count)
            cells += ["–", "–"] if measured is None else [text.duration(measured.seconds), bold(measured.ratio)]
        body.append(cells)
    header = ["", "workload", "peer"]
    for count in threads:
        header += [f"{count} thread{'s' if count > 1 else ''}", "ratio"]
    return markdown_table(header, body, names=3)


def bold(ratio: float | None) -> str:
    """A ratio, in bold type."""
    return "–" if ratio is None else f"**{text.factor(ratio)}**"


def write(folder: Path) -> None:
    """Write ``generated/performance.md`` and a plot for each device."""
    target = folder / "generated"
    target.mkdir(exist_ok=True)
    parts = []
    for summary in load(sorted(RESULTS.glob("*/*.json"))):
        plot = f"{slug(summary.device)}.png"
        parts += [f"## {summary.device}", about(summary), table(summary)]
        if plot_ratios(summary, target / plot):
            parts.append(f"![How many times as fast as the peer, by workload](/generated/{plot})")
    (target / "performance.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
