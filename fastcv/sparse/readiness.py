"""Networks with sparse convolutions, made ready for inference."""

from __future__ import annotations

from torch import nn

from fastcv._hooks import has_hooks
from fastcv.sparse.convolution import SparseConvolution
from fastcv.sparse.inference import is_plain_convolution

__all__ = ["make_all_ready"]

Named = list[tuple[str, str]]


def make_all_ready(module: nn.Module) -> tuple[Named, Named]:
    """Make sparse convolutions ready, in place. All modules stay, and their names and weights.

    Returns
    -------
    tuple of two lists
        The names of the convolutions and what they do besides; and the names of those that stay as they are, and why.
    """
    parts = dict(module.named_modules())
    done: Named = []
    left: Named = []
    ready: dict[nn.Module, str] = {}
    for part in parts.values():
        for child, what in getattr(part, "make_ready", list)():
            ready[part.get_submodule(child)] = what
    for name, part in parts.items():
        if part in ready:
            done.append((name, ready[part]))
        elif is_plain_convolution(part):
            before = part._kept is not None
            if not before:
                part.optimize()
            done.append((name or "(itself)", "optimized before" if before else ""))
        elif isinstance(part, SparseConvolution):
            why = "it has hooks" if has_hooks(part) else f"its class is {type(part).__name__}"
            if "forward" in part.__dict__:
                why = "its forward has been replaced"
            left.append((name or "(itself)", why))
    return done, left
