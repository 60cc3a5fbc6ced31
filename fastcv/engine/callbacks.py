"""What happens beside the training: progress, and whatever a user adds."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Callback", "Progress"]


class Callback:
    """Methods that a :class:`fastcv.engine.Trainer` calls with itself. To be subclassed; one that raises ends it.

    In several processes only those of process 0 are called.
    """

    def on_start(self, trainer: Any) -> None:
        """Before the first step."""

    def on_step(self, trainer: Any, losses: dict[str, float]) -> None:
        """After each step, of number ``trainer.step``. ``losses`` has "loss", its parts and "learning_rate"."""

    def on_epoch(self, trainer: Any, row: dict[str, Any]) -> None:
        """After each epoch and its evaluation. ``row`` is the last of ``trainer.history``."""

    def on_evaluate(self, trainer: Any, done: int, total: int) -> None:
        """After each batch of an evaluation."""

    def on_note(self, trainer: Any, text: str) -> None:
        """For what a user should read."""

    def on_end(self, trainer: Any) -> None:
        """After the last step, and after an error."""


class Progress(Callback):
    """A bar on a terminal, and a line per epoch.

    Parameters
    ----------
    quiet : bool
        No bar, and nothing but notes.
    lines : bool
        Whether there is a line per epoch.
    """

    def __init__(self, quiet: bool = False, lines: bool = True) -> None:
        self.quiet = quiet
        self.lines = lines and not quiet
        self._bar: Any = None
        self._console: Any = None
        self._task: Any = None
        self._started = self._last = 0.0

    def on_start(self, trainer: Any) -> None:
        self._started = self._last = time.monotonic()
        if self.quiet:
            return
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            return
        self._console = Console(highlight=False)
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(), console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("training", total=trainer.total_steps, completed=trainer.step, note="")
            self._bar.start()

    def on_step(self, trainer: Any, losses: dict[str, float]) -> None:
        if self._bar is not None:
            note = f"loss {losses['loss']:.3f}"
            self._bar.update(
                self._task, completed=trainer.step, total=trainer.total_steps, description="training", note=note
            )
        elif self.lines and time.monotonic() - self._last > 60:  # a log should show that it goes on
            self._last = time.monotonic()
            self._print(f"step {trainer.step}/{trainer.total_steps}  loss {losses['loss']:.3f}")

    def on_evaluate(self, trainer: Any, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description="evaluating", note=f"batch {done}/{total}")

    def on_epoch(self, trainer: Any, row: dict[str, Any]) -> None:
        if not self.lines:
            return
        self._last = time.monotonic()
        parts = [f"epoch {row['epoch']}/{trainer.total_epochs}", f"step {row['step']}", f"loss {row['loss']:.3f}"]
        main = [name for name in row if name in ("mIoU", "accuracy") or name.endswith(("/AP", "/AP50"))]
        parts += [f"{name} {row[name]:.3f}" for name in main if row[name] >= 0]
        parts.append(f"{time.monotonic() - self._started:.0f} s")
        self._print("  ".join(parts) + ("  (best)" if row["best"] else ""))

    def on_note(self, trainer: Any, text: str) -> None:
        self._print(text)

    def on_end(self, trainer: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, soft_wrap=True, markup=False)
        else:
            print(text)
        sys.stdout.flush()
