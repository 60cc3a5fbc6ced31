"""The moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """A copy of a model whose weights and buffers are the exponential moving average of the model's.

    Parameters
    ----------
    model : nn.Module
    decay : float
        How much of the average stays at each update. It is less at first: (1 + n) / (10 + n) at the n-th update.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, updates: int) -> None:
        """Take in the weights of the model, after so many earlier updates."""
        share = 1 - min(self.decay, (1 + updates) / (10 + updates))
        average = self.model.state_dict()
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value.to(average[name].dtype), share)
            else:
                average[name].copy_(value)
