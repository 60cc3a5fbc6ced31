"""Training and evaluation of detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcv.engine.training import train
from fastcv.ops import box_iou

__all__ = ["DetectionScore", "evaluate_detection", "train_detection"]

Targets = Sequence[dict[str, Tensor]]


class DetectionScore(NamedTuple):
    """Precision and recall of detections; NaN where there are no detections or no objects."""

    precision: float
    recall: float


def train_detection(
    model: nn.Module,
    images: Sequence[Tensor],
    targets: Targets,
    *,
    steps: int,
    batch_size: int = 4,
    learning_rate: float = 2e-3,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train with AdamW and a one-cycle learning rate on the sum of the model's losses; flips images at random.

    Parameters
    ----------
    model
        Returns a dictionary of losses for a list of images and a list of targets, as the models of
        :mod:`fastcv.models.detection` and torchvision's do. It is left in training mode.
    images : list of Tensor (C, H, W)
        Training images.
    targets : list of dict
        For each image "boxes" (N, 4), x1, y1, x2, y2; "labels" (N,); and "masks" (N, H, W) for models with masks.
        Keypoints are not accepted, as flipping them would need their names.
    steps, batch_size
        Number of batches, and images per batch.
    learning_rate
        Maximum of the cycle.
    seed
        Seed for the order of the images and for the flips.
    on_step
        Called after each step with its number and its loss.

    Returns
    -------
    list of float
        The sum of the losses of each step.
    """
    if len(images) != len(targets) or not images:
        raise ValueError(
            f"images and targets must have the same length, at least 1, got {len(images)} and {len(targets)}"
        )
    for index, target in enumerate(targets):
        if not target.keys() <= {"boxes", "labels", "masks"}:
            raise ValueError(f"targets[{index}] must have only boxes, labels and masks, got {', '.join(target)}")

    def batch_loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(images), (batch_size,), generator=generator).tolist()
        mirrored = torch.rand(batch_size, generator=generator) < 0.5
        batch = [
            _mirror(images[i], targets[i]) if mirror else (images[i], targets[i])
            for i, mirror in zip(chosen, mirrored.tolist(), strict=True)
        ]
        losses: dict[str, Tensor] = model([image for image, _ in batch], [target for _, target in batch])
        return torch.stack(list(losses.values())).sum()

    return train(
        model, batch_loss, steps=steps, learning_rate=learning_rate, seed=seed, on_step=on_step, max_gradient=5.0
    )


def _mirror(image: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return image and target flipped horizontally."""
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    width = image.shape[-1]
    mirrored = {**target, "boxes": torch.stack([width - x2, y1, width - x1, y2], 1)}
    if "masks" in target:
        mirrored["masks"] = target["masks"].flip(-1)
    return image.flip(-1), mirrored


@torch.no_grad()
def evaluate_detection(
    model: nn.Module,
    images: Sequence[Tensor],
    targets: Targets,
    *,
    score: float = 0.5,
    overlap: float = 0.5,
    batch_size: int = 8,
) -> tuple[DetectionScore, list[dict[str, Any]]]:
    """Return precision and recall, and the detections of each image.

    Detections with a score below ``score`` are ignored. The others are matched by descending score: a detection is
    correct if its IoU with an object of the same label, not yet matched, is at least ``overlap``; it is matched to the
    object with the largest IoU. The model is left in evaluation mode.
    """
    model.eval()
    found: list[dict[str, Tensor]] = []
    for first in range(0, len(images), batch_size):
        found += model(list(images[first : first + batch_size]))
    right = 0
    for index, (finding, target) in enumerate(zip(found, targets, strict=True)):
        found[index] = finding = {name: value[finding["scores"] >= score] for name, value in finding.items()}
        free = box_iou(finding["boxes"], target["boxes"])
        free[finding["labels"][:, None] != target["labels"][None]] = 0
        for row in range(len(free) if free.shape[1] else 0):  # scores descend
            best = int(free[row].argmax())
            if free[row, best] >= overlap:
                right += 1
                free[:, best] = 0
    findings, objects = (sum(len(each["labels"]) for each in several) for several in (found, targets))
    share = [right / count if count else float("nan") for count in (findings, objects)]
    return DetectionScore(*share), found
