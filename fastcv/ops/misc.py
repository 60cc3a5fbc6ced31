"""The path of ``torchvision.ops.misc``."""

from __future__ import annotations

from typing import Any

from fastcv.ops._layers import found_in_nn


def __getattr__(name: str) -> Any:
    return found_in_nn(
        __name__,
        name,
        (
            "Conv2dNormActivation",
            "Conv3dNormActivation",
            "ConvNormActivation",
            "FrozenBatchNorm2d",
            "MLP",
            "Permute",
            "SqueezeExcitation",
        ),
    )
