"""Reading of annotation files: errors name the file and the entry."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["is_integer", "is_number", "numbers_of", "read_json", "read_text", "shown"]


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Return a value for a message: short, on one line."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | int | float) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def numbers_of(value: object, count: int, name: str) -> list[float]:
    """Return a list of so many finite numbers. Raise ValueError, starting with ``name``, for anything else."""
    if not isinstance(value, list) or not all(map(is_number, value)):
        raise ValueError(f"{name} must be a list of numbers, got {shown(value)}")
    if len(value) != count:
        raise ValueError(f"{name} must have {count} numbers, got {len(value)}")
    try:
        values = [float(number) for number in value]
    except OverflowError:
        values = [math.inf]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{name} must have finite numbers, got {shown(value)}")
    return values


def read_text(path: Path) -> str:
    """Return a text file. Raise OSError if there is none, ValueError if it is not UTF-8; both name the file."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be a text in UTF-8, got byte {data[error.start]:#04x} at {error.start}"
        ) from None


def read_json(path: Path) -> Any:
    """Return what a json file holds. Raise ValueError, with the file and the line, for one that is broken."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid json: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is not valid json: it is nested too deep") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{path} is not valid json: {error}") from None
