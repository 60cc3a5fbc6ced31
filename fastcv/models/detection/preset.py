"""What programs ask a member of an enumeration of weights for: its classes, and what is done to an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastcv.class_names import COCO_91

__all__ = ["ObjectDetection", "meta_of"]

_KEYPOINTS = """
nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist
left_hip right_hip left_knee right_knee left_ankle right_ankle
"""


class ObjectDetection(nn.Module):
    """Images as a detector takes them, of the size that they have. A drop-in for torchvision's."""

    def forward(self, img: Any) -> Tensor:
        """Return an image of PIL, an array (H, W, C) or a tensor (..., C, H, W), as float32; integers become 0 to 1."""
        image = img if isinstance(img, Tensor) else _planes(np.array(img))
        if image.is_floating_point() or image.dtype is torch.bool:
            return image.to(torch.float32)
        return image.to(torch.float32) / torch.iinfo(image.dtype).max


def _planes(pixels: Any) -> Tensor:
    """Return an array (H, W) or (H, W, C) as a tensor (C, H, W)."""
    if pixels.ndim not in (2, 3):
        raise ValueError(f"img must be an image (H, W) or (H, W, C), got an array of shape {pixels.shape}")
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1).contiguous()


def meta_of(model: str) -> dict[str, Any]:
    """Return the classes of torchvision's published weights of a model, by label, and its keypoints if it has some."""
    if model.startswith("keypoint"):
        return {"categories": ["no person", "person"], "keypoint_names": _KEYPOINTS.split(), "min_size": (1, 1)}
    names = [COCO_91.get(label, "N/A") for label in range(max(COCO_91) + 1)]
    return {"categories": ["__background__", *names[1:]], "min_size": (1, 1)}
