"""Options that several subcommands share, and their checks before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import typer

from fastcv.cli.errors import fail, reason
from fastcv.data.files import check_writable


def seed_option(help: str, least: int = -(2**63)) -> Any:
    """Return the option for a random seed, limited to the range that torch accepts."""

    def check(seed: int) -> int:
        if not least <= seed < 2**63:
            raise typer.BadParameter(f"must be an integer from {least} to {2**63 - 1}, got {seed}")
        return seed

    return typer.Option(callback=check, help=help)


def check_output(path: Path, option: str, suffix: str = "") -> None:
    """End the command unless a file with that suffix can be written to ``path``."""
    if path.suffix.lower() != suffix and suffix:
        fail(f"{option} {path} has to end in {suffix}")
    try:
        check_writable(path)
    except OSError as error:
        fail(f"cannot write {path}: {reason(error)}")


def known_model(name: str) -> str:
    """Return the name of a model as the package writes it, or end the command."""
    from difflib import get_close_matches

    from fastcv.models import model_names

    known, chosen = model_names(), name.replace("-", "_")
    if chosen not in known:
        close = get_close_matches(chosen, known, 1)
        fail(f"--model {name}: there is no such model" + (f"; did you mean {close[0]}?" if close else ""))
    return chosen


def check_file(weights: Path) -> Path:
    """Return the path of weights, or end the command if it is one of a folder."""
    if weights.is_dir():
        best = weights / "best.safetensors"
        fail(
            f"--weights {weights} is a folder: " + (f"did you mean {best}?" if best.is_file() else "name a file in it")
        )
    return weights


def check_device(name: str) -> torch.device:
    """Return the device of that name, or end the command."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        fail(f"--device {name}: {reason(error)}")
    if device.type not in ("cpu", "cuda"):
        fail(f"--device {name}: the operators run on cpu and cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            fail(f"--device {name}: torch sees {f'{count} GPUs, numbered from 0' if count else 'no GPU here'}")
    return device
