"""The training loop that all models share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["train"]


def train(
    model: nn.Module,
    batch_loss: Callable[[torch.Generator], Tensor],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    on_step: Callable[[int, float], None] | None,
    max_gradient: float | None = None,
) -> list[float]:
    """Train with AdamW and a one-cycle learning rate, and return the loss of each step.

    Parameters
    ----------
    model
        Left in training mode.
    batch_loss
        Draws a batch with the given generator and returns its loss.
    steps, learning_rate, seed, on_step
        As in :func:`fastcv.engine.train_detection`.
    max_gradient
        Maximum norm of the gradient, to which longer ones are scaled.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    # torch divides by the length of the first phase, which is zero for a quarter of four steps.
    rising = 0.25 if steps != 4 else 0.3
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=rising)
    model.train()
    losses = []
    for step in range(steps):
        loss = batch_loss(generator)
        optimizer.zero_grad()
        loss.backward()
        if max_gradient is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_gradient)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step, losses[-1])
    return losses
