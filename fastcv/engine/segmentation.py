"""Training a model that classifies pixels, and its mean IoU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["confusion_matrix", "evaluate_segmentation", "mean_iou", "train_segmentation"]


def confusion_matrix(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Count pixels by their true class (row) and predicted class (column): int64 (num_classes, num_classes).

    Pixels whose true class is outside [0, num_classes) do not count.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted must have the shape of truth {tuple(truth.shape)}, got {tuple(predicted.shape)}")
    known = (truth >= 0) & (truth < num_classes)
    pairs = truth[known] * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean over the classes of intersection over union; classes that nowhere occur do not count.

    ``confusion`` is what :func:`confusion_matrix` counts. NaN for a matrix of zeros.
    """
    hit = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - hit
    return float((hit / union)[union > 0].mean())


def train_segmentation(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 1e-2,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train with AdamW and a one-cycle learning rate on cross-entropy; each batch is flipped and turned at random.

    Parameters
    ----------
    model
        Takes (B, C, H, W) to logits (B, K, H, W). Left in training mode.
    images : Tensor (N, C, H, W)
        The pixels; square, as they are turned.
    masks : Tensor (N, H, W)
        int64, the class of each pixel; -1 where it does not matter.
    steps, batch_size
        How many batches, and of how many images.
    learning_rate
        The highest in the cycle.
    seed
        Chooses the order of the images and how they are turned.
    on_step
        Called with the number of the step and its loss.

    Returns
    -------
    list of float
        The loss of each step.
    """
    if images.dim() != 4 or masks.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"images and masks must have shapes (N, C, H, W) and (N, H, W), got {tuple(images.shape)} and "
            f"{tuple(masks.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.25)
    model.train()
    losses = []
    for step in range(steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        image, mask = images[chosen], masks[chosen]
        turns, flip = torch.randint(4, (), generator=generator), torch.randint(2, (), generator=generator)
        image, mask = image.rot90(int(turns), (-2, -1)), mask.rot90(int(turns), (-2, -1))
        if flip:
            image, mask = image.flip(-1), mask.flip(-1)
        loss = F.cross_entropy(model(image.contiguous(memory_format=torch.channels_last)), mask, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step, losses[-1])
    return losses


@torch.no_grad()
def evaluate_segmentation(
    model: nn.Module, images: Tensor, masks: Tensor, batch_size: int = 32
) -> tuple[float, Tensor]:
    """Return the mean IoU of the model's predictions, and these, int64 (N, H, W). Leaves the model in eval mode."""
    model.eval()
    logits = [model(batch.contiguous(memory_format=torch.channels_last)) for batch in images.split(batch_size)]
    predicted = torch.cat([part.argmax(1) for part in logits])
    return mean_iou(confusion_matrix(predicted, masks, logits[0].shape[1])), predicted
