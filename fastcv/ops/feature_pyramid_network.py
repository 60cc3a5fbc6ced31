"""The path of ``torchvision.ops.feature_pyramid_network``."""

from __future__ import annotations

from typing import Any

from fastcv.ops._layers import found_in_nn


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("ExtraFPNBlock", "FeaturePyramidNetwork", "LastLevelMaxPool", "LastLevelP6P7"))
