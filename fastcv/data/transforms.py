"""Changes of images with their boxes, masks and keypoints. All random numbers come from the generator given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv.data.dataset import Target
from fastcv.data.objects import cropped, mirrored, resized, uniform

__all__ = ["ColourJitter", "Compose", "HorizontalFlip", "RandomCrop", "Resize", "ScaleJitter", "Transform"]

Transform = Callable[[Tensor, Target, torch.Generator], tuple[Tensor, Target]]


class Compose:
    """One transform after another.

    Examples
    --------
    >>> from fastcv.data import synthetic_scenes
    >>> image, target = synthetic_scenes(1)[0]
    >>> transform = Compose([HorizontalFlip(), ScaleJitter(0.8, 1.25), RandomCrop(128), ColourJitter()])
    >>> image, target = transform(image, target, torch.Generator().manual_seed(0))
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        for transform in self.transforms:
            image, target = transform(image, target, generator)
        return image, target


class HorizontalFlip:
    """Mirror left and right.

    Parameters
    ----------
    probability : float
    keypoint_pairs : sequence of (int, int)
        Keypoints that change places, as ``dataset.keypoint_pairs`` has them: a mirrored left hand is a right hand.
    """

    def __init__(self, probability: float = 0.5, keypoint_pairs: Sequence[tuple[int, int]] = ()) -> None:
        _check_probability(probability)
        self.probability, self.keypoint_pairs = probability, list(keypoint_pairs)

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        if uniform(0, 1, generator) >= self.probability:
            return image, target
        return mirrored(image, target, self.keypoint_pairs)


class Resize:
    """Scale to a height and width. Images are averaged where they get smaller; masks take the nearest pixel.

    Parameters
    ----------
    size : int or (int, int)
        Height and width. A single number is the longer side, and the shape is kept.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        if min(size if isinstance(size, tuple) else (size,)) < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        height, width = image.shape[1:]
        if isinstance(self.size, tuple):
            return resized(image, target, *self.size)
        scale = self.size / max(height, width)
        return resized(image, target, max(1, round(height * scale)), max(1, round(width * scale)))


class ScaleJitter:
    """Scale by a random factor, spread evenly in its logarithm; the shape is kept.

    Parameters
    ----------
    least, most : float
        Range of the factor.
    """

    def __init__(self, least: float = 0.5, most: float = 2.0) -> None:
        if not 0 < least <= most:
            raise ValueError(f"least and most must be positive and in order, got {least} and {most}")
        self.least, self.most = least, most

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        scale = self.least * (self.most / self.least) ** uniform(0, 1, generator)
        height, width = (max(1, round(side * scale)) for side in image.shape[1:])
        return resized(image, target, height, width)


class RandomCrop:
    """Cut out a random window; smaller images get a grey border, and stand at a random place in it.

    Boxes are cut at the window, and drawn around what is left of the mask where there are masks. Keypoints outside
    count as not annotated. Objects of which less than ``least_visible`` is left are dropped.

    Parameters
    ----------
    size : int or (int, int)
        Height and width of the window.
    least_visible : float
        Of the object's area: of its mask, or of its box where there are no masks.
    """

    def __init__(self, size: int | tuple[int, int], least_visible: float = 0.25) -> None:
        height, width = size if isinstance(size, tuple) else (size, size)
        if min(height, width) < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        _check_probability(least_visible, "least_visible")
        self.height, self.width, self.least_visible = height, width, least_visible

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        room = image.shape[1] - self.height, image.shape[2] - self.width
        top, left = (round(side * uniform(0, 1, generator)) for side in room)  # negative: a border
        return cropped(image, target, top, left, self.height, self.width, self.least_visible)


class ColourJitter:
    """Change brightness, contrast, saturation and hue at random; boxes and masks stay.

    Parameters
    ----------
    brightness, contrast, saturation : float
        The factor of each is between 1 - value and 1 + value.
    hue : float
        Colours turn by up to so much of the colour circle, in YIQ.
    """

    def __init__(
        self, brightness: float = 0.3, contrast: float = 0.3, saturation: float = 0.4, hue: float = 0.03
    ) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            _check_probability(value, name)
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue must be 0 to 0.5, got {hue}")
        self.ranges, self.hue = (brightness, contrast, saturation), hue

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        brightness, contrast, saturation = (uniform(1 - r, 1 + r, generator) for r in self.ranges)
        angle = torch.tensor(uniform(-self.hue, self.hue, generator) * 2 * torch.pi, dtype=torch.float64)
        # In YIQ saturation is the length of (I, Q) and hue its direction: one matrix for both.
        turn = torch.eye(3, dtype=torch.float64)
        turn[1:, 1:] = saturation * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
        matrix = (_TO_RGB @ turn @ _TO_YIQ * brightness).float().to(image.device)
        changed = F.conv2d(image[None], matrix[:, :, None, None])[0]
        grey = changed.mean()
        return ((changed - grey) * contrast + grey).clamp(0, 1), target


_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64
)
_TO_RGB = torch.linalg.inv(_TO_YIQ)


def _check_probability(value: float, name: str = "probability") -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be 0 to 1, got {value}")
