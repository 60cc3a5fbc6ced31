"""Which layers do just what their class says, so that they may be fused with their neighbours.

A hook wants to see what goes in and out; weight normalisation and pruning make the weight anew in one. Layers that
somebody has put in another's place have a forward of their own, as have those whose forward somebody has wrapped. Such
layers are called, like everywhere in torch; all are while a hook for all modules is there.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as _module

__all__ = ["PLAIN_CONVOLUTIONS", "has_hooks", "is_fusible", "is_plain_convolution", "is_untouched", "is_watched"]

_has_any_global_hook: Any = getattr(_module, "_has_any_global_hook", lambda: False)

PLAIN_CONVOLUTIONS: set[type] = {nn.Conv2d}  # fastcv.nn.Conv2d adds itself


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody has put hooks on a module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_untouched(module: nn.Module) -> bool:
    """Whether a call of a module does what its class says: no hooks, and no program has replaced its forward."""
    return "forward" not in module.__dict__ and not has_hooks(module)


def is_watched(module: nn.Module) -> bool:
    """Whether a call of a module, now, does more than its class says: for its own sake, or by hooks of all modules."""
    return not is_untouched(module) or _has_any_global_hook()


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether a layer is a 2D convolution of torch's or fastcv's own, with a weight of its own."""
    return type(module) in PLAIN_CONVOLUTIONS and "weight" in module._parameters and is_untouched(module)


def is_fusible(module: nn.Module) -> bool:
    """Whether a layer is such a convolution, and nobody watches it now."""
    return is_plain_convolution(module) and not _has_any_global_hook()
