"""The path of ``torchvision.ops.deform_conv``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastcv.ops._layers import found_in_nn


def __getattr__(name: str) -> Any:
    if name == "deform_conv2d":
        return getattr(import_module("fastcv.ops"), name)
    return found_in_nn(__name__, name, ("DeformConv2d",))
