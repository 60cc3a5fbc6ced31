"""MobileNetV3-Large without its classifier."""

from collections.abc import Callable

from torch import Tensor, nn

from fastcv.nn.blocks import Conv2dNormActivation, SqueezeExcitation

__all__ = ["InvertedResidual", "mobilenet_v3_large"]

Norm = Callable[[int], nn.Module]

# Side of the kernel, channels inside and after the block, squeeze and excitation, hard swish, stride.
_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, weigh channels, narrow; with a shortcut where the shape stays.

    Parameters
    ----------
    inputs, expanded, outputs : int
        Channels before, inside and after.
    side, stride : int
        Of the convolution of each channel.
    squeezes : bool
        Whether channels are weighed by squeeze and excitation.
    activation : callable
        Makes the activations.
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.

    References
    ----------
    Howard et al.: Searching for MobileNetV3 (2019), section 5.
    """

    def __init__(
        self,
        inputs: int,
        expanded: int,
        outputs: int,
        side: int,
        stride: int,
        squeezes: bool,
        activation: Callable[..., nn.Module],
        norm_layer: Norm,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != inputs:
            layers.append(Conv2dNormActivation(inputs, expanded, 1, norm_layer=norm_layer, activation_layer=activation))
        layers.append(
            Conv2dNormActivation(
                expanded,
                expanded,
                side,
                stride,
                groups=expanded,
                norm_layer=norm_layer,
                activation_layer=activation,
            )
        )
        if squeezes:
            squeezed = _multiple_of_eight(expanded // 4)
            layers.append(SqueezeExcitation(expanded, squeezed, scale_activation=nn.Hardsigmoid))
        layers.append(Conv2dNormActivation(expanded, outputs, 1, norm_layer=norm_layer, activation_layer=None))
        self.block = nn.Sequential(*layers)
        self.out_channels = outputs
        self.use_res_connect = stride == 1 and inputs == outputs
        self.is_strided = stride > 1

    def forward(self, input: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        result: Tensor = self.block(input)
        return result + input if self.use_res_connect else result


def _multiple_of_eight(channels: int) -> int:
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v3_large(norm_layer: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Make the layers of MobileNetV3-Large, ``features`` in torchvision, whose parameters have the same names.

    Parameters
    ----------
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.

    References
    ----------
    Howard et al.: Searching for MobileNetV3 (2019), table 1.
    """
    layers: list[nn.Module] = [
        Conv2dNormActivation(3, 16, stride=2, norm_layer=norm_layer, activation_layer=nn.Hardswish)
    ]
    inputs = 16
    for side, expanded, outputs, squeezes, hard, stride in _LARGE:
        activation = nn.Hardswish if hard else nn.ReLU
        layers.append(InvertedResidual(inputs, expanded, outputs, side, stride, squeezes, activation, norm_layer))
        inputs = outputs
    layers.append(Conv2dNormActivation(inputs, 6 * inputs, 1, norm_layer=norm_layer, activation_layer=nn.Hardswish))
    features = nn.Sequential(*layers)
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return features
