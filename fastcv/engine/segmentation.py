"""Training and evaluation of segmentation models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcv.engine.training import train

__all__ = ["confusion_matrix", "evaluate_segmentation", "mean_iou", "train_segmentation"]


def confusion_matrix(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Count pixels by their true class (row) and predicted class (column): int64 (num_classes, num_classes).

    Pixels whose true class is outside [0, num_classes) are ignored.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted must have the shape of truth {tuple(truth.shape)}, got {tuple(predicted.shape)}")
    known = (truth >= 0) & (truth < num_classes)
    pairs = truth[known] * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(confusion: Tensor) -> float:
    """Return the mean IoU over the classes that occur in predictions or truth.

    ``confusion`` is a result of :func:`confusion_matrix`. NaN for a matrix of zeros.
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
    """Train with AdamW and a one-cycle learning rate on cross-entropy; flips and rotates each batch at random.

    Parameters
    ----------
    model
        Returns logits (B, K, H, W) for images (B, C, H, W). It is left in training mode.
    images : Tensor (N, C, H, W)
        Training images; square, because they are rotated by 90 degrees.
    masks : Tensor (N, H, W)
        int64, the class of each pixel; -1 for pixels to ignore.
    steps, batch_size
        Number of batches, and images per batch.
    learning_rate
        Maximum of the cycle.
    seed
        Seed for the order of the images, flips and rotations.
    on_step
        Called after each step with its number and its loss.

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

    def batch_loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        image, mask = images[chosen], masks[chosen]
        turns, flip = torch.randint(4, (), generator=generator), torch.randint(2, (), generator=generator)
        image, mask = image.rot90(int(turns), (-2, -1)), mask.rot90(int(turns), (-2, -1))
        if flip:
            image, mask = image.flip(-1), mask.flip(-1)
        return F.cross_entropy(model(image.contiguous(memory_format=torch.channels_last)), mask, ignore_index=-1)

    return train(model, batch_loss, steps=steps, learning_rate=learning_rate, seed=seed, on_step=on_step)


@torch.no_grad()
def evaluate_segmentation(
    model: nn.Module, images: Tensor, masks: Tensor, batch_size: int = 32
) -> tuple[float, Tensor]:
    """Return the mean IoU and the predicted classes, int64 (N, H, W). The model is left in evaluation mode."""
    model.eval()
    logits = [model(batch.contiguous(memory_format=torch.channels_last)) for batch in images.split(batch_size)]
    predicted = torch.cat([part.argmax(1) for part in logits])
    return mean_iou(confusion_matrix(predicted, masks, logits[0].shape[1])), predicted
