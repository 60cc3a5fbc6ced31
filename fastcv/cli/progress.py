"""Progress bar of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def training_bar(console: Console, steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show a progress bar during the block, and yield a function to call with the number of a step and its loss."""
    columns = (TextColumn("training"), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=steps, loss=float("nan"))
        yield lambda _, loss: progress.update(task, advance=1, loss=loss)
