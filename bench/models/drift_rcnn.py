"""How far a detector's answers move in lower precision: ``python -m bench.models.drift_rcnn [CHECKPOINT]``.

CHECKPOINT is what ``examples/train_mask_rcnn.py`` has written, or a name of weights that come with the package.
Default: maskrcnn_scenes. Weights that nobody has trained would say nothing: their scores nearly tie.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fastcv.data import synthetic_scenes
from fastcv.engine import evaluate_detection
from fastcv.models import load_model
from fastcv.ops import box_iou

SIZE, HELD_OUT_IMAGES, HELD_OUT_SEED = 128, 64, 1_000_003  # as in the example
WAYS = {"float32, optimized": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def drift(exact: list[dict[str, Tensor]], moved: list[dict[str, Tensor]]) -> dict[str, Any]:
    """Compare findings: pairs of one label with an IoU of at least 0.5, and what has no partner.

    Boxes are compared by the coordinate that moved most, in pixels, masks by the pixels on which they disagree.
    """
    boxes, scores, masks, alone = [], [], [], 0
    for a, b in zip(exact, moved, strict=True):
        overlap = box_iou(a["boxes"], b["boxes"])
        overlap[a["labels"][:, None] != b["labels"][None]] = 0
        partner = overlap.argmax(1) if overlap.shape[1] else torch.zeros(len(overlap), dtype=torch.int64)
        row = torch.arange(len(overlap))[(overlap.amax(1) >= 0.5) if overlap.shape[1] else slice(0, 0)]
        partner = partner[row]
        alone += len(overlap) + overlap.shape[1] - 2 * len(row)
        boxes.append((a["boxes"][row] - b["boxes"][partner]).abs().amax(1))
        scores.append((a["scores"][row] - b["scores"][partner]).abs())
        masks.append(((a["masks"][row] >= 0.5) != (b["masks"][partner] >= 0.5)).float().mean((1, 2, 3)))
    return {"boxes": torch.cat(boxes), "scores": torch.cat(scores), "masks": torch.cat(masks), "alone": alone}


def summary(found: dict[str, Any]) -> str:
    """Return what :func:`drift` found, in words."""
    line = f"{found['alone']} findings without a partner"
    boxes, scores, masks = (found[name] for name in ("boxes", "scores", "masks"))
    if not len(boxes):
        return f"{line}, none with one"
    return (
        f"{line}; boxes moved by {boxes.median():.2g} px (median), {boxes.max():.2g} px (most); scores by "
        f"{scores.median():.2g}, {scores.max():.2g}; masks differ in {masks.mean():.2g} of the pixels"
    )


def main() -> None:
    """Print a line per precision."""
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else "maskrcnn_scenes"
    data = synthetic_scenes(HELD_OUT_IMAGES, SIZE, HELD_OUT_SEED)
    images, targets = map(list, zip(*(data[index] for index in range(len(data))), strict=True))
    score, exact = evaluate_detection(load_model(checkpoint), images, targets)
    findings = sum(len(each["labels"]) for each in exact)
    print(f"float32: recall {score.recall:.3f}, precision {score.precision:.3f}, {findings} findings")
    if not findings:
        print(
            "nothing has a score of 0.5 or more: there is nothing to compare before the model has been trained longer"
        )
        return
    for name, dtype in WAYS.items():
        score, moved = evaluate_detection(load_model(checkpoint).eval().optimize(dtype), images, targets)
        print(f"{name}: recall {score.recall:.3f}, precision {score.precision:.3f}; {summary(drift(exact, moved))}")


if __name__ == "__main__":
    main()
