"""Ctrl-C on the command line: one line and exit status 130, even while torch is being imported."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

STATUS = 130  # the exit status that shells report for Ctrl-C


def is_command() -> bool:
    """Whether this process is ``fastcv ...`` or ``python -m fastcv ...``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # Python has not found the module yet; its name comes before the other arguments
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "fastcv"
    return program.endswith(("/fastcv", "/fastcv/__main__.py"))


def exit_on_interrupt() -> None:
    """Let Ctrl-C end the process at once: an exception inside another package's import would print a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, so that a command can clean up."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: Any) -> None:
    os.write(2, b"\nfastcv: interrupted\n")
    os._exit(STATUS)
