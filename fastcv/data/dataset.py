"""What all data sets of images with objects have in common: names, records of annotations, targets for detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastcv.data.images import open_image, to_tensor
from fastcv.data.segmentation import decode_segmentation

__all__ = ["Annotation", "DetectionDataset", "ImageRecord", "RecordDataset", "Target", "clipped_box", "summary"]

Target = dict[str, Any]


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Images with objects: ``data[i]`` is an image and its target.

    The image is float32 (3, H, W), RGB, 0 to 1. The target has "boxes" float32 (N, 4), x1, y1, x2, y2 in pixels;
    "labels" int64 (N,); "image_id" int; "area" float32 (N,); "iscrowd" int64 (N,), 1 for what evaluation does not
    count; and where the data have them "masks" uint8 (N, H, W) and "keypoints" float32 (N, K, 3): x, y, and 0 for not
    annotated, 1 for hidden, 2 for visible. Images without objects have N = 0.

    Attributes
    ----------
    names : dict of int to str
        The name of each label.
    first_label : int
        The least label: 1 for detectors whose label 0 is the background, 0 for YOLO.
    category_ids : dict of int to int
        The number that each label has in the files, for results that are written back.
    keypoint_names : list of str
        One for each of the K keypoints.
    keypoint_pairs : list of (int, int)
        Keypoints that change places in a mirror: left hand, right hand.
    skeleton : list of (int, int)
        Keypoints to draw lines between.
    keypoint_sigmas : list of float
        How exactly each keypoint can be told, for the object keypoint similarity; empty where the data do not say.
    dropped : Counter of str
        How many annotations were left out, and why.
    """

    def __init__(self, names: dict[int, str], category_ids: dict[int, int] | None = None) -> None:
        self.names = names
        self.first_label = min(names, default=0)
        self.category_ids = category_ids if category_ids is not None else {label: label for label in names}
        self.keypoint_names: list[str] = []
        self.keypoint_pairs: list[tuple[int, int]] = []
        self.skeleton: list[tuple[int, int]] = []
        self.keypoint_sigmas: list[float] = []
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        raise NotImplementedError

    def labels(self, index: int) -> list[int]:
        """Return the labels of an image's objects."""
        return [int(label) for label in self[index][1]["labels"]]


@dataclass(slots=True)
class Annotation:
    """An object in an image. ``segmentation`` is in COCO's forms; lengths are pixels, or fractions of the image."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    label: int
    area: float | None = None  # None: the box's
    iscrowd: int = 0
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: list[float] | None = None


@dataclass(slots=True)
class ImageRecord:
    """An image file and its objects. ``size`` is (width, height) where the annotations tell it."""

    path: Path
    image_id: int
    size: tuple[int, int] | None = None
    annotations: list[Annotation] = field(default_factory=list)


class RecordDataset(DetectionDataset):
    """A data set read from files: the annotations are in memory, images are opened when they are asked for.

    Parameters
    ----------
    records : list of ImageRecord
    names, category_ids : dict
        As the attributes of :class:`DetectionDataset`.
    masks : bool, optional
        Whether targets have masks. By default they have if each object has a segmentation.
    fractions : bool
        Lengths are fractions of the image's width and height instead of pixels.
    """

    def __init__(
        self,
        records: list[ImageRecord],
        names: dict[int, str],
        category_ids: dict[int, int] | None = None,
        *,
        masks: bool | None = None,
        fractions: bool = False,
    ) -> None:
        super().__init__(names, category_ids)
        self.records = records
        self._fractions = fractions
        segmented = [a.segmentation is not None for record in records for a in record.annotations]
        if masks and not all(segmented):
            raise ValueError(f"masks must be False: {segmented.count(False)} of {len(segmented)} objects have none")
        self.has_masks = (bool(segmented) and all(segmented)) if masks is None else masks

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        record = self.records[index]
        image = to_tensor(open_image(record.path))
        height, width = image.shape[1:]
        if record.size is not None and record.size != (width, height):
            turned = ", turned as its EXIF orientation says" if record.size == (height, width) else ""
            raise ValueError(
                f"{record.path} must have the annotated size {record.size[0]}x{record.size[1]}, got {width}x{height}"
                f"{turned}"
            )
        return image, self._target(record, height, width)

    def labels(self, index: int) -> list[int]:
        return [annotation.label for annotation in self.records[index].annotations]

    def _target(self, record: ImageRecord, height: int, width: int) -> Target:
        objects, count = record.annotations, len(record.annotations)
        scale = torch.tensor([width, height], dtype=torch.float64) if self._fractions else torch.ones(2).double()
        boxes = torch.tensor([a.box for a in objects], dtype=torch.float64).reshape(count, 4) * scale.repeat(2)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        for row, annotation in enumerate(objects):
            if annotation.area is not None:
                area[row] = annotation.area
        target: Target = {
            "boxes": boxes.float(),
            "labels": torch.tensor([a.label for a in objects], dtype=torch.int64),
            "image_id": record.image_id,
            "area": area.float(),
            "iscrowd": torch.tensor([a.iscrowd for a in objects], dtype=torch.int64),
        }
        if self.has_masks:
            masks = np.zeros((count, height, width), np.uint8)
            for row, annotation in enumerate(objects):
                assert annotation.segmentation is not None  # checked by the constructor
                masks[row] = decode_segmentation(annotation.segmentation, height, width, self._fractions)
            target["masks"] = torch.from_numpy(masks)
        if self.keypoint_names:
            nothing = [0.0] * 3 * len(self.keypoint_names)
            values = [nothing if a.keypoints is None else a.keypoints for a in objects]
            points = torch.tensor(values, dtype=torch.float64).reshape(count, len(self.keypoint_names), 3)
            points[:, :, :2] *= scale
            target["keypoints"] = points.float()
        return target


def clipped_box(box: Sequence[float], width: float, height: float) -> tuple[float, float, float, float] | None:
    """Return the part of a box that lies in the image, or None if there is none of any area in float32."""
    x1, x2 = (min(max(value, 0.0), width) for value in (box[0], box[2]))
    y1, y2 = (min(max(value, 0.0), height) for value in (box[1], box[3]))
    if not (np.float32(x2) > np.float32(x1) and np.float32(y2) > np.float32(y1)):
        return None
    return x1, y1, x2, y2


def summary(dataset: DetectionDataset) -> str:
    """Return a few lines on a data set: its images, objects per class, and what was left out.

    Examples
    --------
    >>> from fastcv.data import synthetic_scenes
    >>> print(summary(synthetic_scenes(100)))
    100 images, 5 without objects, 281 objects: 57 circle, 50 square, 59 triangle, 55 star, 60 ring
    """
    counts: Counter[int] = Counter()
    empty = 0
    for index in range(len(dataset)):
        labels = dataset.labels(index)
        counts.update(labels)
        empty += not labels
    classes = ", ".join(f"{counts[label]} {name}" for label, name in dataset.names.items())
    lines = [f"{len(dataset)} images, {empty} without objects, {counts.total()} objects: {classes}"]
    if dataset.dropped:
        lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in dataset.dropped.items()))
    return "\n".join(lines)
