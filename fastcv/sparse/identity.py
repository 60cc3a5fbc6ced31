"""A module that does nothing."""

from __future__ import annotations

from typing import Any

from torch.nn import Module

__all__ = ["Identity"]


class Identity(Module):
    """Returns what it is given."""

    def forward(self, input: Any) -> Any:
        """Return ``input``."""
        return input

    def input_spatial_size(self, out_size: Any) -> Any:
        """Return the size of the grid that gives this one."""
        return out_size
