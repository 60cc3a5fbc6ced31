"""The command-line application: global options and subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from fastcv.cli.demo import demo
from fastcv.cli.errors import command
from fastcv.cli.info import info
from fastcv.cli.lidar import lidar
from fastcv.cli.predict import detect, predict
from fastcv.cli.segment import segment
from fastcv.cli.shapes import shapes

app = typer.Typer(
    help="Computer-vision operators for PyTorch: information about the installation, and demonstrations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for function in (info, demo, lidar, segment, shapes, predict, detect):
    app.command()(command(function))


def print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        import fastcv

        typer.echo(f"fastcv {fastcv.__version__}")
        raise typer.Exit


@app.callback()
def frame(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Computer-vision operators for PyTorch: information about the installation, and demonstrations."""
