"""The box head: class and box offsets of pooled features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.nn.blocks import Conv2dNormActivation
from fastcv.nn.conv2d import Conv2d
from fastcv.nn.convolution import convolve

__all__ = ["FastRCNNConvFCHead", "FastRCNNPredictor", "TwoMLPHead", "fastrcnn_loss"]


class TwoMLPHead(nn.Module):
    """Two linear layers with ReLU on the flattened features of a box; parameters named as torchvision's.

    Parameters
    ----------
    in_channels : int
        Features per box: channels times bins.
    representation_size : int
        Features returned per box.
    """

    def __init__(self, in_channels: int, representation_size: int) -> None:
        super().__init__()
        self.fc6: nn.Module = nn.Linear(in_channels, representation_size)
        self.fc7: nn.Module = nn.Linear(representation_size, representation_size)

    def forward(self, x: Tensor) -> Tensor:
        """(K, C, P, Q) to (K, representation_size)."""
        if isinstance(self.fc6, nn.Conv2d) and isinstance(self.fc7, nn.Conv2d):
            for layer in (self.fc6, self.fc7):
                served = isinstance(layer, Conv2d) and layer.is_served(x)
                x = convolve(layer, x, relu=True) if served else _multiply(layer, x)
            return x.flatten(1)
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))

    def optimize(self, channels: int) -> None:
        """Make convolutions of both layers, permanently: they read channels_last features without a copy.

        ``channels`` is C; P and Q are taken to be equal.
        """
        if not isinstance(self.fc6, nn.Linear) or not isinstance(self.fc7, nn.Linear):
            return
        side = math.isqrt(self.fc6.in_features // channels)
        if channels * side * side == self.fc6.in_features:
            self.fc6 = _as_convolution(self.fc6, channels, side)
            self.fc7 = _as_convolution(self.fc7, self.fc7.in_features, 1)


def _multiply(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return ``relu(layer(x))`` as a product of matrices: on a GPU, of channels_last tensors, there is no copy."""
    rows, weight = (tensor.permute(0, 2, 3, 1).flatten(1) for tensor in (x, layer.weight))
    return F.relu_(F.linear(rows, weight, layer.bias))[:, :, None, None]


def _as_convolution(layer: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    """Return a convolution whose kernel covers its input, for :func:`replace_convolutions`."""
    conv = nn.Conv2d(channels, layer.out_features, side, bias=layer.bias is not None, device="meta")
    conv.weight = nn.Parameter(layer.weight.detach().view(-1, channels, side, side), requires_grad=False)
    conv.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)
    return conv.eval()


class FastRCNNConvFCHead(nn.Sequential):
    """Convolutions and linear layers, each with ReLU, on the features of a box; parameters named as torchvision's.

    Parameters
    ----------
    input_size : (int, int, int)
        Channels, rows and columns of the features.
    conv_layers : sequence of int
        Channels of each 3x3 convolution.
    fc_layers : sequence of int
        Features of each linear layer.
    norm_layer : callable, optional
        Takes the number of channels and returns a layer that follows each convolution.
    """

    def __init__(
        self,
        input_size: Sequence[int],
        conv_layers: Sequence[int],
        fc_layers: Sequence[int],
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        inputs, height, width = input_size
        layers: list[nn.Module] = []
        for channels in conv_layers:
            layers.append(Conv2dNormActivation(inputs, channels, norm_layer=norm_layer))
            inputs = channels
        layers.append(nn.Flatten())
        inputs *= height * width
        for features in fc_layers:
            layers += [nn.Linear(inputs, features), nn.ReLU(inplace=True)]
            inputs = features
        super().__init__(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class FastRCNNPredictor(nn.Module):
    """Class logits and, for each class, box offsets; parameters named as torchvision's.

    Parameters
    ----------
    in_channels : int
        Features per box.
    num_classes : int
        Classes, background included.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(K, in_channels) or (K, in_channels, 1, 1) to (K, num_classes) and (K, 4 num_classes)."""
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)


def fastrcnn_loss(
    class_logits: Tensor, box_regression: Tensor, labels: Sequence[Tensor], regression_targets: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the losses of classes and of boxes.

    Parameters
    ----------
    class_logits : Tensor (K, classes)
        Predictions for the sampled proposals of all images.
    box_regression : Tensor (K, 4 classes)
        Predicted offsets for each class.
    labels : list of Tensor (K_i,)
        True class of each proposal, 0 for background.
    regression_targets : list of Tensor (K_i, 4)
        True offsets.

    References
    ----------
    Girshick: Fast R-CNN (2015), section 2.3.
    """
    label, target = torch.cat(list(labels)), torch.cat(list(regression_targets))
    positive = torch.where(label > 0)[0]
    own = box_regression.reshape(len(box_regression), box_regression.shape[1] // 4, 4)[positive, label[positive]]
    box_loss = F.smooth_l1_loss(own, target[positive], beta=1 / 9, reduction="sum") / label.numel()
    return F.cross_entropy(class_logits, label), box_loss
