"""Which layers do just what their class says, so that they may be fused with their neighbours.

A hook wants to see what goes in and out; weight normalisation and pruning make the weight anew in one. Layers that
somebody has put in another's place have a forward of their own, as have those whose forward somebody has wrapped. Such
layers are called, like everywhere in torch; all are while a hook for all modules is there.
"""

from __future__ import annotations

from torch import nn

from fastcv._hooks import has_any_global_hook, has_hooks, is_untouched, is_watched

__all__ = ["PLAIN_CONVOLUTIONS", "has_hooks", "is_fusible", "is_plain_convolution", "is_untouched", "is_watched"]

PLAIN_CONVOLUTIONS: set[type] = {nn.Conv2d}  # fastcv.nn.Conv2d adds itself


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether a layer is a 2D convolution of torch's or fastcv's own, with a weight of its own."""
    return type(module) in PLAIN_CONVOLUTIONS and "weight" in module._parameters and is_untouched(module)


def is_fusible(module: nn.Module) -> bool:
    """Whether a layer is such a convolution, and nobody watches it now."""
    return is_plain_convolution(module) and not has_any_global_hook()
