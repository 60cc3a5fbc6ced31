"""The command-line application: global options and subcommands.

A subcommand's module is imported when it is used: the list of them, the version and shell completion need no torch,
which takes seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from fastcv import _interrupt

HELP = "Computer vision for PyTorch: train models, evaluate them, and see what they find."


class Entry(NamedTuple):
    """A subcommand as the list shows it: its help is the docstring of the function of its name in its module."""

    help: str
    panel: str | None = None
    hidden: bool = False


COMMANDS = {
    "predict": Entry("Detect objects in images and draw them, write them as JSON, or cut them out.", "Models"),
    "train": Entry(
        "Train a model on a data set; --resume goes on after whatever has stopped it, to the same bits.", "Models"
    ),
    "val": Entry("Evaluate a model on a data set: COCO's average precisions, mean IoU, or accuracy.", "Models"),
    "classify": Entry(
        "Tell which of its classes a trained network takes a cloud for, or each of its points, and draw it.",
        "Point clouds",
    ),
    "voxelize": Entry("Turn a point cloud into a grid of voxels, and draw both.", "Point clouds"),
    "demo": Entry(
        "Show what a detector finds in a photograph, and compare the speed with torchvision.", "Demonstration"
    ),
    "info": Entry("Print what to paste into a bug report: versions, machine and build.", "Installation"),
    "bench": Entry(
        "Compare the speed of a network with PyTorch, ONNX Runtime and OpenVINO: float32, on the CPU, random weights.",
        "Installation",
    ),
    "detect": Entry("Do what ``fastcv predict`` does, under its former name.", hidden=True),
}


def load(name: str) -> Any:
    """Import a subcommand, and return it as typer's group wants it."""
    function = getattr(import_module(f"fastcv.cli.{name}"), name)
    from fastcv.cli.errors import command

    _interrupt.raise_on_interrupt()
    alone = typer.Typer(add_completion=False)
    alone.command(name)(command(function))
    return typer.main.get_command(alone)


class LazyGroup(TyperGroup):
    """A group whose commands are loaded when they are used, and not for the list of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and remaining arguments."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if found is not None and name in COMMANDS else found, rest


app = typer.Typer(cls=LazyGroup, help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)
for name, entry in COMMANDS.items():
    app.command(name, help=entry.help, rich_help_panel=entry.panel, hidden=entry.hidden)(lambda: None)


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
