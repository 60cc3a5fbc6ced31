"""Ctrl-C at a time when the training can stop."""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["DelayedInterrupt"]


class DelayedInterrupt:
    """During the block, the first Ctrl-C sets ``wanted``, and the second raises KeyboardInterrupt.

    Handlers of other programs are left alone, and so are threads other than the main one.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._is_set = False

    def __enter__(self) -> None:
        self.wanted = False
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._is_set = True

    def __exit__(self, *_: object) -> None:
        if self._is_set:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_set = False

    def _note(self, number: int, frame: Any) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
