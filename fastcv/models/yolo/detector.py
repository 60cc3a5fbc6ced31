"""YOLO: a Darknet network with preprocessing and postprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.class_names import COCO_80, VOC_20
from fastcv.models.detection.checks import check_boxes_and_labels, check_images
from fastcv.models.detection.fixed_size import drop_padding, gather_rows, rows_needed
from fastcv.models.yolo.losses import Truth
from fastcv.models.yolo.network import DarknetNetwork
from fastcv.models.yolo.transform import Placement, boxes_in_images, letterbox, stretch
from fastcv.models.yolo.weights import DarknetWeights
from fastcv.ops.nms import batched_nms_padded

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
    candidates_per_img : int
        Most pairs of box and class of a head, the best, that go into the suppression.
    names : list of str or dict, optional
        Names of the classes, by label. Default: COCO's for 80 classes, VOC's for 20.

    Attributes
    ----------
    names : dict of int to str
        Empty where they are not known.

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
        candidates_per_img: int = 4096,
        names: Sequence[str] | Mapping[int, str] | None = None,
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
        self.candidates_per_img = candidates_per_img
        if names is None:
            names = {80: COCO_80, 20: VOC_20}.get(self.classes, {})
        self.names = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        self.eval()  # most come with weights; training asks for train()

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[dict[str, Tensor]] | None = None
    ) -> list[dict[str, Tensor]] | dict[str, Tensor]:
        """Detect objects, or return the losses in training mode.

        Parameters
        ----------
        images : list of Tensor (3, H, W), or Tensor (N, 3, H, W)
            RGB, floating, values 0 to 1; in a list of any sizes.
        targets : list of dict, for training
            Per image: boxes (M, 4), x1, y1, x2, y2 in pixels of the image; labels (M,), int64, from 0.

        Returns
        -------
        list of dict
            In evaluation, per image: boxes (D, 4), x1, y1, x2, y2 in pixels of the image; labels (D,), int64, from 0
            (there is no background); scores (D,) by descending score.
        dict of str to Tensor ()
            In training, the terms of the papers' losses over all heads: loss_coord, loss_object, loss_noobject and
            loss_class. Sums over an image, means over images; their sum is to be minimised.

        Raises
        ------
        ValueError, TypeError
            For images or targets other than described.
        KeyError
            For targets without boxes or labels.
        """
        listed: Any = list(images.unbind()) if isinstance(images, Tensor) and images.dim() == 4 else images
        channels = self.network.input_shape[0]
        check_images(listed, channels, channels == 3)
        if targets is not None or self.training:
            check_boxes_and_labels(targets, listed, self.first_label, self.classes)
        batch, placements = self.preprocess(listed)
        if self.training:
            assert targets is not None
            return self.losses(self.network(batch), make_truth(targets, placements))
        found = self.postprocess(self.network(batch), placements)
        counts = found.pop("count").tolist()  # the only synchronisation
        return [{name: value[i, :count] for name, value in found.items()} for i, count in enumerate(counts)]

    def forward_padded(self, images: Tensor) -> dict[str, Tensor]:
        """Detect objects in images of one size, with results of fixed size.

        There is no synchronisation: a CUDA graph can capture the whole inference, and ``torch.compile`` makes one graph
        of it (``fullgraph=True``).

        Parameters
        ----------
        images : Tensor (N, 3, H, W)
            Values 0 to 1.

        Returns
        -------
        dict of str to Tensor
            The results of :meth:`forward`, stacked: boxes (N, D, 4), labels (N, D) and scores (N, D), where D is
            ``detections_per_img``, and count (N,). Only the first ``count`` rows of an image are valid; the others are
            zero.
        """
        if self.training:
            raise RuntimeError("forward_padded is for evaluation: call eval() first")
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
        if images.dim() != 4:
            raise ValueError(f"images must have shape (N, 3, H, W), got {tuple(images.shape)}")
        check_images(list(images.unbind()), self.network.input_shape[0], False)
        batch, placement = _RESIZE[self.resize](images, self.network.input_shape[1:])
        found = self.postprocess(self.network(batch.to(self._dtype())), [placement] * len(images))
        missing = self.detections_per_img - found["scores"].shape[1]
        return {
            name: value if name == "count" or not missing else _lengthened(value, missing)
            for name, value in found.items()
        }

    def preprocess(self, images: Sequence[Tensor]) -> tuple[Tensor, list[Placement]]:
        """Return the images in the size and dtype of the network (N, C, H, W), and where they lie in it."""
        _, height, width = self.network.input_shape
        resized, placements = zip(*(_RESIZE[self.resize](image, (height, width)) for image in images), strict=True)
        return torch.stack(resized).to(self._dtype()), list(placements)

    def decode(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the boxes (N, K, 4) and scores (N, K, classes) of all heads, in pixels of the network's input."""
        decoded = [head.decode(output.float()) for head, output in zip(self.network.heads, outputs, strict=True)]
        return torch.cat([boxes for boxes, _ in decoded], 1), torch.cat([scores for _, scores in decoded], 1)

    def candidates(self, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the boxes (N, K, 4), scores (N, K) and labels (N, K) of :meth:`decode` with high enough scores.

        The table of all scores is not made. Behind the last of an image scores are minus infinity.
        """
        parts: list[tuple[Tensor, ...]] = []
        for head, output in zip(self.network.heads, outputs, strict=True):
            *found, count = head.candidates(output, self.score_thresh, self.candidates_per_img)
            rows = rows_needed(count, self.candidates_per_img)
            parts.append(tuple(part[:, :rows] for part in found))
        boxes, scores, labels = (torch.cat(part, 1) if len(part) > 1 else part[0] for part in zip(*parts, strict=True))
        return boxes.float(), scores.float(), labels

    def postprocess(self, outputs: Sequence[Tensor], placements: Sequence[Placement]) -> dict[str, Tensor]:
        """Return the detections of the images: high enough scores, without boxes that others of their class cover.

        Parameters
        ----------
        outputs : sequence of Tensor
            The maps of the heads, for N images.
        placements : sequence of Placement
            Where the images lie in the network's input.

        Returns
        -------
        dict of str to Tensor
            boxes (N, D, 4) in pixels of the images, labels (N, D), scores (N, D) and count (N,): the first ``count``
            rows of an image are valid, the others are zero.
        """
        boxes, scores, labels = self.candidates(outputs)
        kept, _ = batched_nms_padded(boxes, scores, labels, self.nms_thresh, scores.shape[1])
        kept, _ = drop_padding(kept, scores)
        boxes = boxes_in_images(gather_rows(boxes, kept), placements)
        inside = (kept >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
        count = inside.sum(1).clamp(max=self.detections_per_img)
        rows = rows_needed(count, min(self.detections_per_img, kept.shape[1]))
        place = (~inside).byte().sort(dim=1, stable=True).indices[:, :rows]  # those inside of the image first
        valid = torch.arange(rows, device=count.device) < count[:, None]
        kept = kept.gather(1, place).clamp(min=0)
        return {
            "boxes": gather_rows(boxes, place).masked_fill(~valid[..., None], 0),
            "labels": labels.gather(1, kept).masked_fill(~valid, 0),
            "scores": scores.gather(1, kept).masked_fill(~valid, 0),
            "count": count,
        }

    def losses(self, outputs: Sequence[Tensor], truth: Truth) -> dict[str, Tensor]:
        """Return the losses of the heads' maps for objects in pixels of the network's input, summed over the heads."""
        total: dict[str, Tensor] = {}
        for head, output in zip(self.network.heads, outputs, strict=True):
            precise = output if output.dtype is torch.float64 else output.float()
            for name, loss in head.losses(precise, truth).items():
                total[name] = total[name] + loss if name in total else loss
        return total

    @property
    def optimized(self) -> bool:
        """Whether :meth:`optimize` has been called."""
        return self.network.optimized

    def optimize(self, dtype: torch.dtype | None = None) -> YOLO:
        """Prepare the model for fast inference, permanently and in place, and return it.

        Folds batch normalisation into the convolutions and activations behind them, stores weights in channels_last and
        sets evaluation mode. The names in ``state_dict()`` change: load weights before.

        Parameters
        ----------
        dtype : torch.dtype, optional
            bfloat16 or float16, for the network to compute in. Boxes are still decoded in float32.
        """
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(f"dtype must be torch.float32, torch.bfloat16 or torch.float16, got {dtype}")
        self.network.optimize()
        if dtype is not None:
            self.to(dtype)
        return self.eval()

    def load_weights(self, weights: str | Path | DarknetWeights) -> YOLO:
        """Load a ``.weights`` file, as :meth:`DarknetNetwork.load_weights` does, and return the model."""
        self.network.load_weights(weights)
        return self

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.network.parameters()), torch.float32)


def make_truth(targets: Sequence[dict[str, Tensor]], placements: Sequence[Placement]) -> Truth:
    """Return the objects of the images, cut at their borders, in pixels of the network's input."""
    most = max(1, *(len(target["boxes"]) for target in targets))
    boxes = targets[0]["boxes"].new_zeros(len(targets), most, 4, dtype=torch.float32)
    labels = targets[0]["labels"].new_zeros(len(targets), most)
    valid = labels.new_zeros(labels.shape, dtype=torch.bool)
    for index, (target, placement) in enumerate(zip(targets, placements, strict=True)):
        count = len(target["boxes"])
        boxes[index, :count] = placement.boxes_in_network(target["boxes"].float())
        labels[index, :count] = target["labels"]
        valid[index, :count] = True
    return Truth(boxes, labels, valid)


def _lengthened(rows: Tensor, by: int) -> Tensor:
    """Return (N, R, ...) with rows of zeros behind."""
    return torch.cat([rows, rows.new_zeros(len(rows), by, *rows.shape[2:])], 1)
