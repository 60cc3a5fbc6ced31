"""Readable errors: one line and exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import torch
import typer

from fastcv import _interrupt


class Failure(Exception):
    """An error message of one line, for the command to print."""


def fail(message: str) -> NoReturn:
    """End the command with an error message and exit status 2."""
    raise Failure(" ".join(message.split()))


def reason(error: BaseException) -> str:
    """Return the message of an exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a subcommand of a function: failures, lack of memory and Ctrl-C end in one line and an exit status."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        message, status = "", 2
        try:
            function(*args, **kwargs)
            return
        except Failure as failure:
            message = str(failure)
        except KeyboardInterrupt as error:
            message, status = str(error) or "interrupted", _interrupt.STATUS
        except BrokenPipeError:  # the reader, such as ``head``, has closed its end
            raise
        except OSError as error:
            message = f"{error.filename}: {reason(error)}" if error.filename else reason(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            message = "there is not enough memory for this"
        print(f"fastcv {function.__name__}: {message}", file=sys.stderr)
        raise typer.Exit(status)

    return run


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory could not be allocated. torch has no type of its own for CPUs."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "you tried to allocate" in str(error)
