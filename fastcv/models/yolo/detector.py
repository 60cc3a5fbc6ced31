"""YOLO: a Darknet network with preprocessing and postprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.detection.checks import check_images
from fastcv.models.yolo.network import DarknetNetwork
from fastcv.models.yolo.transform import Placement, letterbox, stretch
from fastcv.models.yolo.weights import DarknetWeights
from fastcv.ops.nms import batched_nms

__all__ = ["YOLO"]

_RESIZE = {"letterbox": letterbox, "stretch": stretch}


class YOLO(nn.Module):
    """From a list of images to a list of detections.

    Parameters
    ----------
    network : DarknetNetwork
        With at least one head; all heads must have the same classes.
    score_thresh : float
        Least score, confidence × class probability, of a detection.
    nms_thresh : float
        A box is dropped if its IoU with a better one of its class is larger.
    detections_per_img : int
        Most detections of an image.
    resize : {"letterbox", "stretch"}
        How images are brought to the network's size: with their aspect ratio, on a grey ground, or without.

    Notes
    -----
    A box can be found as several classes, as in Darknet: each class whose score is high enough is a detection.
    """

    first_label = 0  # there is no background

    def __init__(
        self,
        network: DarknetNetwork,
        score_thresh: float = 0.25,
        nms_thresh: float = 0.45,
        detections_per_img: int = 100,
        resize: str = "letterbox",
    ) -> None:
        super().__init__()
        classes = {head.classes for head in network.heads}
        if len(classes) != 1:
            raise ValueError(f"network must have heads, all of the same classes, got {sorted(classes)}")
        if resize not in _RESIZE:
            raise ValueError(f"resize must be one of {', '.join(_RESIZE)}, got {resize!r}")
        self.network = network
        self.classes = classes.pop()
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.resize = resize
        self.eval()  # there is no training yet

    def forward(self, images: Sequence[Tensor] | Tensor) -> list[dict[str, Tensor]]:
        """Detect objects.

        Parameters
        ----------
        images : list of Tensor (3, H, W), or Tensor (N, 3, H, W)
            RGB, floating, values 0 to 1; in a list of any sizes.

        Returns
        -------
        list of dict
            Per image: boxes (D, 4), x1, y1, x2, y2 in pixels of the image; labels (D,), int64, from 0 (there is no
            background); scores (D,) by descending score.

        Raises
        ------
        ValueError, TypeError
            For images other than described.
        RuntimeError
            In training mode.
        """
        if self.training:
            raise RuntimeError("a YOLO model cannot be trained yet: call eval() first")
        listed: Any = list(images.unbind()) if isinstance(images, Tensor) and images.dim() == 4 else images
        channels = self.network.input_shape[0]
        check_images(listed, channels, channels == 3)
        batch, placements = self.preprocess(listed)
        boxes, scores = self.decode(self.network(batch))
        return self.postprocess(boxes, scores, placements)

    def preprocess(self, images: Sequence[Tensor]) -> tuple[Tensor, list[Placement]]:
        """Return the images in the size and dtype of the network (N, C, H, W), and where they lie in it."""
        dtype = next((p.dtype for p in self.network.parameters()), torch.float32)
        _, height, width = self.network.input_shape
        resized, placements = zip(*(_RESIZE[self.resize](image, (height, width)) for image in images), strict=True)
        return torch.stack(resized).to(dtype), list(placements)

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the boxes (N, K, 4) and scores (N, K, classes) of all heads, in pixels of the network's input."""
        decoded = [head.decode(output.float()) for head, output in zip(self.network.heads, outputs, strict=True)]
        return torch.cat([boxes for boxes, _ in decoded], 1), torch.cat([scores for _, scores in decoded], 1)

    def postprocess(self, boxes: Tensor, scores: Tensor, placements: Sequence[Placement]) -> list[dict[str, Tensor]]:
        """Return the detections of each image: high enough scores, without boxes that others of their class cover."""
        image, box, label = (scores >= self.score_thresh).nonzero(as_tuple=True)
        boxes, scores = boxes[image, box], scores[image, box, label]
        kept = batched_nms(boxes, scores, image * self.classes + label, self.nms_thresh)
        boxes, scores, label, image = boxes[kept], scores[kept], label[kept], image[kept]
        found: list[dict[str, Tensor]] = []
        for index, placement in enumerate(placements):
            mine = (image == index).nonzero()[:, 0]
            inside = placement.boxes_in_image(boxes[mine])
            visible = ((inside[:, 2:] > inside[:, :2]).all(1)).nonzero()[:, 0][: self.detections_per_img]
            rows = mine[visible]
            found.append({"boxes": inside[visible], "labels": label[rows], "scores": scores[rows]})
        return found

    def load_weights(self, weights: str | Path | DarknetWeights) -> YOLO:
        """Load a ``.weights`` file, as :meth:`DarknetNetwork.load_weights` does, and return the model."""
        self.network.load_weights(weights)
        return self
