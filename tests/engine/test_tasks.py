"""Tasks: batches, losses, metrics, plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_problems import Blobs

from fastcv.data import synthetic_instances
from fastcv.engine import (
    ClassificationTask,
    DetectionTask,
    PointSegmentationTask,
    SegmentationTask,
    Trainer,
    TrainOptions,
    evaluate,
)
from fastcv.models import create_model


class Scripted(nn.Module):
    """Gives one answer after another."""

    def __init__(self, *answers: Any) -> None:
        super().__init__()
        self.answers = list(answers)

    def forward(self, *inputs: Any) -> Any:
        return self.answers.pop(0)


def one_hot(classes: Any, count: int, dim: int) -> Tensor:
    return nn.functional.one_hot(torch.as_tensor(classes), count).float().movedim(-1, dim)


def test_segmentation() -> None:
    truth = torch.tensor([[0, 1], [1, -1]])
    data = [(torch.zeros(3, 2, 2), truth), (torch.zeros(3, 2, 2), torch.zeros(2, 2, dtype=torch.int64))]
    model = Scripted(one_hot([[[0, 1], [0, 0]], [[0, 0], [0, 1]]], 3, 1))
    records, metrics = evaluate(SegmentationTask({0: "ground", 1: "shape"}), model, data, batch=2, device="cpu")
    # ground: 4 found rightly, one missed, one too many; shape: 1, 1, 1; the ignored pixel does not count.
    assert metrics == pytest.approx({
        "mIoU": (4 / 6 + 1 / 3) / 2, "accuracy": 5 / 7, "IoU/class/ground": 4 / 6, "IoU/class/shape": 1 / 3,
    })  # fmt: skip
    assert len(records) == 2
    logits = torch.randn(2, 3, 2, 2)
    task = SegmentationTask()
    losses = task.losses(Scripted(logits), task.collate(data))
    expected = nn.functional.cross_entropy(logits, torch.stack([mask for _, mask in data]), ignore_index=-1)
    torch.testing.assert_close(losses["cross_entropy"], expected)


def test_segmentation_of_what_detectors_see() -> None:
    masks = torch.zeros(3, 2, 3, dtype=torch.uint8)
    masks[0, 0], masks[1, :, 1], masks[2, 1, 2] = 1, 1, 1
    target = {"masks": masks, "labels": torch.tensor([2, 1, 1]), "iscrowd": torch.tensor([0, 0, 1])}
    empty = {"masks": masks[:0], "labels": torch.zeros(0, dtype=torch.int64)}
    _, classes = SegmentationTask().collate([(torch.zeros(3, 2, 3), target), (torch.zeros(3, 2, 3), empty)])
    assert classes.tolist() == [[[2, 1, 2], [0, 1, -1]], [[0] * 3] * 2]
    with pytest.raises(ValueError, match="targets must have masks for a segmentation"):
        SegmentationTask().collate([(torch.zeros(3, 2, 3), {"boxes": torch.zeros(0, 4)})])


def test_classification_of_clouds() -> None:
    data = [(torch.zeros(5, 3), 0), (torch.zeros(5, 3), 1), (torch.zeros(7, 3), 1), (torch.zeros(5, 3), 1)]
    task = ClassificationTask({0: "car", 1: "person"})
    points, labels = task.collate(data)
    assert isinstance(points, list)
    assert labels.tolist() == [0, 1, 1, 1]
    assert task.collate(data[:2])[0].shape == (2, 5, 3)
    model = Scripted(one_hot([0, 1], 3, 1), one_hot([0, 2], 3, 1))
    _, metrics = evaluate(task, model, data, batch=2, device="cpu")
    assert metrics == pytest.approx({
        "accuracy": 0.5, "class_accuracy": (1 + 1 / 3) / 2, "accuracy/class/car": 1, "accuracy/class/person": 1 / 3,
    })  # fmt: skip


def test_segmentation_of_clouds() -> None:
    data = [(torch.zeros(3, 3), torch.tensor([0, 1, -1])), (torch.zeros(2, 3), torch.tensor([1, 1]))]
    task = PointSegmentationTask()
    answers = [one_hot([0, 1, 1], 2, 1), one_hot([0, 1], 2, 1)]
    _, metrics = evaluate(task, Scripted(answers), data, batch=2, device="cpu")
    assert metrics["mIoU"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    logits = [torch.randn(3, 2), torch.randn(2, 2)]
    loss = task.losses(Scripted(logits), task.collate(data))["cross_entropy"]
    torch.testing.assert_close(
        loss, nn.functional.cross_entropy(torch.cat(logits)[[0, 1, 3, 4]], torch.tensor([0, 1, 1, 1]))
    )
    assert task.collate(data[:1] * 2)[0].shape == (2, 3, 3)


class Regular(nn.Linear):
    def regulariser(self) -> Tensor:
        return 10 * self.weight.square().sum()


def test_the_model_adds_its_regulariser() -> None:
    model = Regular(8, 3)
    before = model.weight.norm().item()
    options = TrainOptions(steps=20, device="cpu", learning_rate=0.02)
    trainer = Trainer(ClassificationTask(), model, Blobs(16), options=options)
    trainer.train()
    assert trainer.losses.keys() == {"loss", "cross_entropy", "regulariser"}
    assert model.weight.norm().item() < 0.5 * before


class Boxes(nn.Module):
    """Learns nothing, and finds what it is told."""

    def __init__(self, found: Any = ()) -> None:
        super().__init__()
        self.found, self.targets = list(found), None
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Any, targets: Any = None) -> Any:
        self.targets = targets
        return {"loss_box": self.weight.sum()} if self.training else [self.found.pop(0) for _ in images]


def test_detectors_do_not_learn_crowds() -> None:
    target = {"boxes": torch.rand(3, 4), "labels": torch.tensor([1, 2, 3]), "iscrowd": torch.tensor([0, 1, 0]),
              "image_id": 3, "masks": torch.rand(3, 8, 8)}  # fmt: skip
    task, model = DetectionTask(), Boxes()
    task.losses(model, task.collate([(torch.zeros(3, 8, 8), target)]))
    (kept,) = model.targets
    assert kept["labels"].tolist() == [1, 3]
    assert torch.equal(kept["masks"], target["masks"][[0, 2]])
    assert kept["image_id"] == 3
    assert len(target["labels"]) == 3, "the data set's own target stays"


def test_detection_and_its_plots(tmp_path: Path) -> None:
    images, targets = synthetic_instances(5, 64)
    found = [
        {**t, "scores": torch.linspace(1, 0.6, len(t["labels"])), "masks": t["masks"][:, None].float()} for t in targets
    ]
    found[0] = {name: value[:0] for name, value in found[0].items()}
    task = DetectionTask({1: "shape"})
    data = list(zip(images, targets, strict=True))
    records, metrics = evaluate(task, Boxes(found), data, batch=2, device="cpu")
    count = sum(len(t["labels"]) for t in targets)
    assert metrics["segm/AR100"] == pytest.approx(1 - len(targets[0]["labels"]) / count)
    assert task.main(metrics) == "segm/AP"
    assert {"bbox/AP/shape", "segm/AP50/shape"} <= metrics.keys()
    pytest.importorskip("matplotlib")
    Image = pytest.importorskip("PIL.Image")
    names = [path.name for path in task.plot(records, tmp_path)]
    assert names == ["precision_recall.png", "precision_recall_segm.png", "confusion.png"]
    for name in names:
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert min(pixels.shape[:2]) > 300
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_odd_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastcv.engine import plots

    plots.plot_losses({"loss": [1.0]}, [], tmp_path / "one.png")
    plots.plot_losses({"loss": [float("nan"), 1.0]}, [{"step": 2, "mIoU": float("nan")}], tmp_path / "nan.png")
    plots.plot_precision_recall({}, tmp_path / "empty.png")
    plots.plot_precision_recall({str(i): np.linspace(1, 0, 11) for i in range(30)}, tmp_path / "many.png", "keypoints")
    plots.plot_confusion(torch.zeros(1, 1), ["a"], tmp_path / "zero.png")
    plots.plot_confusion(torch.eye(40) * 1e6, [f"class {i}" for i in range(40)], tmp_path / "large.png")
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("is_rcnn", [False, True])
def test_average_precision_is_over_low_scores_too(is_rcnn: bool) -> None:
    """Of two objects one is found with a score of 0.1, which the model does not return by itself."""
    boxes, labels = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), torch.ones(2, dtype=torch.int64)
    everything = {"boxes": boxes, "labels": labels, "scores": torch.tensor([0.9, 0.1])}

    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score_thresh = 0.3

        def forward(self, images: Any) -> Any:
            kept = everything["scores"] >= self.score_thresh
            return [{name: value[kept] for name, value in everything.items()}]

    model = owner = Choosy()
    if is_rcnn:
        outer: Any = nn.Sequential(owner)
        outer.roi_heads, model = owner, outer
    data = [(torch.zeros(3, 48, 48), {"boxes": boxes, "labels": labels})]
    _, metrics = evaluate(DetectionTask(), model, data, device="cpu")
    assert metrics["bbox/AP50"] == 1, "51/101 without the second"
    assert owner.score_thresh == 0.3, "as before"


def test_average_precision_of_yolo_is_over_low_scores_too() -> None:
    torch.manual_seed(0)
    model = create_model("yolov2_tiny", names=["a", "b"], width=0.25, size=64)
    model.score_thresh = 0.005
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        (found,) = model([image])
    assert found["scores"].min() >= 0.005
    assert found["scores"].max() < 0.05
    model.score_thresh = 0.3
    target = {"boxes": found["boxes"][:1], "labels": found["labels"][:1]}
    _, metrics = evaluate(DetectionTask(), model, [(image, target)], device="cpu")
    assert metrics["bbox/AP"] == pytest.approx(1, abs=1e-6)
    assert model.score_thresh == 0.3
