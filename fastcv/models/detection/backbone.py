"""Backbones: networks with a feature pyramid."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from fastcv.models.detection.checkpoints import Weights, as_source, legacy_weights
from fastcv.models.detection.mobilenet import InvertedResidual, mobilenet_v3_large
from fastcv.models.detection.resnet import resnet
from fastcv.models.detection.weights import load_state, read_state
from fastcv.nn._plain import is_watched
from fastcv.nn.batch_norm import FrozenBatchNorm2d
from fastcv.nn.feature_pyramid import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

__all__ = ["BackboneWithFPN", "IntermediateLayerGetter", "make_backbone", "mobilenet_backbone", "resnet_fpn_backbone"]

Norm = Callable[[int], nn.Module]


class IntermediateLayerGetter(nn.ModuleDict):
    """The layers of a network up to the last whose result is asked for. A drop-in for torchvision's.

    Parameters
    ----------
    model : nn.Module
        Whose children are called one after the other.
    return_layers : dict of str to str
        Names of children whose results are returned, and the names to return them under.
    """

    def __init__(self, model: nn.Module, return_layers: Mapping[str, str]) -> None:
        children = dict(model.named_children())
        wanted = {str(name): str(new) for name, new in return_layers.items()}
        missing = [name for name in wanted if name not in children]
        if missing or not wanted:
            raise ValueError(f"return_layers must name children of the model, {list(children)}, got {missing}")
        last = max(list(children).index(name) for name in wanted)
        super().__init__(dict(list(children.items())[: last + 1]))
        self.return_layers = wanted

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the results that are asked for."""
        results = {}
        for name, layer in self.items():
            x = layer(x)
            if name in self.return_layers:
                results[self.return_layers[name]] = x
        return results


class BackboneWithFPN(nn.Module):
    """A network and a feature pyramid on its maps. A drop-in for torchvision's, with the same names of parameters.

    Parameters
    ----------
    backbone : nn.Module
        A network; without ``return_layers`` one that returns a dictionary of maps, and has ``channels``.
    return_layers : dict of str to str, optional
        As in :class:`IntermediateLayerGetter`.
    in_channels_list : sequence of int, optional
        Channels of the maps. Default: ``backbone.channels``.
    out_channels : int
        Channels of the pyramid.
    extra_blocks, norm_layer
        As in :class:`FeaturePyramidNetwork`. Default of ``extra_blocks``: :class:`LastLevelMaxPool`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        return_layers: Mapping[str, str] | None = None,
        in_channels_list: Sequence[int] | None = None,
        out_channels: int = 256,
        extra_blocks: ExtraFPNBlock | None = None,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.body = backbone if return_layers is None else IntermediateLayerGetter(backbone, return_layers)
        channels: Any = backbone.channels if in_channels_list is None else in_channels_list
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks or LastLevelMaxPool(), norm_layer)
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to the maps of the pyramid, (N, out_channels, H_l, W_l)."""
        features = self.body(x)
        if type(self.fpn) is FeaturePyramidNetwork and not is_watched(self.fpn) and isinstance(features, dict):
            features = dict(features)  # a hook may have kept the other
            return self.fpn.combine(features)
        maps: dict[str, Tensor] = self.fpn(features)
        return maps


def resnet_fpn_backbone(
    backbone_name: str,
    weights: Weights = None,
    norm_layer: Norm = FrozenBatchNorm2d,
    trainable_layers: int = 3,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: ExtraFPNBlock | None = None,
    out_channels: int = 256,
    fpn_norm_layer: Callable[..., nn.Module] | None = None,
    **legacy: Any,
) -> BackboneWithFPN:
    """Make a residual network with a feature pyramid by name.

    Parameters
    ----------
    backbone_name : str
        resnet18, resnet34, resnet50, resnet101, resnet152 or tiny.
    weights : path or state_dict, optional
        A checkpoint of torchvision's network of that name; its classifier is ignored.
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.
    trainable_layers : int
        Number of stages to train, 0 to 5, counted from the last.
    returned_layers : sequence of int, optional
        Stages, 1 to 4, whose maps go into the pyramid. Default: all.
    extra_blocks, out_channels
        As in :class:`BackboneWithFPN`.
    fpn_norm_layer : callable, optional
        Of the pyramid. Default: none.
    """
    weights = as_source(legacy_weights(weights, legacy, "pretrained"), "weights", backbone_name)
    if not 0 <= trainable_layers <= 5:
        raise ValueError(f"trainable_layers must be 0 to 5, got {trainable_layers}")
    stages = (1, 2, 3, 4) if returned_layers is None else [int(stage) for stage in returned_layers]
    body = resnet(backbone_name, norm_layer, stages)
    if weights is not None:
        state = {key: value for key, value in read_state(weights).items() if not key.startswith("fc.")}
        load_state(body, state, _name(weights))
    trained = ("layer4", "layer3", "layer2", "layer1", "conv1", "bn1")[: trainable_layers + (trainable_layers == 5)]
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(name.startswith(trained) if trained else False)
    return BackboneWithFPN(body, out_channels=out_channels, extra_blocks=extra_blocks, norm_layer=fpn_norm_layer)


def mobilenet_backbone(
    backbone_name: str = "mobilenet_v3_large",
    weights: Weights = None,
    fpn: bool = True,
    norm_layer: Norm = FrozenBatchNorm2d,
    trainable_layers: int = 2,
    returned_layers: Sequence[int] | None = None,
    extra_blocks: ExtraFPNBlock | None = None,
    **legacy: Any,
) -> nn.Module:
    """Make MobileNetV3-Large with a feature pyramid.

    Parameters
    ----------
    backbone_name : str
        mobilenet_v3_large.
    weights : path or state_dict, optional
        A checkpoint of torchvision's network of that name; its classifier is ignored.
    fpn : bool
        Without it, one map of 256 channels is returned.
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.
    trainable_layers : int
        Number of stages to train, 0 to 6, counted from the last.
    returned_layers : sequence of int, optional
        Stages, 0 to 5, whose maps go into the pyramid. Default: the last two.
    extra_blocks
        As in :class:`BackboneWithFPN`.
    """
    weights = as_source(legacy_weights(weights, legacy, "pretrained"), "weights", backbone_name)
    if backbone_name != "mobilenet_v3_large":
        raise ValueError(f"backbone_name must be mobilenet_v3_large, got {backbone_name!r}")
    features = mobilenet_v3_large(norm_layer)
    if weights is not None:
        state = {key: value for key, value in read_state(weights).items() if not key.startswith("classifier.")}
        load_state(features, {key.removeprefix("features."): value for key, value in state.items()}, _name(weights))
    strided = [i for i, layer in enumerate(features) if isinstance(layer, InvertedResidual) and layer.is_strided]
    stages = [0, *strided, len(features) - 1]
    if not 0 <= trainable_layers <= len(stages):
        raise ValueError(f"trainable_layers must be 0 to {len(stages)}, got {trainable_layers}")
    frozen = len(features) if trainable_layers == 0 else stages[len(stages) - trainable_layers]
    features[:frozen].requires_grad_(False)
    if not fpn:
        network = nn.Sequential(features, nn.Conv2d(features[-1].out_channels, 256, 1))  # type: ignore[arg-type]
        network.out_channels = 256  # type: ignore[assignment]
        return network
    last = (len(stages) - 2, len(stages) - 1)
    chosen = last if returned_layers is None else [int(stage) for stage in returned_layers]
    if min(chosen) < 0 or max(chosen) >= len(stages):
        raise ValueError(f"returned_layers must be between 0 and {len(stages) - 1}, got {list(chosen)}")
    names = {str(stages[stage]): str(i) for i, stage in enumerate(chosen)}
    channels: list[Any] = [features[stages[stage]].out_channels for stage in chosen]
    return BackboneWithFPN(features, names, channels, 256, extra_blocks)


def _name(weights: Any) -> str:
    return "the state_dict" if isinstance(weights, Mapping) else str(weights)


def make_backbone(
    name: str,
    weights: Weights,
    weights_backbone: Weights,
    trainable_layers: int | None,
    norm_eps: float,
    out_channels: int = 256,
    always_batch_norm: bool = False,
) -> nn.Module:
    """Make the backbone of a detector, frozen by torchvision's rules.

    If weights are given, batch normalisation and all but the last three stages are frozen by default.
    ``always_batch_norm`` leaves normalisation to be trained, and gives the pyramid one, as torchvision's v2 models do.
    """
    trained = weights is not None or weights_backbone is not None
    if not trained and trainable_layers is not None:
        warnings.warn("trainable_backbone_layers has no effect without weights: all layers are trained", stacklevel=4)
    is_mobile = name.startswith("mobilenet")
    layers = (6 if is_mobile else 5) if not trained else 3 if trainable_layers is None else trainable_layers
    norm: Norm = nn.BatchNorm2d
    if trained and not always_batch_norm:
        norm = partial(FrozenBatchNorm2d, eps=norm_eps)
    source = None if weights is not None else weights_backbone
    if is_mobile:
        return mobilenet_backbone(name, source, norm_layer=norm, trainable_layers=layers)
    return resnet_fpn_backbone(
        name,
        source,
        norm,
        layers,
        out_channels=out_channels,
        fpn_norm_layer=nn.BatchNorm2d if always_batch_norm else None,
    )
