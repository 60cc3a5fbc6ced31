"""Transforms of torchvision (v2) for the targets of this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv._optional import require
from fastcv.data.dataset import Target
from fastcv.data.objects import agreeing_boxes, box_area, inside, selected, swap_pairs

__all__ = ["TorchvisionTransform"]


class TorchvisionTransform:
    """Apply a transform of ``torchvision.transforms.v2`` to an image with its boxes, masks and keypoints.

    torchvision draws from torch's global random numbers; here they are seeded from the generator for each call, and
    put back afterwards, so that the same generator gives the same result. Objects without area that is left are
    dropped, and boxes are drawn around the masks where the two differ by more than a pixel, as after a rotation.
    Keypoints out of the image count as not annotated.

    Parameters
    ----------
    transform : callable
        Takes an image and a dict, as all transforms of v2 do.
    keypoint_pairs : sequence of (int, int)
        Keypoints that change places when the image is mirrored, which torchvision does not know of.

    Examples
    --------
    >>> from torchvision.transforms import v2
    >>> from fastcv.data import synthetic_scenes
    >>> image, target = synthetic_scenes(1)[0]
    >>> transform = TorchvisionTransform(v2.Compose([v2.RandomHorizontalFlip(), v2.RandomRotation(20)]))
    >>> image, target = transform(image, target, torch.Generator().manual_seed(0))
    """

    def __init__(self, transform: Callable[..., Any], keypoint_pairs: Sequence[tuple[int, int]] = ()) -> None:
        self._tensors = require("torchvision.tv_tensors", "TorchvisionTransform")
        self.transform, self.keypoint_pairs = transform, list(keypoint_pairs)

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> tuple[Tensor, Target]:
        size = (image.shape[1], image.shape[2])
        count = len(target["boxes"])
        wrapped: dict[str, Any] = {
            "boxes": self._tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size),
            "labels": torch.arange(count),  # what a transform leaves out is missing here
        }
        if "masks" in target:
            wrapped["masks"] = self._tensors.Mask(target["masks"])
        if "keypoints" in target:
            # Two more points tell whether the image was mirrored.
            frame = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) + torch.tensor([size[1] // 2, size[0] // 2])
            points = torch.cat([target["keypoints"][..., :2].reshape(-1, 2), frame])
            wrapped["keypoints"] = self._tensors.KeyPoints(points, canvas_size=size)
        seed = int(torch.randint(1 << 62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image, wrapped = self.transform(self._tensors.Image(image), wrapped)
        image = image.as_subclass(Tensor).contiguous()
        return image, self._unwrapped(wrapped, target, image)

    def _unwrapped(self, wrapped: dict[str, Any], before: Target, image: Tensor) -> Target:
        height, width = image.shape[1:]
        kept = wrapped["labels"]
        target = selected(before, kept)
        if "keypoints" in target:
            points = wrapped["keypoints"].as_subclass(Tensor)
            moved, frame = points[:-3].reshape(-1, before["keypoints"].shape[1], 2), points[-3:]
            keypoints = torch.cat([moved[kept], target["keypoints"][..., 2:]], 2)
            across, down = frame[1] - frame[0], frame[2] - frame[0]
            if across[0] * down[1] - across[1] * down[0] < 0:
                keypoints = swap_pairs(keypoints, self.keypoint_pairs)
                # torchvision mirrors the numbers of pixels: x to width - 1 - x. Boxes go to width - x, and so do these.
                keypoints[..., :2] -= across if across[0] < 0 else down
            target["keypoints"] = inside(keypoints, height, width)
        boxes = wrapped["boxes"].as_subclass(Tensor).float()
        boxes = boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        if "masks" in target:
            target["masks"] = wrapped["masks"].as_subclass(Tensor).contiguous()
            boxes = agreeing_boxes(boxes, target["masks"])
        old = before["boxes"][kept]
        target["boxes"] = boxes
        if "area" in target:
            if "masks" in target:
                ratio = target["masks"].flatten(1).sum(1) / before["masks"][kept].flatten(1).sum(1).clamp(min=1)
            else:
                ratio = box_area(boxes) / box_area(old).clamp(min=1e-9)
            target["area"] = target["area"] * ratio
        return selected(target, box_area(boxes) > 0)
