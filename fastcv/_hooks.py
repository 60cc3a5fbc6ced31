"""Whether somebody watches a module, or has put something of their own into it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as _module

__all__ = ["has_any_global_hook", "has_hooks", "is_untouched", "is_watched"]

has_any_global_hook: Any = getattr(_module, "_has_any_global_hook", lambda: False)


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
    return not is_untouched(module) or has_any_global_hook()
