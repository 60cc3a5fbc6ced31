"""What a model learns: losses of a batch, and metrics of predictions. The loop is the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcv.engine import plots
from fastcv.engine.coco import CocoScores, coco_record, score_records
from fastcv.engine.detection import detection_confusion, scores_for_metrics
from fastcv.engine.segmentation import class_iou, confusion_matrix, mean_iou

__all__ = ["ClassificationTask", "DetectionTask", "PointSegmentationTask", "SegmentationTask", "Task"]


class Task:
    """What a model learns, and how well. To be subclassed.

    Parameters
    ----------
    names : dict of int to str, optional
        Names of the labels. Default: those of the validation data, where these have ``names``.
    """

    def __init__(self, names: Mapping[int, str] | None = None) -> None:
        self.names: dict[int, str] = dict(names or {})

    def prepare(self, data: Any) -> None:
        """Take from a data set what the metrics need."""
        if not self.names:
            self.names = dict(getattr(data, "names", None) or {})

    def collate(self, samples: list[Any]) -> Any:
        """Make a batch of samples."""
        raise NotImplementedError

    def to(self, batch: Any, device: torch.device) -> Any:
        """Return the batch on a device."""
        return _moved(batch, device)

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the losses, which are summed; each a mean over the batch."""
        raise NotImplementedError

    def records(self, model: nn.Module, batch: Any) -> list[Any]:
        """Return what :meth:`metrics` needs of each sample of a batch, on the CPU."""
        raise NotImplementedError

    def metrics(self, records: Sequence[Any]) -> dict[str, float]:
        """Return the metrics of all records; by class under names with two slashes."""
        raise NotImplementedError

    def main(self, metrics: Mapping[str, float]) -> str:
        """Return the name of the metric by which the best model is chosen; the larger the better."""
        raise NotImplementedError

    def plot(self, records: Sequence[Any], folder: Path) -> list[Path]:
        """Draw what is worth seeing of the last evaluation, and return the files."""
        return []


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device) for item in value)
    return value


def _regulariser(model: nn.Module) -> dict[str, Tensor]:
    """Return what the model itself adds to the losses: its method ``regulariser()``, called after the forward pass."""
    method = getattr(model, "regulariser", None)
    return {} if method is None else {"regulariser": method()}


class DetectionTask(Task):
    """Boxes, masks and keypoints, for models with torchvision's interface.

    In training ``model(images, targets)`` is a dictionary of losses; in evaluation ``model(images)`` is a list of
    dictionaries with boxes, labels and scores, and with masks and keypoints where the model has them. Metrics are
    COCO's, see :func:`fastcv.engine.evaluate_coco`; the main one is the AP of keypoints, else of masks, else of boxes.
    They are of all detections with a score of at least 0.005 (YOLO) or 0.05, even if the model returns fewer by itself.
    """

    def __init__(self, names: Mapping[int, str] | None = None) -> None:
        super().__init__(names)
        self.sigmas: list[float] = []
        self._evaluated: tuple[Any, CocoScores] = (None, CocoScores())

    def prepare(self, data: Any) -> None:
        super().prepare(data)
        self.sigmas = list(getattr(data, "keypoint_sigmas", None) or [])

    def collate(self, samples: list[Any]) -> Any:
        return [image for image, _ in samples], [dict(target) for _, target in samples]

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        images, targets = batch
        kept = [_without_crowds(target) for target in targets]
        losses: dict[str, Tensor] = model(images, kept)
        return losses | _regulariser(model)

    def records(self, model: nn.Module, batch: Any) -> list[Any]:
        images, targets = batch
        with scores_for_metrics(model):
            found = model(images)
        return [coco_record(each, target, _kinds(each, target)) for each, target in zip(found, targets, strict=True)]

    def metrics(self, records: Sequence[Any]) -> dict[str, float]:
        return self._scores(records).metrics

    def _scores(self, records: Sequence[Any]) -> CocoScores:
        if self._evaluated[0] is not records:
            entries = [entry for record in records for side in ("truth", "found") for entry in record[side]]
            kinds = ["bbox"] + [
                kind
                for kind, key in (("segm", "segmentation"), ("keypoints", "keypoints"))
                if entries and all(key in entry for entry in entries)
            ]
            self._evaluated = (records, score_records(records, kinds, self.names, self.sigmas))
        return self._evaluated[1]

    def main(self, metrics: Mapping[str, float]) -> str:
        return next(name for name in ("keypoints/AP", "segm/AP", "bbox/AP") if name in metrics)

    def plot(self, records: Sequence[Any], folder: Path) -> list[Path]:
        curves = self._scores(records).curves
        paths = []
        for kind, of_kind in curves.items():
            name = "precision_recall.png" if kind == "bbox" else f"precision_recall_{kind}.png"
            plots.plot_precision_recall(of_kind, folder / name, kind)
            paths.append(folder / name)
        labels = sorted(self.names or {int(label) for record in records for label in record["boxes"][1]})
        confusion = detection_confusion([record["boxes"] for record in records], labels)
        names = [self.names.get(label, str(label)) for label in labels]
        plots.plot_confusion(confusion, [*names, "nothing"], folder / "confusion.png")
        return [*paths, folder / "confusion.png"]


def _kinds(found: Mapping[str, Any], target: Mapping[str, Any]) -> list[str]:
    needs = (("segm", "masks"), ("keypoints", "keypoints"))
    return ["bbox"] + [kind for kind, key in needs if key in found and key in target]


def _without_crowds(target: dict[str, Any]) -> dict[str, Any]:
    """Return the target without crowds: a detector cannot learn from a box around many objects."""
    crowd = target.get("iscrowd")
    if crowd is None or not bool(crowd.any()):
        return target
    keep = crowd == 0
    return {
        key: value[keep] if isinstance(value, Tensor) and value.dim() and len(value) == len(keep) else value
        for key, value in target.items()
    }


class _Counting(Task):
    """Tasks whose metrics come from a confusion matrix, which is summed over the records."""

    _what = "IoU"

    def _confusion(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the matrix of logits (B, K, ...) and classes (B, ...)."""
        return confusion_matrix(logits.argmax(1), truth, logits.shape[1]).cpu()

    def _named(self, values: Tensor) -> dict[str, float]:
        prefix = f"{self._what}/class"
        return {f"{prefix}/{self.names.get(i, str(i))}": float(v) for i, v in enumerate(values) if not v.isnan()}

    def plot(self, records: Sequence[Any], folder: Path) -> list[Path]:
        confusion = torch.stack(list(records)).sum(0)
        names = [self.names.get(i, str(i)) for i in range(len(confusion))]
        plots.plot_confusion(confusion, names, folder / "confusion.png")
        return [folder / "confusion.png"]


class SegmentationTask(_Counting):
    """The class of each pixel: ``model(images)`` (B, C, H, W) returns logits (B, K, H, W).

    Samples are an image (C, H, W) and int64 (H, W), -1 for pixels to ignore; or the target of a detector, whose masks
    are drawn onto class 0. All images of a batch have one size.
    Metrics: "mIoU", the main one, and "accuracy" of pixels.
    """

    def collate(self, samples: list[Any]) -> Any:
        sizes = {tuple(image.shape) for image, _ in samples}
        if len(sizes) > 1:
            raise ValueError(f"all images of a batch must have one size, got {sorted(sizes)}")
        return torch.stack([image for image, _ in samples]), torch.stack([_classes_of(*sample) for sample in samples])

    def to(self, batch: Any, device: torch.device) -> Any:
        images, masks = super().to(batch, device)
        return images.contiguous(memory_format=torch.channels_last), masks

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        images, masks = batch
        return {"cross_entropy": F.cross_entropy(model(images), masks, ignore_index=-1)} | _regulariser(model)

    def records(self, model: nn.Module, batch: Any) -> list[Any]:
        images, masks = batch
        return [self._confusion(logits[None], mask[None]) for logits, mask in zip(model(images), masks, strict=True)]

    def metrics(self, records: Sequence[Any]) -> dict[str, float]:
        confusion = torch.stack(list(records)).sum(0)
        accuracy = float(confusion.diagonal().sum() / confusion.sum().clamp(min=1))
        return {"mIoU": mean_iou(confusion), "accuracy": accuracy} | self._named(class_iou(confusion))

    def main(self, metrics: Mapping[str, float]) -> str:
        return "mIoU"


def _classes_of(image: Tensor, target: Any) -> Tensor:
    """Return the class of each pixel: of the last mask there, 0 where there is none, -1 in a crowd."""
    if isinstance(target, Tensor):
        return target
    if "masks" not in target:
        raise ValueError("targets must have masks for a segmentation")
    classes = torch.zeros(image.shape[1:], dtype=torch.int64)
    crowds = target.get("iscrowd", torch.zeros_like(target["labels"]))
    for mask, label, crowd in zip(target["masks"], target["labels"].tolist(), crowds.tolist(), strict=True):
        classes[mask.bool()] = -1 if crowd else label
    return classes


class ClassificationTask(_Counting):
    """A label for each sample, such as a point cloud: ``model(batch)`` returns logits (B, K).

    Samples are a tensor, such as points (N, C), and an int. A batch is (B, N, C) if all have one shape, otherwise a
    list. Metrics: "accuracy", the main one, "class_accuracy", the mean over the classes, and "accuracy/class/<name>".
    """

    _what = "accuracy"

    def collate(self, samples: list[Any]) -> Any:
        return _stacked([points for points, _ in samples]), torch.tensor([int(label) for _, label in samples])

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        points, labels = batch
        return {"cross_entropy": F.cross_entropy(model(points), labels)} | _regulariser(model)

    def records(self, model: nn.Module, batch: Any) -> list[Any]:
        points, labels = batch
        return [self._confusion(row[None], label[None]) for row, label in zip(model(points), labels, strict=True)]

    def metrics(self, records: Sequence[Any]) -> dict[str, float]:
        confusion = torch.stack(list(records)).sum(0).double()
        of_class = confusion.diagonal() / confusion.sum(1)
        accuracy = float(confusion.diagonal().sum() / confusion.sum().clamp(min=1))
        return {"accuracy": accuracy, "class_accuracy": float(of_class.nanmean())} | self._named(of_class)

    def main(self, metrics: Mapping[str, float]) -> str:
        return "accuracy"


class PointSegmentationTask(SegmentationTask):
    """The class of each point: ``model(points)`` returns logits (B, N, K), or for a list a list of (N, K).

    Samples are points (N, C) and int64 (N,), -1 for points to ignore. A batch is (B, N, C) if all have one number of
    points, otherwise a list. Metrics as those of :class:`SegmentationTask`, of points.
    """

    def collate(self, samples: list[Any]) -> Any:
        return _stacked([points for points, _ in samples]), [labels for _, labels in samples]

    def to(self, batch: Any, device: torch.device) -> Any:
        return _moved(batch, device)

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        points, labels = batch
        logits = torch.cat([*model(points)])
        return {"cross_entropy": F.cross_entropy(logits, torch.cat(labels), ignore_index=-1)} | _regulariser(model)

    def records(self, model: nn.Module, batch: Any) -> list[Any]:
        points, labels = batch
        return [self._confusion(logits, label) for logits, label in zip(model(points), labels, strict=True)]


def _stacked(samples: list[Tensor]) -> Tensor | list[Tensor]:
    return torch.stack(samples) if len({tuple(sample.shape) for sample in samples}) == 1 else samples
