"""The mask head: segmentation masks of detected objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.nn.blocks import Conv2dNormActivation
from fastcv.nn.conv_transpose import ConvTranspose2d
from fastcv.nn.convolution import convolve_block
from fastcv.nn.feature_pyramid import rename_keys
from fastcv.ops.roi_align import roi_align

__all__ = ["MaskRCNNHeads", "MaskRCNNPredictor", "mask_loss"]


def init_kaiming(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class MaskRCNNHeads(nn.Sequential):
    """Convolutions with ReLU over pooled boxes; parameters named as torchvision's, older checkpoints load too.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    layers : sequence of int
        Channels of each 3x3 convolution.
    dilation : int
        Dilation of every convolution.
    norm_layer : callable, optional
        Takes the number of channels and returns a layer that follows each convolution.
    """

    _version = 2

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[int],
        dilation: int = 1,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        blocks = []
        for channels in layers:
            block = Conv2dNormActivation(
                in_channels, channels, 3, padding=dilation, norm_layer=norm_layer, dilation=dilation
            )
            init_kaiming(block[0])  # type: ignore[arg-type]
            blocks.append(block)
            in_channels = channels
        super().__init__(*blocks)

    def rename_old_keys(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Rename the keys of an older checkpoint, in place."""
        rename_keys(state_dict, prefix, {f"mask_fcn{i + 1}": f"{i}.0" for i in range(len(self))})

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.rename_old_keys(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """(K, in_channels, H, W) to (K, layers[-1], H, W)."""
        for block in self:
            x = convolve_block(block, x)
        return x


class MaskRCNNPredictor(nn.Module):
    """Mask logits at twice the resolution; parameters named as torchvision's.

    Parameters
    ----------
    in_channels, dim_reduced : int
        Channels of the input and after upsampling.
    num_classes : int
        Classes, background included.
    """

    def __init__(self, in_channels: int, dim_reduced: int, num_classes: int) -> None:
        super().__init__()
        self.conv5_mask = ConvTranspose2d(in_channels, dim_reduced, 2, stride=2, activation="relu")
        self.mask_fcn_logits = nn.Conv2d(dim_reduced, num_classes, 1)
        init_kaiming(self.conv5_mask)
        init_kaiming(self.mask_fcn_logits)

    def forward(self, x: Tensor) -> Tensor:
        """(K, in_channels, H, W) to logits of all classes (K, num_classes, 2 H, 2 W)."""
        logits: Tensor = self.mask_fcn_logits(self.conv5_mask(x))
        return logits

    def of_classes(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (K, 1, 2 H, 2 W) of one class per box, ``labels`` (K,), and compute only these."""
        x = self.conv5_mask(x)
        weight, bias = self.mask_fcn_logits.weight[:, :, 0, 0], self.mask_fcn_logits.bias
        assert bias is not None
        # (K, 1, C) times (K, C, H W), a view in either memory format; the other way round takes twice as long
        flat = weight[labels][:, None] @ x.flatten(2)
        return (flat + bias[labels][:, None, None]).view(x.shape[0], 1, x.shape[2], x.shape[3])


def mask_loss(
    logits: Tensor,
    boxes: Sequence[Tensor],
    masks: Sequence[Tensor],
    labels: Sequence[Tensor],
    matches: Sequence[Tensor],
) -> Tensor:
    """Binary cross-entropy of the masks of positive proposals.

    Parameters
    ----------
    logits : Tensor (K, classes, M, M)
        Predictions for the positive proposals of all images.
    boxes : list of Tensor (K_i, 4)
        Positive proposals of each image.
    masks : list of Tensor (G_i, H, W)
        Masks of the objects of each image.
    labels : list of Tensor (G_i,)
        Classes of the objects.
    matches : list of Tensor (K_i,)
        Index of the object that each proposal is matched to.

    References
    ----------
    He, Gkioxari, Dollar, Girshick: Mask R-CNN (2017), section 3.
    """
    side = logits.shape[-1]
    targets = []
    for rois, image_masks, index in zip(boxes, masks, matches, strict=True):
        # Crops of the objects' masks: the index of the object takes the place of the batch index.
        rows = torch.cat([index.to(rois)[:, None], rois], dim=1)
        targets.append(roi_align(image_masks[:, None].to(rois), rows, (side, side), 1.0)[:, 0])
    target = torch.cat(targets)
    if not target.numel():  # the mean of no elements is NaN
        return logits.sum() * 0
    classes = torch.cat([label[index] for label, index in zip(labels, matches, strict=True)])
    own = logits[torch.arange(len(classes), device=classes.device), classes]
    return F.binary_cross_entropy_with_logits(own, target.to(own.dtype))
