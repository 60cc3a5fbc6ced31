"""Builders and enumerations under the paths of torchvision's modules, found when somebody asks for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["found_in_package"]


def found_in_package(module: str, name: str, kind: str) -> Any:
    """Return ``fastcv.models.detection.<name>`` for a name of this kind of detector: what ``__getattr__`` does."""
    if name.lower().startswith(f"{kind}_") and (name.endswith("_Weights") or name.islower()):
        found = getattr(import_module("fastcv.models.detection"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
