"""Blocks of torch's layers that torchvision names: convolution with normalisation, squeeze and excitation, an MLP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.nn.batch_norm import FrozenBatchNorm2d, fold_batch_norm

__all__ = [
    "MLP",
    "Conv2dNormActivation",
    "Conv3dNormActivation",
    "ConvNormActivation",
    "Permute",
    "SqueezeExcitation",
]

Layer = Callable[..., nn.Module]


class ConvNormActivation(nn.Sequential):
    """A convolution, a normalisation and an activation; see :class:`Conv2dNormActivation`.

    Parameters
    ----------
    conv_layer : callable
        Makes the convolution, such as ``nn.Conv2d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str | None = None,
        groups: int = 1,
        norm_layer: Layer | None = nn.BatchNorm2d,
        activation_layer: Layer | None = nn.ReLU,
        dilation: int | Sequence[int] = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
        conv_layer: Layer = nn.Conv2d,
    ) -> None:
        if padding is None:
            padding = _same_padding(kernel_size, dilation)
        layers = [
            conv_layer(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding,
                dilation=dilation,
                groups=groups,
                bias=norm_layer is None if bias is None else bias,
            )
        ]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(activation_layer(**_inplace(inplace)))
        super().__init__(*layers)
        self.out_channels = out_channels

    def fold(self) -> None:
        """Multiply the normalisation into the 2D convolution, permanently and in place, where both are torch's own."""
        if len(self) > 1 and isinstance(self[1], nn.BatchNorm2d | FrozenBatchNorm2d):
            self[1] = fold_batch_norm(self[0], self[1])


def _same_padding(kernel_size: int | Sequence[int], dilation: int | Sequence[int]) -> int | tuple[int, ...]:
    """Return the padding that keeps the size of a map, for a kernel of odd sides."""
    if isinstance(kernel_size, int) and isinstance(dilation, int):
        return (kernel_size - 1) // 2 * dilation
    axes = len(dilation if isinstance(kernel_size, int) else kernel_size)  # type: ignore[arg-type]
    sides = (kernel_size,) * axes if isinstance(kernel_size, int) else kernel_size
    steps = (dilation,) * axes if isinstance(dilation, int) else dilation
    return tuple((side - 1) // 2 * step for side, step in zip(sides, steps, strict=True))


def _inplace(inplace: bool | None) -> dict[str, Any]:
    return {} if inplace is None else {"inplace": inplace}


class Conv2dNormActivation(ConvNormActivation):
    """A 2D convolution, a normalisation and an activation. A drop-in for ``torchvision.ops.Conv2dNormActivation``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, groups, dilation
        Of the convolution.
    padding : int, pair of int or str, optional
        Default: what keeps the size of the map where the stride is 1.
    norm_layer : callable or None
        Takes the number of channels and returns a layer; None for none.
    activation_layer : callable or None
        Makes the activation; None for none.
    inplace : bool or None
        Handed to the activation; None for one that has no such argument.
    bias : bool, optional
        Whether the convolution has a bias. Default: where there is no normalisation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str | None = None,
        groups: int = 1,
        norm_layer: Layer | None = nn.BatchNorm2d,
        activation_layer: Layer | None = nn.ReLU,
        dilation: int | tuple[int, int] = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups,
            norm_layer,
            activation_layer,
            dilation,
            inplace,
            bias,
            nn.Conv2d,
        )


class Conv3dNormActivation(ConvNormActivation):
    """A 3D convolution, a normalisation and an activation. A drop-in for ``torchvision.ops.Conv3dNormActivation``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, ..., bias
        As in :class:`Conv2dNormActivation`, with three axes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int] = 3,
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] | str | None = None,
        groups: int = 1,
        norm_layer: Layer | None = nn.BatchNorm3d,
        activation_layer: Layer | None = nn.ReLU,
        dilation: int | tuple[int, int, int] = 1,
        inplace: bool | None = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups,
            norm_layer,
            activation_layer,
            dilation,
            inplace,
            bias,
            nn.Conv3d,
        )


class SqueezeExcitation(nn.Module):
    """Scale channels by what a small network makes of their means. A drop-in for ``torchvision.ops.SqueezeExcitation``.

    Parameters
    ----------
    input_channels, squeeze_channels : int
        Channels of the map, and between the two layers of the network.
    activation, scale_activation : callable
        Make the activations after the first and after the second layer.

    References
    ----------
    Hu, Shen, Sun: Squeeze-and-Excitation Networks (2018), figure 1.
    """

    def __init__(
        self,
        input_channels: int,
        squeeze_channels: int,
        activation: Layer = nn.ReLU,
        scale_activation: Layer = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        squeezed = self.activation(self.fc1(self.avgpool(input)))
        scaled: Tensor = self.scale_activation(self.fc2(squeezed)) * input
        return scaled


class MLP(nn.Sequential):
    """Linear layers, each followed by normalisation, activation and dropout, the last by dropout alone.

    A drop-in for ``torchvision.ops.MLP``.

    Parameters
    ----------
    in_channels : int
        Features of the input.
    hidden_channels : sequence of int
        Features after each linear layer.
    norm_layer : callable, optional
        Takes the number of features and returns a layer.
    activation_layer : callable
        Makes the activation.
    inplace : bool, optional
        Handed to activation and dropout; None for what they do by themselves.
    bias : bool
        Whether the linear layers have biases.
    dropout : float
        Probability.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        norm_layer: Layer | None = None,
        activation_layer: Layer = nn.ReLU,
        inplace: bool | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        options = _inplace(inplace)
        layers: list[nn.Module] = []
        features = in_channels
        for index, width in enumerate(hidden_channels):
            layers.append(nn.Linear(features, width, bias=bias))
            if index < len(hidden_channels) - 1:
                if norm_layer is not None:
                    layers.append(norm_layer(width))
                layers.append(activation_layer(**options))
            layers.append(nn.Dropout(dropout, **options))
            features = width
        super().__init__(*layers)


class Permute(nn.Module):
    """A view of the input with its axes in another order. A drop-in for ``torchvision.ops.Permute``.

    Parameters
    ----------
    dims : list of int
        The axes of the input, in the order of those of the result.
    """

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Permute ``x``."""
        return torch.permute(x, self.dims)
