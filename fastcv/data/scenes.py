"""Generated scenes: figures of several classes in front of clutter, with boxes, masks and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcv.data.dataset import DetectionDataset, Target
from fastcv.data.figures import KEYPOINTS, PERSON, SHAPES, Outline, clutter, figure
from fastcv.data.photographs import Photographs
from fastcv.data.textures import Array, Colours, Random, background_colours, figure_colours, light, texture
from fastcv.ops import masks_to_boxes

__all__ = ["SCENE_CLASSES", "SceneDataset", "figures_on_photograph", "synthetic_scenes"]

SCENE_CLASSES = (*SHAPES, PERSON)
# The part of an object's pixels in the image that stays visible; nothing is put where it would hide more.
_LEAST_VISIBLE, _LEAST_VISIBLE_OF_PERSON = 0.6, 0.7
_TRIES = 8  # to find such a place
_PHOTOGRAPHS = 0.7  # part of the images with a photograph as background, if there are any


def synthetic_scenes(
    count: int,
    size: int = 128,
    seed: int = 0,
    classes: int | Sequence[str] = 5,
    first_label: int = 1,
    most: int = 5,
    backgrounds: str | PathLike[str] | None = None,
) -> SceneDataset:
    """Return a data set of generated images, made one by one when they are asked for. No download needed.

    Figures of any size, direction, colour and pattern stand in front of a patterned background with clutter, under
    noise and uneven light, and hide each other in part. Only the outline tells the class. The same arguments give the
    same images, and image ``i`` does not depend on ``count``.

    Parameters
    ----------
    count : int
        Number of images.
    size : int
        Height and width in pixels, at least 16.
    seed : int
        Random seed; other seeds give other images.
    classes : int or sequence of str
        How many of "circle", "square", "triangle", "star", "ring", "cross", "moon", "heart"; or names out of these and
        "person", a figure with five keypoints: head, left_hand, right_hand, left_foot, right_foot.
    first_label : int
        1 for detectors whose label 0 is the background, 0 for YOLO.
    most : int
        Most objects in an image; the least are none, in one image of twenty.
    backgrounds : path, optional
        A folder of photographs: seven of ten images get a part of one as background. Default: patterns.

    Returns
    -------
    SceneDataset
        Targets have boxes, masks of the visible parts, and keypoints if "person" is among the classes.

    Examples
    --------
    >>> data = synthetic_scenes(1000)
    >>> image, target = data[0]
    >>> image.shape, sorted(target)
    (torch.Size([3, 128, 128]), ['area', 'boxes', 'image_id', 'iscrowd', 'labels', 'masks'])
    """
    return SceneDataset(count, size, seed, classes, first_label, most, backgrounds)


def figures_on_photograph(
    photo: Tensor, classes: int | Sequence[str] = 5, seed: int = 0, first_label: int = 1
) -> tuple[Tensor, Target]:
    """Return a photograph with a figure of each class set into it, and where they are.

    Parameters
    ----------
    photo : Tensor (3, H, W)
        Values 0 to 1. The figures lie in its largest centred square.
    classes, seed, first_label
        As in :func:`synthetic_scenes`.

    Returns
    -------
    image : Tensor (3, H, W)
    target : dict
        boxes (N, 4), labels (N,) and masks (N, H, W) of the figures that found a place.
    """
    names = _class_names(classes)
    height, width = photo.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = photo.clone()
    part = image[:, top : top + side, left : left + side]
    scene = _Scene(Random(seed, 0), side, part.permute(1, 2, 0).numpy().copy())
    placed = [number for number, name in enumerate(names) if scene.put(name, whole=True)]
    part[...] = torch.from_numpy(scene.image.clip(0, 1)).permute(2, 0, 1)
    masks = torch.zeros(len(placed), height, width, dtype=torch.uint8)
    masks[:, top : top + side, left : left + side] = scene.visible()[0]
    boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return image, {"boxes": boxes, "labels": torch.tensor(placed, dtype=torch.int64) + first_label, "masks": masks}


class SceneDataset(DetectionDataset):
    """See :func:`synthetic_scenes`."""

    def __init__(
        self,
        count: int,
        size: int,
        seed: int,
        classes: int | Sequence[str],
        first_label: int,
        most: int,
        backgrounds: str | PathLike[str] | None = None,
    ) -> None:
        if count < 0:
            raise ValueError(f"count must not be negative, got {count}")
        if size < 16:
            raise ValueError(f"size must be at least 16, got {size}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        names = _class_names(classes)
        super().__init__({first_label + number: name for number, name in enumerate(names)})
        self.first_label = first_label
        self._count, self._size, self._seed, self._most = count, size, seed, most
        self._photographs = None if backgrounds is None else Photographs(backgrounds)
        if "person" in names:
            self.keypoint_names = list(KEYPOINTS)
            self.keypoint_pairs = [(1, 2), (3, 4)]
            self.skeleton = [(0, 1), (0, 2), (0, 3), (0, 4)]
            self.keypoint_sigmas = [0.08] * len(self.keypoint_names)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if not -self._count <= index < self._count:
            raise IndexError(f"index must be less than {self._count}, got {index}")
        index %= self._count
        random, photographs = Random(self._seed, index), self._photographs
        is_photograph = photographs is not None and random.chance(_PHOTOGRAPHS)
        ground = photographs.ground(random, self._size) if photographs is not None and is_photograph else None
        scene = _Scene(random, self._size, ground)
        labels = [] if scene.random.chance(0.05) else [0] * scene.random.integer(1, self._most + 1)
        for number in range(len(labels)):
            labels[number] = self.first_label + scene.random.integer(0, len(self.names))
        placed = scene.draw([self.names[label] for label in labels])
        masks, keypoints = scene.visible()
        boxes = masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])  # it counts to the last pixel's near side
        target: Target = {
            "boxes": boxes,
            "labels": torch.tensor([labels[number] for number in placed], dtype=torch.int64),
            "image_id": index,
            "area": masks.flatten(1).sum(1).float(),
            "iscrowd": torch.zeros(len(placed), dtype=torch.int64),
            "masks": masks,
        }
        if self.keypoint_names:
            target["keypoints"] = keypoints
        return scene.photograph(), target


class _Scene:
    """An image while it is drawn. ``owner`` is the number of the object that each pixel shows, 0 for none."""

    def __init__(self, random: Random, size: int, ground: Array | None = None) -> None:
        self.random, self.size = random, size
        self.colours: Colours | None = None  # of the pattern behind; a photograph has others everywhere
        self.image: Array = ground
        if ground is None:
            self.colours = background_colours(random)
            self.image = texture(random, size, size, self.colours, 0.15 * size)
        self.owner = np.zeros((size, size), np.int64)
        self.least = [0.0]  # the pixels of each number that must stay visible
        self.keypoints: list[NDArray[np.float32] | None] = []

    def draw(self, names: Sequence[str]) -> list[int]:
        """Draw clutter and objects. Return which of the names found a place."""
        for _ in range(self.random.integer(3, 10)):
            self._paint(clutter(self.random, self.size), background_colours(self.random))
        placed = []
        for number, name in enumerate(names):
            if self.put(name):
                placed.append(number)
            if self.random.chance(0.3):
                self._cover(clutter(self.random, self.size))
        return placed

    def put(self, name: str, whole: bool = False) -> bool:
        """Draw an object where it hides others little, and return whether there was such a place.

        ``whole`` are those that the image's edge does not cut.
        """
        radius = self.size * (self.random.between(0.15, 0.26) if name == PERSON else self.random.between(0.1, 0.22))
        for _ in range(_TRIES):
            outline = figure(name, self.random, self.size, radius)
            inside = outline.distance > 0
            area = int(np.count_nonzero(inside))
            if area and not (whole and _is_cut(outline, self.size)) and self._may_cover(outline, inside):
                share = _LEAST_VISIBLE_OF_PERSON if name == PERSON else _LEAST_VISIBLE
                self.least.append(max(1.0, share * area))
                self.keypoints.append(outline.keypoints)
                self.owner[outline.rows, outline.columns][inside] = len(self.least) - 1
                self._paint_figure(outline)
                return True
        return False

    def _cover(self, outline: Outline) -> None:
        """Draw clutter in front, if nothing is hidden too much by that."""
        inside = outline.distance > 0
        if self._may_cover(outline, inside):
            self.owner[outline.rows, outline.columns][inside] = 0
            self._paint(outline, background_colours(self.random))

    def _may_cover(self, outline: Outline, inside: NDArray[np.bool_]) -> bool:
        """Whether all objects stay visible enough if the pixels inside are covered."""
        before = np.bincount(self.owner.ravel(), minlength=len(self.least))
        taken = np.bincount(self.owner[outline.rows, outline.columns][inside], minlength=len(self.least))
        left = before - taken
        return bool((left[1:] >= self.least[1:]).all())

    def _paint_figure(self, outline: Outline) -> None:
        """Paint a figure with its shadow and, for some, an edge of another colour."""
        random = self.random
        unit = self.size / 128
        strength, soft = random.between(0, 0.5), unit * random.between(1.5, 5)
        down, right = (round(unit * random.between(-3, 3)) for _ in range(2))
        rows, columns = (np.arange(length) for length in outline.distance.shape)
        rows, columns = (rows - down).clip(0, len(rows) - 1), (columns - right).clip(0, len(columns) - 1)
        shadow = np.clip(0.5 + outline.distance[rows[:, None], columns] / soft, 0, 1) * strength
        behind = self._colours_behind(outline)
        self.image[outline.rows, outline.columns] *= (1 - shadow)[..., None]
        for part in outline.parts or [outline.distance]:
            window = Outline(outline.rows, outline.columns, part)
            if random.chance(0.3) and not outline.parts:
                self._paint(window, figure_colours(random, behind))
                window.distance = part - unit * random.between(1.5, 3)
            self._paint(window, figure_colours(random, behind))

    def _colours_behind(self, outline: Outline) -> Colours:
        """Return two colours of the background: those of its pattern, or a dark and a bright one of a photograph."""
        if self.colours is not None:
            return self.colours
        pixels = self.image[outline.rows, outline.columns][outline.distance > 0]
        mean, deviation = pixels.mean(0), pixels.std(0)
        return mean - deviation, mean + deviation

    def _paint(self, outline: Outline, colours: Colours) -> None:
        covered = outline.distance > -0.5
        rows, columns = covered.any(1).nonzero()[0], covered.any(0).nonzero()[0]
        if not len(rows):
            return
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        coverage = np.clip(outline.distance[window] + 0.5, 0, 1)[..., None]
        under = self.image[outline.rows, outline.columns][window]
        height, width = coverage.shape[:2]
        under += coverage * (texture(self.random, height, width, colours, 0.09 * self.size) - under)

    def visible(self) -> tuple[Tensor, Tensor]:
        """Return the masks (N, size, size) of what can be seen of each object, and the keypoints (N, K, 3)."""
        masks: Any = np.equal(self.owner, np.arange(1, len(self.least))[:, None, None])
        keypoints = np.zeros((len(masks), len(KEYPOINTS), 3), np.float32)
        for row, (mask, points) in enumerate(zip(masks, self.keypoints, strict=True)):
            if points is None:
                continue
            places = np.floor(points).astype(np.int64)
            inside: Any = ((places >= 0) & (places < self.size)).all(1)
            x, y = places.clip(0, self.size - 1).T
            keypoints[row, :, :2] = np.where(inside[:, None], points, 0)
            keypoints[row, :, 2] = np.where(inside, np.where(mask[y, x], 2, 1), 0)
        return torch.from_numpy(masks.astype(np.uint8)), torch.from_numpy(keypoints)

    def photograph(self) -> Tensor:
        """Return the image under uneven light with noise, of 256 brightnesses as a file has them."""
        size = self.size
        noise = self.random.between(0.005, 0.04) * self.random.normal(size, size, 3)
        image = self.image * light(self.random, size) + noise
        pixels = torch.from_numpy((image.clip(0, 1) * 255).round().astype(np.uint8))
        return pixels.permute(2, 0, 1).float() / 255


def _is_cut(outline: Outline, size: int) -> bool:
    """Whether a figure reaches the edge of the image."""
    rows, columns = outline.rows, outline.columns
    inside = outline.distance > 0
    edges = ((rows.start == 0, inside[0]), (rows.stop == size, inside[-1]), (columns.start == 0, inside[:, 0]))
    return any(at_edge and bool(line.any()) for at_edge, line in (*edges, (columns.stop == size, inside[:, -1])))


def _class_names(classes: int | Sequence[str]) -> list[str]:
    if isinstance(classes, int):
        if not 1 <= classes <= len(SHAPES):
            raise ValueError(f"classes must be 1 to {len(SHAPES)}, got {classes}")
        return list(SHAPES[:classes])
    names = [classes] if isinstance(classes, str) else list(classes)
    if not names or not set(names) <= set(SCENE_CLASSES) or len(set(names)) != len(names):
        raise ValueError(f"classes must be different names out of {', '.join(SCENE_CLASSES)}, got {names}")
    return names
