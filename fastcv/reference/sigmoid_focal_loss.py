"""Focal loss of logits in plain torch (Lin et al. 2017, equation 5)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["sigmoid_focal_loss"]


def sigmoid_focal_loss(inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2) -> Tensor:
    """alpha_t (1 - p_t)^gamma CE of logits and labels of one shape; alpha = -1 stands for no weights."""
    cross_entropy = -targets * logsigmoid(inputs) - (1 - targets) * logsigmoid(-inputs)
    missed = inputs.sigmoid() * (1 - targets) + (-inputs).sigmoid() * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets) if alpha >= 0 else 1
    return weight * missed**gamma * cross_entropy
