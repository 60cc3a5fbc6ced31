"""Drawn shapes with their instances, the training of a detector on them, and how its findings are counted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fastcv.data import synthetic_instances, synthetic_shapes
from fastcv.engine import DetectionTask, Trainer, TrainOptions, evaluate_detection
from fastcv.models.detection import create


def test_instances_are_those_of_the_masks() -> None:
    images, targets = synthetic_instances(12, size=48, seed=3)
    same, covered = synthetic_shapes(12, size=48, seed=3)
    for image, target, expected, cover in zip(images, targets, same, covered, strict=True):
        assert torch.equal(image, expected)
        masks = target["masks"].bool()
        assert target["boxes"].dtype is torch.float32
        assert target["labels"].tolist() == [1] * len(masks)
        assert (masks.sum(0) <= 1).all(), "visible parts do not overlap"
        assert torch.equal(masks.any(0), cover.bool())
        for box, mask in zip(target["boxes"].tolist(), masks, strict=True):
            y, x = mask.nonzero().unbind(1)
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="size must be at least 16, got 8"):
        synthetic_instances(1, size=8)


class Fixed(nn.Module):
    """Finds the same things in every image."""

    def __init__(self, boxes: list[list[float]], labels: list[int], scores: list[float]) -> None:
        super().__init__()
        self.found = {
            "boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels), "scores": torch.tensor(scores)
        }  # fmt: skip

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [dict(self.found) for _ in images]


def test_counts() -> None:
    boxes = [[0.0, 0, 10, 10], [0.0, 0, 10, 9], [20.0, 0, 30, 10], [50.0, 50, 60, 60]]
    model = Fixed(boxes, [1, 1, 2, 1], [0.9, 0.8, 0.7, 0.4])
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]]),
        "labels": torch.tensor([1, 1, 1]),
    }
    image = torch.zeros(3, 64, 64)
    # Right: the first. Wrong: a second finding of the same object, and one of another label. The last has a low score.
    score, found = evaluate_detection(model, [image] * 3, [target] * 3, batch_size=2)
    assert score == pytest.approx((1 / 3, 1 / 3))
    assert [len(each["labels"]) for each in found] == [3, 3, 3]
    score, _ = evaluate_detection(model, [image], [target], score=0.3)
    assert score == pytest.approx((2 / 4, 2 / 3))
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    score, _ = evaluate_detection(model, [image], [nothing])
    assert score.precision == 0
    assert math.isnan(score.recall)
    score, _ = evaluate_detection(Fixed([], [], []), [image], [target])
    assert math.isnan(score.precision)
    assert score.recall == 0


def test_training_lowers_the_loss() -> None:
    images, targets = synthetic_instances(4, size=64, seed=1)
    torch.manual_seed(0)
    model = create("maskrcnn_tiny_fpn", num_classes=2, min_size=64, max_size=64)
    options = TrainOptions(steps=12, batch=2, schedule="one-cycle", learning_rate=2e-3, device="cpu")
    trainer = Trainer(DetectionTask(), model, list(zip(images, targets, strict=True)), options=options)
    trainer.train()
    losses = trainer.losses["loss"]
    assert len(losses) == 12
    assert trainer.losses.keys() == {
        "loss", "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"
    }  # fmt: skip
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert model.training
