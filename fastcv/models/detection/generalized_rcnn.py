"""The base of the R-CNN family: transform, backbone, proposals, heads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.detection.box_head import TwoMLPHead
from fastcv.models.detection.checks import check_images, check_targets
from fastcv.models.detection.region_proposal import RegionProposalNetwork
from fastcv.models.detection.resnet import ResNet
from fastcv.models.detection.roi_heads import RoIHeads
from fastcv.models.detection.transform import (
    MEAN,
    DetectionTransform,
    ImageList,
    Size,
    Target,
    resize_images,
)
from fastcv.nn.blocks import ConvNormActivation
from fastcv.nn.conv2d import replace_convolutions
from fastcv.nn.conv_transpose import ConvTranspose2d
from fastcv.ops._arena import arena, give_back
from fastcv.ops._build import build_info
from fastcv.ops._scripting import refuse_to_script

__all__ = ["GeneralizedRCNN"]


class GeneralizedRCNN(nn.Module):
    """From a list of images to a list of detections or, in training, to a dictionary of losses.

    Parameters
    ----------
    backbone : nn.Module
        Feature maps from images, (N, 3, H, W) to a dictionary of (N, C, H_l, W_l).
    rpn : RegionProposalNetwork
        Proposals from feature maps.
    roi_heads : RoIHeads
        Detections from proposals.
    transform : DetectionTransform
        Preprocessing and postprocessing.
    """

    first_label = 1  # of the first class: 0 is the background

    def __init__(
        self, backbone: nn.Module, rpn: RegionProposalNetwork, roi_heads: RoIHeads, transform: DetectionTransform
    ) -> None:
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.optimized = False

    def forward(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """Detect objects or, in training, return losses.

        Parameters
        ----------
        images : list of Tensor (3, H, W), or Tensor (N, 3, H, W)
            Floating, values 0 to 1; in a list of any sizes.
        targets : list of dict, for training
            Per image: boxes (N, 4), x1, y1, x2, y2 in pixels; labels (N,), int64, 1 and up; for a mask model masks
            (N, H, W); for a keypoint model keypoints (N, K, 3): x, y and visibility.

        Returns
        -------
        list of dict
            In evaluation, per image: boxes (D, 4), labels (D,), scores (D,) by descending score; masks
            (D, 1, H, W), probabilities; keypoints (D, K, 3) and keypoints_scores (D, K).
        dict of str to Tensor ()
            In training: loss_classifier, loss_box_reg, loss_objectness, loss_rpn_box_reg; loss_mask, loss_keypoint.

        Raises
        ------
        ValueError, TypeError
            For images or targets other than described.
        """
        if isinstance(images, Tensor) and images.dim() == 4:
            images = list(images.unbind())
        check_images(images, len(self.transform.image_mean), tuple(self.transform.image_mean) == MEAN)
        if self.training:
            return self._losses(images, targets)
        if targets is not None and isinstance(self.roi_heads, RoIHeads):
            check_targets(targets, images, self.roi_heads)
        batch, _ = self.transform(images)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        if not (_is_unchanged(self.rpn, RegionProposalNetwork) and _is_unchanged(self.roi_heads, RoIHeads)):
            features = self._features(batch.tensors)
            proposals, _ = self.rpn(batch, features, None)
            found, _ = self.roi_heads(features, proposals, batch.image_sizes, None)
            return self.transform.postprocess(found, batch.image_sizes, sizes)
        detections, count = self._detect(batch, sizes)
        if count.is_cuda:  # the only synchronisation
            for image, number in zip(detections, count.tolist(), strict=True):
                image.update({name: value[:number] for name, value in image.items()})
        return detections

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
            The results of :meth:`forward`, stacked: boxes (N, D, 4) and so on, where D is ``box_detections_per_img``,
            and count (N,). Only the first ``count`` rows of an image are valid; the others are zero.
        """
        if self.training:
            raise RuntimeError("forward_padded is for evaluation: call eval() first")
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
        if images.dim() != 4:
            raise ValueError(f"images must have shape (N, 3, H, W), got {tuple(images.shape)}")
        check_images(list(images.unbind()), len(self.transform.image_mean), False)
        size = (images.shape[-2], images.shape[-1])
        resized = self.transform.resized_size(*size)
        tensors = self.transform.batch_images(
            resize_images(self.transform.normalize(images), resized).unbind(), self.transform.size_divisible
        )
        batch = ImageList(tensors, [resized] * len(images))
        detections, count = self._detect(batch, [size] * len(images))
        capacity = self.roi_heads.detections_per_img
        padded = {name: torch.stack([_pad(image[name], capacity) for image in detections]) for name in detections[0]}
        for name, value in padded.items():  # rows beyond the count are not initialised
            beyond = torch.arange(capacity, device=count.device) >= count[:, None]
            padded[name] = value.masked_fill(beyond.view(*beyond.shape, *[1] * (value.dim() - 2)), 0)
        return {**padded, "count": count}

    def optimize(self, dtype: torch.dtype | None = None) -> GeneralizedRCNN:
        """Prepare the model for fast inference, permanently and in place, and return it.

        Folds batch normalisation into the convolutions, stores weights in channels_last, replaces convolutions by
        :class:`fastcv.nn.Conv2d`, which keep their weights packed, and sets evaluation mode. The names in
        ``state_dict()`` change: load weights before.

        Parameters
        ----------
        dtype : torch.dtype, optional
            bfloat16 or float16, for the network to compute in. Boxes are still decoded in float32. On a CPU it pays
            for bfloat16 alone, and only where the processor multiplies it (``fastcv info``); elsewhere every map is
            converted to float32 and back, which takes longer than float32, and a warning says so.
        """
        if self.optimized:
            raise RuntimeError("the model is optimized already")
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise TypeError(f"dtype must be torch.float32, torch.bfloat16 or torch.float16, got {dtype}")
        if dtype not in (None, torch.float32):
            _warn_of_conversions(dtype, next(self.parameters()).device)
        self.eval().requires_grad_(False)
        for module in list(self.modules()):
            if isinstance(module, ResNet | ConvNormActivation):
                module.fold()
            elif isinstance(module, ConvTranspose2d):
                module.optimize()
        head = self.roi_heads.box_head
        channels = getattr(self.backbone, "out_channels", None)
        if isinstance(head, TwoMLPHead) and channels is not None:
            head.optimize(channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        if dtype is not None:
            self.to(dtype)
        replace_convolutions(self)
        give_back()
        self.optimized = True
        return self

    def train(self, mode: bool = True) -> GeneralizedRCNN:
        """Set training or evaluation mode; an optimized model cannot train."""
        if mode and getattr(self, "optimized", False):
            raise RuntimeError("an optimized model cannot be trained: its batch normalisation is gone")
        return super().train(mode)

    def eager_outputs(self, losses: dict[str, Tensor], detections: list[Target]) -> Any:
        """Return the losses in training, the detections in evaluation."""
        return losses if self.training else detections

    def _features(self, batch: Tensor) -> dict[str, Tensor]:
        weight = next(self.backbone.parameters())
        batch = batch.to(weight.dtype)
        # Faster on both devices, except for torch's batch normalisation in training on a CPU.
        batch = batch.contiguous(memory_format=torch.channels_last)
        features = self.backbone(batch)
        return {"0": features} if isinstance(features, Tensor) else features

    def _losses(self, images: Sequence[Tensor], targets: Sequence[Target] | None) -> dict[str, Tensor]:
        if targets is None:
            raise ValueError("targets must be given in training")
        if isinstance(self.roi_heads, RoIHeads):
            check_targets(targets, images, self.roi_heads)
        batch, moved = self.transform(images, targets)
        features = self._features(batch.tensors)
        proposals, losses = self.rpn(batch, features, moved)
        _, of_heads = self.roi_heads(features, proposals, batch.image_sizes, moved)
        return {**of_heads, **losses}

    def _detect(self, batch: ImageList, sizes: list[Size]) -> tuple[list[Target], Tensor]:
        with arena(self.optimized):
            features = self._features(batch.tensors)
            boxes, count, _ = self.rpn.forward_padded(batch, features)
            detections, count = self.roi_heads.detect(features, boxes, count, batch.image_sizes)
            del features  # whose memory serves the pasted masks
            self.transform.postprocess(detections, batch.image_sizes, sizes)
        return detections, count


refuse_to_script([GeneralizedRCNN])


def _warn_of_conversions(dtype: torch.dtype, device: torch.device) -> None:
    """Say that a dtype is of no use on this processor."""
    if device.type == "cpu" and (dtype is torch.float16 or build_info()["bf16_products"] != "instruction"):
        name = str(dtype).removeprefix("torch.")
        text = f"{name} is slower than float32 on this CPU, which has no instructions for it: use optimize() there"
        warnings.warn(text, UserWarning, stacklevel=3)


def _is_unchanged(part: nn.Module, kind: type[RegionProposalNetwork] | type[RoIHeads]) -> bool:
    return isinstance(part, kind) and part.is_unchanged()


def _pad(rows: Tensor, capacity: int) -> Tensor:
    """Return (n, ...) padded with zeros to (capacity, ...)."""
    if rows.shape[0] == capacity:
        return rows
    return torch.cat([rows, rows.new_zeros(capacity - rows.shape[0], *rows.shape[1:])])
