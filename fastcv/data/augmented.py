"""Data sets that change another one at random, each image in the same way for the same seed, epoch and index."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastcv.data.dataset import DetectionDataset, Target
from fastcv.data.objects import GREY, cropped, joined, resized, uniform
from fastcv.data.transforms import Transform

__all__ = ["Augmented", "MixUp", "Mosaic", "Transformed"]


class Augmented(DetectionDataset):
    """A data set with random changes; names and keypoints are those of the other.

    ``data[i]`` draws from a generator that is seeded by the seed, the epoch and the index: a run that is stopped and
    resumed in some epoch sees the same images, in any number of worker processes. ``data.sample(i, generator)`` draws
    from the generator given.

    Parameters
    ----------
    dataset : DetectionDataset
        May be augmented itself: then it draws from the same generator.
    seed : int
    """

    def __init__(self, dataset: DetectionDataset, seed: int = 0) -> None:
        super().__init__(dataset.names, dataset.category_ids)
        self.first_label = dataset.first_label
        self.keypoint_names, self.keypoint_pairs = dataset.keypoint_names, dataset.keypoint_pairs
        self.skeleton, self.keypoint_sigmas = dataset.skeleton, dataset.keypoint_sigmas
        self.dropped = dataset.dropped
        self.dataset, self.seed = dataset, seed
        # In shared memory: worker processes that live longer than an epoch see the new number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the random changes of an epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be less than {len(self)}, got {index}")
        entropy = [self.seed, int(self._epoch), index % len(self)]
        state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        return self.sample(index, torch.Generator().manual_seed(state >> 1))

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, Target]:
        """Return an image and its target with random changes."""
        raise NotImplementedError

    def labels(self, index: int) -> list[int]:
        """Return the labels of the image before it is changed."""
        return self.dataset.labels(index)

    def _inner(self, index: int, generator: torch.Generator) -> tuple[Tensor, Target]:
        if isinstance(self.dataset, Augmented):
            return self.dataset.sample(index, generator)
        return self.dataset[index]

    def _another(self, generator: torch.Generator) -> tuple[Tensor, Target]:
        index = int(torch.randint(len(self.dataset), (), generator=generator))
        return self._inner(index, generator)


class Transformed(Augmented):
    """A data set with a transform.

    Parameters
    ----------
    dataset : DetectionDataset
    transform : callable
        As those of :mod:`fastcv.data.transforms`.
    seed : int

    Examples
    --------
    >>> from fastcv.data import synthetic_scenes
    >>> from fastcv.data.transforms import HorizontalFlip
    >>> data = Transformed(synthetic_scenes(100), HorizontalFlip())
    >>> data.set_epoch(3)
    >>> image, target = data[0]
    """

    def __init__(self, dataset: DetectionDataset, transform: Transform, seed: int = 0) -> None:
        super().__init__(dataset, seed)
        self.transform = transform

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, Target]:
        image, target = self._inner(index, generator)
        return self.transform(image, target, generator)


class Mosaic(Augmented):
    """Four images around a random point: the one asked for at the top left, and three others.

    Each is scaled at random so that its longer side is ``scale`` times ``size``, touches the point with a corner, and
    is cut where its quarter ends; grey fills the rest. Objects of which less than a quarter is left are dropped.

    Parameters
    ----------
    dataset : DetectionDataset
    size : int
        Height and width of the result.
    seed : int
    probability : float
        Of a mosaic; other images are scaled to fit, at the top left.
    scale : (float, float)
        Range of the longer sides.

    References
    ----------
    Bochkovskiy, Wang, Liao: YOLOv4: Optimal Speed and Accuracy of Object Detection (2020), section 3.3.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        size: int,
        seed: int = 0,
        probability: float = 1.0,
        scale: tuple[float, float] = (0.5, 1.0),
    ) -> None:
        super().__init__(dataset, seed)
        if size < 16:
            raise ValueError(f"size must be at least 16, got {size}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be 0 to 1, got {probability}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be positive numbers in order, got {scale}")
        self.size, self.probability, self.scale = size, probability, scale

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, Target]:
        first = self._inner(index, generator)
        size = self.size
        if uniform(0, 1, generator) >= self.probability:
            return cropped(*_scaled(*first, size), 0, 0, size, size, 0.25)
        across, down = (round(size * uniform(0.25, 0.75, generator)) for _ in range(2))
        image = first[0].new_full((3, size, size), GREY)
        targets = []
        for quarter in range(4):
            part = first if quarter == 0 else self._another(generator)
            part = _scaled(*part, max(1, round(size * uniform(*self.scale, generator))))
            right, low = quarter % 2, quarter // 2
            columns = slice(across, size) if right else slice(0, across)
            rows = slice(down, size) if low else slice(0, down)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            top = 0 if low else part[0].shape[1] - height
            left = 0 if right else part[0].shape[2] - width
            piece, target = cropped(*part, top, left, height, width, 0.25)
            image[:, rows, columns] = piece
            # The same target on the whole canvas: nothing more is cut.
            _, target = cropped(piece, target, -rows.start, -columns.start, size, size, 0.0)
            targets.append(target)
        return image, joined(targets)


class MixUp(Augmented):
    """An image over another one: the mean of both, with the objects of both.

    Parameters
    ----------
    dataset : DetectionDataset
        Images of any sizes; the other one is scaled to fit into the first.
    seed : int
    probability : float
    weight : (float, float)
        Range of the first image's part in the mean.

    References
    ----------
    Zhang et al.: mixup: Beyond Empirical Risk Minimization (2018); for detectors: Ge et al.: YOLOX (2021).
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        seed: int = 0,
        probability: float = 0.5,
        weight: tuple[float, float] = (0.4, 0.6),
    ) -> None:
        super().__init__(dataset, seed)
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be 0 to 1, got {probability}")
        if not 0 <= weight[0] <= weight[1] <= 1:
            raise ValueError(f"weight must be numbers from 0 to 1 in order, got {weight}")
        self.probability, self.weight = probability, weight

    def sample(self, index: int, generator: torch.Generator) -> tuple[Tensor, Target]:
        image, target = self._inner(index, generator)
        if uniform(0, 1, generator) >= self.probability:
            return image, target
        other, more = self._another(generator)
        height, width = image.shape[1:]
        factor = min(height / other.shape[1], width / other.shape[2])
        other, more = resized(other, more, *(max(1, int(side * factor + 1e-6)) for side in other.shape[1:]))
        other, more = cropped(other, more, 0, 0, height, width, 0.0)
        weight = uniform(*self.weight, generator)
        return image * weight + other * (1 - weight), joined([target, more])


def _scaled(image: Tensor, target: Target, longer: int) -> tuple[Tensor, Target]:
    factor = longer / max(image.shape[1:])
    height, width = (max(1, round(side * factor)) for side in image.shape[1:])
    return resized(image, target, height, width)
