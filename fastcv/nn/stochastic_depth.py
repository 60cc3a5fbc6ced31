"""Stochastic depth as a module."""

from torch import Tensor, fx, nn

from fastcv.ops.stochastic_depth import stochastic_depth

__all__ = ["StochasticDepth"]

fx.wrap("stochastic_depth")  # symbolic traces record the call, as those of torchvision do


class StochasticDepth(nn.Module):
    """:func:`fastcv.ops.stochastic_depth` with fixed options.

    Parameters
    ----------
    p, mode
        As in :func:`fastcv.ops.stochastic_depth`.
    """

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = p
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        """Drop ``input`` (N, ...) or rows of it, in training."""
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"
