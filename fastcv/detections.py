"""The detections of one image: one type for what any detector finds, to filter, draw, crop and convert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastcv import _rows
from fastcv._rows import Names, as_names, names_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Detections", "names_of"]

_FIELDS = ("boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores")


class Detections:
    """What was found in one image, or what is annotated in it: N objects, a row each.

    Parameters
    ----------
    boxes : Tensor (N, 4)
        x1, y1, x2, y2 in pixels. Here and below also arrays and lists.
    scores : Tensor (N,), optional
        None where there are none, as in annotations.
    labels : Tensor (N,), optional
        Integers. Default: 0.
    masks : Tensor (N, H, W), optional
        bool, or integers of which those other than 0 count.
    keypoints : Tensor (N, K, 3), optional
        x, y in pixels, and visibility: 0 for a point that is not there.
    keypoint_scores : Tensor (N, K), optional
        A detector's scores of them.
    names : dict of int to str, list of str, or model, optional
        Names of the labels; a list is numbered from 0; see :func:`names_of` for a model. Labels without a name are
        called "class 3".
    image_size : (int, int), optional
        Height and width. Default: that of the image or the masks.
    image : PIL image, Tensor (3, H, W) or array (H, W, 3), optional
        The image: uint8, or a floating tensor with values 0 to 1.
    path : path, optional
        The file of the image, which :meth:`plot` and :meth:`crop` read where there is no ``image``.
    skeleton : list of (int, int), optional
        Which keypoints to join by lines. Default: COCO's for 17 keypoints.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit each other, or boxes with numbers that are not finite.

    Examples
    --------
    >>> from fastcv.data import synthetic_scenes
    >>> from fastcv.models import load_model
    >>> model = load_model("maskrcnn_scenes").eval()
    >>> image, _ = synthetic_scenes(1, seed=7)[0]
    >>> (found,) = model([image])
    >>> found = Detections.from_model(found, model, image=image).filter(score=0.5)
    >>> found
    Detections(...)
    >>> found.save("found.png")
    >>> parts = found[found.areas() > 100].filter(labels="star").crop()
    """

    boxes: Tensor
    scores: Tensor | None
    labels: Tensor
    masks: Tensor | None
    keypoints: Tensor | None
    keypoint_scores: Tensor | None
    names: dict[int, str]
    image_size: tuple[int, int] | None
    image: Any
    path: Path | None
    skeleton: list[tuple[int, int]] | None

    def __init__(
        self,
        boxes: Any,
        scores: Any = None,
        labels: Any = None,
        masks: Any = None,
        keypoints: Any = None,
        keypoint_scores: Any = None,
        *,
        names: Names | nn.Module | None = None,
        image_size: Sequence[int] | None = None,
        image: Any = None,
        path: str | PathLike[str] | None = None,
        skeleton: Iterable[Sequence[int]] | None = None,
    ) -> None:
        self.boxes = _rows.boxes(boxes)
        count, device = len(self.boxes), self.boxes.device
        self.scores = _rows.numbers(scores, "scores", (count,), device)
        self.labels = _rows.labels(labels, count, device)
        self.masks = _rows.masks(masks, count, device)
        self.keypoints = _rows.numbers(keypoints, "keypoints", (count, -1, 3), device)
        points = 0 if self.keypoints is None else self.keypoints.shape[1]
        self.keypoint_scores = _rows.numbers(keypoint_scores, "keypoint_scores", (count, points), device)
        self.names = as_names(names)
        self.image = image
        self.path = None if path is None else Path(path)
        self.image_size = _rows.image_size(image_size, image, self.masks)
        self.skeleton = None if skeleton is None else _rows.skeleton(skeleton, points)

    @classmethod
    def from_model(
        cls,
        found: Mapping[str, Tensor],
        names: Names | nn.Module | None = None,
        *,
        score: float = 0.0,
        mask_threshold: float = 0.5,
        **options: Any,
    ) -> Detections:
        """Make it of one of the dictionaries that a detector returns, or of a data set's target.

        Parameters
        ----------
        found : dict
            boxes (N, 4); where there are such: scores (N,), labels (N,), masks (N, 1, H, W), probabilities, or
            (N, H, W), integers or bool; keypoints (N, K, 3) and keypoints_scores (N, K).
        names : dict, list or model, optional
            As in :class:`Detections`; the model that found it knows its names.
        score : float
            Leave out detections with a lower score.
        mask_threshold : float
            Least probability, exclusive, of a pixel of a mask.
        **options
            ``image``, ``path``, ``image_size`` and ``skeleton`` of :class:`Detections`. By default the last is the
            model's, which weights of :class:`fastcv.engine.Trainer` know.
        """
        if not isinstance(found, Mapping):
            raise TypeError(f"found must be the dictionary of one image, got {type(found).__name__}")
        if "boxes" not in found:
            raise ValueError(f"found must have boxes, has {', '.join(map(str, found)) or 'nothing'}")
        theirs = {"keypoint_scores": "keypoints_scores"}
        rows: dict[str, Any] = {name: found[key] for name in _FIELDS if (key := theirs.get(name, name)) in found}
        if score > 0 and "scores" in rows:
            kept = rows["scores"] >= score
            rows = {key: value[kept] for key, value in rows.items()}
        masks = rows.get("masks")
        if masks is not None:
            if masks.dim() == 4 and masks.shape[1] == 1:
                masks = masks[:, 0]
            rows["masks"] = masks > mask_threshold if masks.is_floating_point() else masks
        if isinstance(names, nn.Module) and "keypoints" in rows:
            options.setdefault("skeleton", _rows.skeleton_of(names))
        return cls(**rows, names=names, **options)

    @classmethod
    def from_models(
        cls,
        found: Sequence[Mapping[str, Tensor]],
        names: Names | nn.Module | None = None,
        *,
        images: Sequence[Any] | None = None,
        paths: Sequence[str | PathLike[str]] | None = None,
        **options: Any,
    ) -> list[Detections]:
        """Do :meth:`from_model` for all images of a batch."""
        named = as_names(names)
        if isinstance(names, nn.Module):
            options.setdefault("skeleton", _rows.skeleton_of(names))
        for what, values in (("images", images), ("paths", paths)):
            if values is not None and len(values) != len(found):
                raise ValueError(f"{what} must have one per image, {len(found)}, got {len(values)}")
        return [
            cls.from_model(
                one, named, image=images[i] if images is not None else None, path=paths[i] if paths else None, **options
            )
            for i, one in enumerate(found)
        ]

    @classmethod
    def from_torchvision(
        cls, found: Mapping[str, Tensor], names: Names | nn.Module | None = None, **options: Any
    ) -> Detections:
        """Do :meth:`from_model` for a detector of torchvision. ``names`` may be ``weights.meta["categories"]``."""
        named = {label: name for label, name in as_names(names).items() if name not in ("__background__", "N/A")}
        return cls.from_model(found, named, **options)

    @classmethod
    def from_ultralytics(cls, result: Any, **options: Any) -> Detections:
        """Make it of a ``Results`` of Ultralytics, whose image, path and names are taken over.

        Parameters
        ----------
        result
            With ``boxes``, and ``masks`` and ``keypoints`` where the task has them.
        **options
            As in :class:`Detections`; what is given here takes precedence.
        """
        return cls(**(_rows.of_ultralytics(result) | options))

    @classmethod
    def from_coco(
        cls, annotations: Sequence[Mapping[str, Any]], image_size: Sequence[int], names: Any = None, **options: Any
    ) -> Detections:
        """Make it of COCO's annotations, or results, of one image; masks need pycocotools."""
        return cls(**_rows.of_coco(annotations, image_size), image_size=image_size, names=names, **options)

    @staticmethod
    def concat(parts: Sequence[Detections]) -> Detections:
        """Join detections of one image; image, path and size are those of the first part."""
        if not parts:
            raise ValueError("parts must hold at least one Detections")
        first = parts[0]
        joined: dict[str, Any] = {name: _rows.joined([getattr(part, name) for part in parts], name) for name in _FIELDS}
        names: dict[int, str] = {}
        for part in parts:
            for label, name in part.names.items():
                if names.setdefault(label, name) != name:
                    raise ValueError(f"parts must agree on names, got {names[label]!r} and {name!r} for label {label}")
            if part.image_size != first.image_size:
                raise ValueError(f"parts must be of one image, got {part.image_size} beside {first.image_size}")
        return Detections(**joined, names=names, **first._context())

    # A sequence of objects --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Detections:
        """Return some of the objects, always as Detections: by integer, slice, indices, or a mask of bools."""
        rows = _rows.row_index(index, len(self), self.boxes.device)
        taken = {name: None if (value := getattr(self, name)) is None else value[rows] for name in _FIELDS}
        return self._with(taken)

    def __iter__(self) -> Iterator[Detections]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        if not len(self):
            return "Detections(no objects)"
        best = "" if self.scores is None else f"; best {float(self.scores.max()):.2f}"
        return f"Detections({len(self)} object{'s' * (len(self) > 1)}: {self.summary()}{best})"

    def summary(self) -> str:
        """Return how many there are of each class, such as "2 person, 1 tie", the most frequent first."""
        return ", ".join(f"{count} {name}" for name, count in Counter(self.class_names).most_common())

    @property
    def class_names(self) -> list[str]:
        """The name of each object's class."""
        return [self.name_of(label) for label in self.labels.tolist()]

    def name_of(self, label: int) -> str:
        """Return the name of a label, or "class 3"."""
        return self.names.get(label, f"class {label}")

    def captions(self) -> list[str]:
        """Return what is written beside each object: its class and, where there is one, its score."""
        if self.scores is None:
            return self.class_names
        return [f"{name} {score:.2f}" for name, score in zip(self.class_names, self.scores.tolist(), strict=True)]

    def areas(self) -> Tensor:
        """Return the pixels of each object's mask or, without masks, of its box, as (N,) float32."""
        if self.masks is not None:
            return self.masks.flatten(1).sum(1).float()
        return (self.boxes[:, 2:] - self.boxes[:, :2]).clamp(min=0).prod(1)

    def filter(
        self,
        score: float | Mapping[int | str, float] | None = None,
        labels: int | str | Iterable[int | str] | None = None,
        min_area: float | None = None,
        max_area: float | None = None,
    ) -> Detections:
        """Return the objects that meet all that is asked for.

        Parameters
        ----------
        score : float or dict, optional
            Least score; a dictionary has one per class, by label or name, and keeps classes that it does not hold.
        labels : int, str or several, optional
            Classes, by label or name.
        min_area, max_area : float, optional
            Least and largest area, see :meth:`areas`.
        """
        kept = torch.ones(len(self), dtype=torch.bool, device=self.boxes.device)
        if score is not None:
            if self.scores is None:
                raise ValueError("score cannot be asked for: these objects have no scores")
            for wanted, least in score.items() if isinstance(score, Mapping) else ((None, score),):
                of_class = torch.ones_like(kept) if wanted is None else self._is_one_of([wanted])
                kept &= ~of_class | (self.scores >= least)
        if labels is not None:
            kept &= self._is_one_of([labels] if isinstance(labels, int | str) else list(labels))
        if min_area is not None:
            kept &= self.areas() >= min_area
        if max_area is not None:
            kept &= self.areas() <= max_area
        return self[kept]

    def _is_one_of(self, wanted: Sequence[int | str]) -> Tensor:
        numbers = [number for one in wanted for number in _rows.labels_of(one, self.names)]
        return torch.isin(self.labels, torch.tensor(numbers, dtype=torch.int64, device=self.labels.device))

    # Pictures ---------------------------------------------------------------------------------------------------------

    def picture(self) -> Image.Image:
        """Return the image as a PIL image, read from ``path`` if it is not at hand."""
        from fastcv.data.images import as_picture, open_image

        if self.image is not None:
            return as_picture(self.image)
        if self.path is None:
            raise ValueError("there is no image: give it, as in Detections.from_model(found, model, image=image)")
        return open_image(self.path)

    def plot(self, image: Any = None, **options: Any) -> Image.Image:
        """Return a picture with the objects drawn into it.

        Parameters
        ----------
        image
            As in :class:`Detections`. Default: the image itself.
        **options
            Of :func:`fastcv.drawing.draw_detections`.
        """
        from fastcv.data.images import as_picture
        from fastcv.drawing import draw_detections

        return draw_detections(self.picture() if image is None else as_picture(image), self, **options)

    def save(self, path: str | PathLike[str], image: Any = None, **options: Any) -> None:
        """Write the picture of :meth:`plot`, completely or not at all, in the format that the name ends in."""
        from fastcv.data.images import save_picture

        save_picture(self.plot(image, **options), path)

    def crop(self, padding: int = 0, image: Any = None) -> list[Image.Image]:
        """Cut the objects out, each with its box and ``padding`` pixels around it, as far as the image reaches."""
        from fastcv.data.images import as_picture

        picture = self.picture() if image is None else as_picture(image)
        return [picture.crop(_rows.crop_box(box, picture.size, padding)) for box in self.boxes.tolist()]

    # Other forms ------------------------------------------------------------------------------------------------------

    def to_coco(self, image_id: int, categories: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
        """Return COCO's results: a dictionary per object, ready for JSON.

        Parameters
        ----------
        image_id : int
            The image.
        categories : dict, optional
            Label to category_id. Default: the labels.

        Returns
        -------
        list of dict
            image_id, category_id, bbox (x, y, width, height), score; segmentation as compressed runs, keypoints as a
            flat list of x, y, visibility.
        """
        return _rows.to_coco(self, image_id, categories)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections``, with the names in ``data["class_name"]``."""
        return _rows.to_supervision(self)

    def numpy(self) -> dict[str, Any]:
        """Return the fields that there are as arrays by name."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return {name: value.cpu().numpy() for name, value in fields.items() if value is not None}

    def to(self, device: torch.device | str) -> Detections:
        """Return the same on a device; the image stays where it is."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return self._with({name: None if value is None else value.to(device) for name, value in fields.items()})

    def cpu(self) -> Detections:
        """Return the same on the CPU."""
        return self.to("cpu")

    def _with(self, rows: Mapping[str, Any]) -> Detections:
        """Return the same image with other objects. They are not checked again."""
        new = object.__new__(Detections)
        new.__dict__.update(self.__dict__)
        new.__dict__.update(rows)
        return new

    def _context(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("image_size", "image", "path", "skeleton")}
