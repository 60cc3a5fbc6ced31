"""The path of ``torchvision.ops.poolers``."""

from __future__ import annotations

from typing import Any

from fastcv.ops._layers import found_in_nn


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("LevelMapper", "MultiScaleRoIAlign"))
