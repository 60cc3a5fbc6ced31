"""Backbones: residual networks with a feature pyramid."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from fastcv.models.detection.resnet import ResNet, resnet
from fastcv.models.detection.weights import load_state, read_state
from fastcv.nn.batch_norm import FrozenBatchNorm2d
from fastcv.nn.feature_pyramid import FeaturePyramidNetwork, LastLevelMaxPool

__all__ = ["BackboneWithFPN", "resnet_fpn_backbone"]


class BackboneWithFPN(nn.Module):
    """A network and a feature pyramid on its maps; parameters named as torchvision's.

    Parameters
    ----------
    body : ResNet
        Returns feature maps of several resolutions.
    out_channels : int
        Channels of the pyramid.
    """

    def __init__(self, body: ResNet, out_channels: int = 256) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(body.channels, out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to the maps "0", "1" ... and "pool", (N, out_channels, H_l, W_l)."""
        maps: dict[str, Tensor] = self.fpn(self.body(x))
        return maps


def resnet_fpn_backbone(
    *,
    backbone_name: str,
    weights: str | Path | None = None,
    norm_layer: Callable[[int], nn.Module] = FrozenBatchNorm2d,
    trainable_layers: int = 3,
    returned_layers: Sequence[int] | None = None,
    out_channels: int = 256,
) -> BackboneWithFPN:
    """Make a backbone by name.

    Parameters
    ----------
    backbone_name : str
        resnet18, resnet34, resnet50, resnet101 or tiny.
    weights : path, optional
        A checkpoint of torchvision's network of that name; its classifier is ignored.
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.
    trainable_layers : int
        Number of stages to train, 0 to 5, counted from the last.
    returned_layers : sequence of int, optional
        Stages, 1 to 4, whose maps go into the pyramid. Default: all.
    out_channels : int
        Channels of the pyramid.
    """
    if not 0 <= trainable_layers <= 5:
        raise ValueError(f"trainable_layers must be 0 to 5, got {trainable_layers}")
    body = resnet(backbone_name, norm_layer, returned_layers or (1, 2, 3, 4))
    if weights is not None:
        state = {key: value for key, value in read_state(weights).items() if not key.startswith("fc.")}
        load_state(body, state, str(weights))
    trained = ("layer4", "layer3", "layer2", "layer1", "conv1", "bn1")[: trainable_layers + (trainable_layers == 5)]
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.startswith(trained) if trained else False)
    return BackboneWithFPN(body, out_channels)


def make_backbone(
    name: str,
    weights: str | Path | None,
    weights_backbone: str | Path | None,
    trainable_layers: int | None,
    norm_eps: float,
    out_channels: int,
) -> BackboneWithFPN:
    """Make the backbone of a detector, frozen by torchvision's rules.

    If weights are given, batch normalisation and all but the last three stages are frozen by default.
    """
    trained = weights is not None or weights_backbone is not None
    if not trained and trainable_layers is not None:
        warnings.warn("trainable_backbone_layers has no effect without weights: all layers are trained", stacklevel=3)
    return resnet_fpn_backbone(
        backbone_name=name,
        weights=None if weights is not None else weights_backbone,
        norm_layer=partial(FrozenBatchNorm2d, eps=norm_eps) if trained else nn.BatchNorm2d,
        trainable_layers=5 if not trained else 3 if trainable_layers is None else trainable_layers,
        out_channels=out_channels,
    )
