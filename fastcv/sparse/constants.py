"""Names of ``spconv.constants``, ``spconv.core`` and ``spconv.pytorch.constants`` that programs read."""

from __future__ import annotations

import os
from enum import Enum

import torch

__all__ = [
    "ALL_WEIGHT_IS_KRSC",
    "FILTER_HWIO",
    "PYTORCH_VERSION",
    "SAVED_WEIGHT_LAYOUT",
    "AlgoHint",
    "ConvAlgo",
    "is_amp_enabled",
]

LAYOUTS = ("KRSC", "RSKC", "RSCK")

SAVED_WEIGHT_LAYOUT = os.getenv("SPCONV_SAVED_WEIGHT_LAYOUT", "")
"""The layout of the weights in checkpoints, K for output channels, RS for the axes of the kernel, C for input channels.

Read whenever a layer loads its weight: assign to it to switch. "" takes the weight as it is if it has the shape of
KRSC, in which layers are saved, and the others where the shape says which."""

if SAVED_WEIGHT_LAYOUT not in ("", *LAYOUTS):
    raise ValueError(f"SPCONV_SAVED_WEIGHT_LAYOUT must be KRSC, RSKC or RSCK, got {SAVED_WEIGHT_LAYOUT!r}")

ALL_WEIGHT_IS_KRSC = True
FILTER_HWIO = False
SPCONV_ALLOW_TF32 = False
"""Programs assign to it; what holds here is ``torch.backends.cudnn.allow_tf32``, as for torch's convolutions."""

PYTORCH_VERSION = [int(number) for number in torch.__version__.split("+")[0].split(".")[:2]]


class ConvAlgo(Enum):
    """The ways in which spconv computes a convolution. Layers accept them, and have one of their own."""

    Native = 0
    MaskImplicitGemm = 1
    MaskSplitImplicitGemm = 2


class AlgoHint(Enum):
    """What spconv is told a kernel will be used for."""

    NoHint = 0
    Fowrard = 1
    BackwardInput = 2
    BackwardWeight = 4


def is_amp_enabled() -> bool:
    """Return whether ``torch.autocast`` is on."""
    return torch.is_autocast_enabled()
