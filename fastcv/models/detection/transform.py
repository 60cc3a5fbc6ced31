"""Preprocessing of images and targets for a detector, and postprocessing of its detections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.ops.paste_masks import paste_masks

__all__ = [
    "DetectionTransform",
    "GeneralizedRCNNTransform",
    "ImageList",
    "paste_masks_in_image",
    "resize_boxes",
    "resize_keypoints",
]

Size = tuple[int, int]
Target = dict[str, Tensor]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass
class ImageList:
    """Images of several sizes in one batch.

    Attributes
    ----------
    tensors : Tensor (N, C, H, W)
        Padded with zeros at the right and at the bottom.
    image_sizes : list of (height, width)
        Size of each image without its padding.
    """

    tensors: Tensor
    image_sizes: list[Size]

    def to(self, device: torch.device | str) -> ImageList:
        """Return the same on a device."""
        return ImageList(self.tensors.to(device), self.image_sizes)


class DetectionTransform(nn.Module):
    """Normalise, resize and batch images, and their targets with them; torchvision's GeneralizedRCNNTransform.

    Parameters
    ----------
    min_size : int or sequence of int
        The shorter side is resized to this length, or to less if the longer side would exceed ``max_size``. Of
        several values, training draws one per image and evaluation uses the last.
    max_size : int
        Maximum length of the longer side.
    image_mean, image_std : sequence of float
        Per channel.
    size_divisible : int
        Height and width of the batch are padded to multiples of this.
    fixed_size : (width, height), optional
        Every image is resized to exactly this size.
    """

    def __init__(
        self,
        min_size: int | Sequence[int],
        max_size: int,
        image_mean: Sequence[float] = MEAN,
        image_std: Sequence[float] = STD,
        size_divisible: int = 32,
        fixed_size: tuple[int, int] | None = None,
        _skip_resize: bool = False,
    ) -> None:
        super().__init__()
        listed: Any = (min_size,) if isinstance(min_size, Real) else min_size
        self.min_size: tuple[int, ...] = tuple(listed)
        self.max_size = max_size
        for name, sides in (("min_size", self.min_size), ("max_size", (max_size,))):
            if not sides or not all(isinstance(side, Real) and side > 0 for side in sides):
                raise ValueError(f"{name} must be positive numbers, got {', '.join(map(str, sides)) or 'nothing'}")
        self.image_mean, self.image_std = (  # arrays and tensors are taken, too
            values if isinstance(values, list | tuple) else [float(value) for value in values]
            for values in (image_mean, image_std)
        )
        self.size_divisible = size_divisible
        self.fixed_size = fixed_size
        self._skip_resize = _skip_resize

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """Return the batch, and the targets in its pixels.

        Parameters
        ----------
        images : sequence of Tensor (C, H, W)
            Floating, values 0 to 1.
        targets : sequence of dict, optional
            One dictionary per image, with boxes (N, 4) and, optionally, masks (N, H, W) and keypoints (N, K, 3).
        """
        resized = []
        moved: list[Target] | None = None if targets is None else []
        for index, image in enumerate(images):
            image, target = self.resize(self.normalize(image), None if targets is None else dict(targets[index]))
            resized.append(image)
            if moved is not None and target is not None:
                moved.append(target)
        return ImageList(self.batch_images(resized, self.size_divisible), [_size_of(image) for image in resized]), moved

    def normalize(self, image: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation, channel by channel.

        With Python numbers: tensors would have to be copied to the device, which a CUDA graph does not allow.
        """
        if not image.is_floating_point():
            raise TypeError(f"image must be floating, with values 0 to 1, got {image.dtype}")
        channels = zip(image.unbind(-3), self.image_mean, self.image_std, strict=True)
        return torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=-3)

    def resized_size(self, height: int, width: int) -> Size:
        """Return the size to which an image of this size is resized; in training it may be random."""
        shortest = self.min_size[-1]
        if self.training:
            if self._skip_resize:
                return height, width
            shortest = self.torch_choice(self.min_size)
        if self.fixed_size is not None:
            return self.fixed_size[1], self.fixed_size[0]
        scale = min(shortest / min(height, width), self.max_size / max(height, width))
        size = math.floor(height * scale), math.floor(width * scale)
        if 0 in size:
            raise ValueError(
                f"the image must not be so narrow that no pixel is left after resizing: {height}x{width} would become "
                f"{size[0]}x{size[1]}"
            )
        return size

    def torch_choice(self, k: Sequence[int]) -> int:
        """Return one of ``k`` at random. The same seed gives the same as in torchvision."""
        return k[int(torch.empty(1).uniform_(0.0, float(len(k))).item())]

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        """Resize an image (C, H, W), and its target with it, to the size that it should have."""
        before = _size_of(image)
        size = self.resized_size(*before)
        return resize_images(image, size), None if target is None else _resize_target(target, before, size)

    def batch_images(self, images: Sequence[Tensor], size_divisible: int = 32) -> Tensor:
        """Copy images (C, H, W) into one zero tensor whose height and width are multiples of ``size_divisible``."""
        _, height, width = self.max_by_axis([image.shape for image in images])
        height, width = (math.ceil(side / size_divisible) * size_divisible for side in (height, width))
        batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
        for index, image in enumerate(images):  # not by views: they could not be written where gradients are recorded
            batch[index, :, : image.shape[1], : image.shape[2]] = image
        return batch

    def max_by_axis(self, the_list: Sequence[Sequence[int]]) -> list[int]:
        """Return the largest size along each axis."""
        return [max(sizes) for sizes in zip(*the_list, strict=True)]

    def postprocess(
        self, result: list[Target], image_shapes: Sequence[Size], original_image_sizes: Sequence[Size]
    ) -> list[Target]:
        """Convert detections from pixels of the batch to pixels of the original images, in place, and return them.

        In training nothing is changed.

        Parameters
        ----------
        result : list of dict
            With boxes (D, 4) and, optionally, masks (D, 1, M, M), which are pasted into the image, and keypoints
            (D, K, 3).
        image_shapes, original_image_sizes : sequence of (height, width)
            Sizes of the resized and of the original images.
        """
        if self.training:
            return result
        for image, resized, size in zip(result, image_shapes, original_image_sizes, strict=True):
            image["boxes"] = resize_boxes(image["boxes"], resized, size)
            if "masks" in image:
                image["masks"] = paste_masks(image["masks"], image["boxes"], size)
            if "keypoints" in image:
                image["keypoints"] = resize_keypoints(image["keypoints"], resized, size)
        return result

    def extra_repr(self) -> str:
        return f"min_size={self.min_size}, max_size={self.max_size}, mean={self.image_mean}, std={self.image_std}"


GeneralizedRCNNTransform = DetectionTransform


def resize_images(images: Tensor, size: Size) -> Tensor:
    """Resize (..., C, H, W) bilinearly."""
    if size == _size_of(images):
        return images
    batch = images if images.dim() == 4 else images[None]
    resized = F.interpolate(batch, size=size, mode="bilinear", align_corners=False)
    return resized if images.dim() == 4 else resized[0]


def _size_of(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]


def _resize_target(target: Target, old: Size, new: Size) -> Target:
    target = dict(target)
    target["boxes"] = resize_boxes(target["boxes"], old, new)
    if "masks" in target:
        masks = target["masks"]
        # torch refuses to resize a batch of none
        resized = F.interpolate(masks[:, None].float(), size=new)[:, 0] if len(masks) else masks.new_empty(0, *new)
        target["masks"] = resized.byte()
    if "keypoints" in target:
        target["keypoints"] = resize_keypoints(target["keypoints"], old, new)
    return target


def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: Size, padding: int = 1) -> Tensor:
    """Return masks (D, 1, M, M) of boxes (D, 4) in the pixels of the image, (D, 1, height, width)."""
    return paste_masks(masks, boxes, img_shape, padding)


def resize_boxes(boxes: Tensor, old: Size, new: Size) -> Tensor:
    """Scale boxes (..., 4) of an image that is resized from ``old`` to ``new`` (height, width)."""
    y, x = (after / before for before, after in zip(old, new, strict=True))
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1 * x, y1 * y, x2 * x, y2 * y), dim=-1)


def resize_keypoints(keypoints: Tensor, old: Size, new: Size) -> Tensor:
    """Scale keypoints (..., 3), rows of x, y and visibility, as :func:`resize_boxes` does."""
    y, x = (after / before for before, after in zip(old, new, strict=True))
    return torch.stack((keypoints[..., 0] * x, keypoints[..., 1] * y, keypoints[..., 2]), dim=-1)
