"""Training a detector, and counting what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastcv.ops import box_iou

__all__ = ["DetectionScore", "evaluate_detection", "train_detection"]

Targets = Sequence[dict[str, Tensor]]


class DetectionScore(NamedTuple):
    """What share of the findings is right, and what share of the objects is found; NaN where there are none."""

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
    """Train with AdamW and a one-cycle learning rate on the sum of the model's losses; half of the images are mirrored.

    Parameters
    ----------
    model
        Takes a list of images and a list of targets to a dict of losses, as the models of
        :mod:`fastcv.models.detection` and torchvision's do. Left in training mode.
    images : list of Tensor (C, H, W)
        The pixels.
    targets : list of dict
        What the model wants for each image: "boxes" (N, 4), x1, y1, x2, y2; "labels" (N,); "masks" (N, H, W) for models
        with masks. Keypoints are not mirrored, so not taken.
    steps, batch_size
        How many batches, and of how many images.
    learning_rate
        The highest in the cycle.
    seed
        Chooses the order of the images and which are mirrored.
    on_step
        Called with the number of the step and its loss.

    Returns
    -------
    list of float
        The sum of the losses of each step.
    """
    if len(images) != len(targets) or not images:
        raise ValueError(f"images and targets must be as many, at least one, got {len(images)} and {len(targets)}")
    for index, target in enumerate(targets):
        if not target.keys() <= {"boxes", "labels", "masks"}:
            raise ValueError(f"targets[{index}] must have boxes, labels and masks alone, got {', '.join(target)}")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.25)
    model.train()
    totals = []
    for step in range(steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator).tolist()
        mirrored = torch.rand(batch_size, generator=generator) < 0.5
        batch = [
            _mirror(images[i], targets[i]) if mirror else (images[i], targets[i])
            for i, mirror in zip(chosen, mirrored.tolist(), strict=True)
        ]
        losses: dict[str, Tensor] = model([image for image, _ in batch], [target for _, target in batch])
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        totals.append(total.item())
        if on_step is not None:
            on_step(step, totals[-1])
    return totals


def _mirror(image: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return image and target with left and right exchanged."""
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
    """Return precision and recall of the findings, and these.

    Best first, a finding is right if an object of its label that no better one has taken overlaps it by an IoU of at
    least ``overlap``; among several the one with the largest counts. Findings below ``score`` do not count. Leaves the
    model in eval mode.
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
