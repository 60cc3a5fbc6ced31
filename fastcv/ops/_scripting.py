"""What ``torch.jit.script`` is told about functions and layers whose source it cannot compile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

__all__ = ["refuse_to_script"]


def refuse_to_script(things: Iterable[Any]) -> None:
    """Let ``torch.jit.script`` of these functions or classes, or of a module with such a layer, raise a readable error.

    It asks ``__prepare_scriptable__``; without that it fails somewhere in our source.
    """
    for thing in things:

        def refuse(*_: Any, name: str = thing.__name__) -> NoReturn:
            raise NotImplementedError(
                f"torch.jit.script cannot compile fastcv's {name}, which is no TorchScript: use torch.compile, "
                "torch.export or torch.jit.trace"
            )

        thing.__prepare_scriptable__ = refuse
