"""``python -m bench.report``: stored results as a table in the terminal, a Markdown page and plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import text
from bench.summary import Row, Summary, load
from bench.text import slug

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("workload", "data", "contender", "threads", "time", "to peer", "rate", "of limit", "target", "met")
NAMES = 3  # leading columns that hold names; the numbers to their right are set flush right
LEAST_WIDTH = 110  # of a table that goes into a pipe or a file


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="JSON files (default: all of bench/results)")
    parser.add_argument("--output-dir", type=Path, default=RESULTS, help="for report.md and the plots")
    parser.add_argument("--markdown", action="store_true", help="print the README's table, write no file")
    options = parser.parse_args(arguments)
    paths = options.results or sorted(RESULTS.glob("*/*.json"))
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        print(f"no results: {', '.join(missing) or RESULTS}; run pytest bench --save NAME first", file=sys.stderr)
        return 2
    summaries = load(paths)
    if options.markdown:
        print("\n\n".join(readme_table(summary) for summary in summaries))
        return 0
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_files(summaries, options.output_dir)
    for summary in summaries:
        print_table(summary)
    print(f"written: {options.output_dir / 'report.md'} and {len(summaries)} plot(s)")
    return 0


def write_files(summaries: Sequence[Summary], folder: Path) -> None:
    """Write ``report.md`` and one plot per device."""
    # matplotlib takes its time to import, and --markdown needs none of it
    from bench.plot import plot_ratios

    parts = ["# Benchmarks"]
    for summary in summaries:
        plot = folder / f"{slug(summary.device)}.png"
        drawn = plot_ratios(summary, plot)
        parts.append(full_page(summary, plot.name if drawn else None))
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def cells(row: Row) -> list[str]:
    """One row of the full table, in the order of ``COLUMNS``."""
    return [
        row.workload,
        row.variant,
        row.contender,
        str(row.threads),
        text.duration(row.seconds),
        text.factor(row.ratio),
        text.rate(row),
        text.percent(row.share),
        text.target(row.target) if row.contender == "fastcv" else "",
        text.verdict(row.met) if row.contender == "fastcv" else "",
    ]


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], names: int) -> str:
    """A Markdown table; columns to the right of the names are set flush right."""
    rule = ["---" if index < names else "---:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))


def about(summary: Summary) -> str:
    """One sentence: which machine, which versions."""
    versions = ", ".join(f"{name} {number}" for name, number in summary.packages.items())
    return f"{summary.device}, {summary.system}, Python {summary.python}, {versions}."


def full_page(summary: Summary, plot: str | None) -> str:
    """Everything that is known about one device."""
    titles = dict.fromkeys((row.workload, row.title) for row in summary.rows)
    return "\n\n".join(
        [
            f"## {summary.device}",
            about(summary) + " Medians over all rounds of one run in which the contenders took turns.",
            *([f"![How many times faster than the peer]({plot})"] if plot else []),
            "\n".join(f"- **{workload}**: {title}" for workload, title in titles),
            markdown_table(COLUMNS, [cells(row) for row in summary.rows], NAMES),
            "The share is of the limits of this machine, measured in the same run "
            "(bytes that must move at copy bandwidth, arithmetic at the matrix product's rate):",
            "\n".join(f"- {line}" for line in text.limit_lines(summary.limits)),
        ]
    )


def readme_table(summary: Summary) -> str:
    """The short form: one line per workload and thread count, fastcv beside its peer."""
    times = {(row.key, row.contender): row.seconds for row in summary.rows}
    body = []
    above = None
    for row in summary.rows:
        if row.contender != "fastcv":
            continue
        peer = times.get((row.key, row.peer))
        data = "" if row.variant == "f32" else f", {row.variant}"
        repeated = above == row.key[:-1]
        above = row.key[:-1]
        body.append(
            [
                "" if repeated else row.workload,
                "" if repeated else row.title + data,
                str(row.threads),
                text.duration(row.seconds),
                "–" if peer is None else text.duration(peer),
                "–" if row.ratio is None else f"**{text.factor(row.ratio)}**",
                text.rate(row),
                text.percent(row.share),
                text.target(row.target),
            ]
        )
    peers = " / ".join(dict.fromkeys(row.peer for row in summary.rows)) or "peer"
    header = ("id", "workload", "threads", "fastcv", peers, "ratio", "rate", "of limit", "target")
    return f"{about(summary)}\n\n{markdown_table(header, body, names=2)}"


def print_table(summary: Summary) -> None:
    """The full table, for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, LEAST_WIDTH))
    table = Table(title=summary.device, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index < NAMES else "right", no_wrap=True)
    for row in summary.rows:
        style = {True: "green", False: "red", None: ""}[row.met]
        table.add_row(*cells(row), style=style if row.contender == "fastcv" else "dim")
    console.print(table)
    for line in text.limit_lines(summary.limits):
        console.print(line, style="dim", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
