"""Layers under the paths that torchvision has them at. They live in ``fastcv.nn``, which is made of operators.

So the operators do not import them: a name is looked up when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

__all__ = ["LAYERS", "found_in_nn"]

LAYERS = (
    "Conv2dNormActivation",
    "Conv3dNormActivation",
    "DeformConv2d",
    "DropBlock2d",
    "DropBlock3d",
    "FeaturePyramidNetwork",
    "FrozenBatchNorm2d",
    "MLP",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "Permute",
    "RoIAlign",
    "RoIPool",
    "SqueezeExcitation",
    "StochasticDepth",
)
"""The layers of ``torchvision.ops``."""


def found_in_nn(module: str, name: str, names: Collection[str]) -> Any:
    """Return ``fastcv.nn.<name>`` if it is one of ``names``: what a module's ``__getattr__`` does."""
    if name in names:
        found = getattr(import_module("fastcv.nn"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
