"""``fastcv bench``: the speed of a network on this machine, beside PyTorch's, ONNX Runtime's and OpenVINO's."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fastcv._threads import usable_cores
from fastcv.cli.contenders import MODELS
from fastcv.cli.errors import fail
from fastcv.cli.info import cpu_name
from fastcv.cli.model_speed import Comparison, compare

console = Console(highlight=False)


def bench(
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS)}.", metavar="MODEL")],
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Number of threads, once or more. Default: 1, and all cores.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Turns of each contender.")] = 7,
    quick: Annotated[bool, typer.Option(help="A small form of the network: to see that all contenders run.")] = False,
) -> None:
    """Compare the speed of a network with PyTorch, ONNX Runtime and OpenVINO: float32, on the CPU, random weights."""
    name = model.replace("-", "_")
    if name not in MODELS:
        fail(f"MODEL must be one of {', '.join(MODELS)}, got {model}")
    counts = sorted(set(threads)) if threads else default_threads()
    with console.status("making the network") as status:
        try:
            network = MODELS[name](quick)
        except ImportError as error:
            fail(str(error))
        result = compare(network, counts, rounds, status.update)
    console.print(table_of(result))
    for contender, why in result.missing.items():
        console.print(f"without {contender}: {why}", soft_wrap=True)
    turns = f"{rounds} round{'s' if rounds > 1 else ''}"
    console.print(f"medians of {turns}, taking turns; {cpu_name()}", soft_wrap=True)


def default_threads() -> list[int]:
    """Return 1 and the number of usable cores."""
    return sorted({1, usable_cores()})


def table_of(result: Comparison) -> Table:
    """Return a row per contender: milliseconds, and how many times faster fastcv is."""
    table = Table(title=result.title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for count in result.threads:
        table.add_column(f"{count} thread{'s' if count > 1 else ''}", justify="right", no_wrap=True)
        table.add_column("fastcv is", justify="right", no_wrap=True)
    for contender, seconds in result.seconds.items():
        cells = []
        for count in result.threads:
            ratio = "" if contender == "fastcv" else f"[bold]{result.ratio(contender, count):.2f}×[/bold]"
            cells += [f"{1e3 * seconds[count]:.1f} ms", ratio]
        table.add_row(contender, *cells)
    return table
