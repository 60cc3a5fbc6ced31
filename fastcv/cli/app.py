"""The command-line application: global options and subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from fastcv.cli.classify import classify
from fastcv.cli.demo import demo
from fastcv.cli.detect import detect
from fastcv.cli.errors import command
from fastcv.cli.info import info
from fastcv.cli.predict import predict
from fastcv.cli.train import train
from fastcv.cli.val import val
from fastcv.cli.voxelize import voxelize

HELP = "Computer vision for PyTorch: train models, evaluate them, and see what they find."

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
PANELS = {
    "Models": (predict, train, val),
    "Point clouds": (classify, voxelize),
    "Demonstration": (demo,),
    "Installation": (info,),
}
for panel, functions in PANELS.items():
    for function in functions:
        app.command(rich_help_panel=panel)(command(function))
app.command(hidden=True)(command(detect))


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
    """Computer vision for PyTorch: train models, evaluate them, and see what they find."""
