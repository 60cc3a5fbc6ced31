"""Residual networks that return a feature map per stage."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, fx, nn

from fastcv.nn._plain import is_watched
from fastcv.nn.batch_norm import fold_batch_norm
from fastcv.nn.convolution import convolve_normalized
from fastcv.nn.max_pool2d import MaxPool2d
from fastcv.ops._call import is_plain

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "resnet"]

Norm = Callable[[int], nn.Module]


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Parameters
    ----------
    inputs, width : int
        Channels of the input, and of the convolutions.
    stride : int
        Of the first convolution.
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.
    """

    expansion = 1
    downsample: nn.Sequential | None

    def __init__(self, inputs: int, width: int, stride: int, norm_layer: Norm) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = norm_layer(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = norm_layer(width)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(_conv(inputs, width, 1, stride), norm_layer(width))

    def forward(self, x: Tensor, takes_over: bool = False) -> Tensor:
        """(N, inputs, H, W) to (N, width, H / stride, W / stride). With ``takes_over`` the input may be overwritten."""
        y = _activated(self.relu, self.conv1, self.bn1, x)
        added, is_new = _shortcut(self.downsample, x)
        return _activated(self.relu, self.conv2, self.bn2, y, added, is_new or takes_over)

    def fold(self) -> None:
        """Multiply the normalisations into the convolutions, permanently and in place."""
        self.bn1 = fold_batch_norm(self.conv1, self.bn1)
        self.bn2 = fold_batch_norm(self.conv2, self.bn2)
        _fold_shortcut(self.downsample)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut; the stride is at the 3x3, as in torchvision.

    Parameters
    ----------
    inputs, width : int
        Channels of the input, and of the first two convolutions; the last has four times as many.
    stride, norm_layer
        As in :class:`BasicBlock`.
    """

    expansion = 4
    downsample: nn.Sequential | None

    def __init__(self, inputs: int, width: int, stride: int, norm_layer: Norm) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = norm_layer(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = norm_layer(width)
        self.conv3 = _conv(width, outputs, 1)
        self.bn3 = norm_layer(outputs)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), norm_layer(outputs))

    def forward(self, x: Tensor, takes_over: bool = False) -> Tensor:
        """(N, inputs, H, W) to (N, 4 width, H / stride, W / stride); ``takes_over`` as of :class:`BasicBlock`."""
        y = _activated(self.relu, self.conv1, self.bn1, x)
        y = _activated(self.relu, self.conv2, self.bn2, y)
        added, is_new = _shortcut(self.downsample, x)
        return _activated(self.relu, self.conv3, self.bn3, y, added, is_new or takes_over)

    def fold(self) -> None:
        """Multiply the normalisations into the convolutions, permanently and in place."""
        self.bn1 = fold_batch_norm(self.conv1, self.bn1)
        self.bn2 = fold_batch_norm(self.conv2, self.bn2)
        self.bn3 = fold_batch_norm(self.conv3, self.bn3)
        _fold_shortcut(self.downsample)


def _is_plain_relu(layer: nn.Module | Tensor) -> bool:
    return type(layer) is nn.ReLU and not is_watched(layer)


def _activated(
    relu: nn.Module,
    conv: nn.Module,
    norm: nn.Module,
    x: Tensor,
    add: Tensor | None = None,
    takes_over: bool = False,
) -> Tensor:
    """Return ``relu(norm(conv(x)) + add)``, in one pass where the activation is what this package has put there."""
    if isinstance(x, fx.Proxy):  # a symbolic trace shows the layers as they are
        y: Any = norm(conv(x))
        result: Tensor = relu(y if add is None else y + add)
        return result
    if _is_plain_relu(relu):
        return convolve_normalized(conv, norm, x, relu=True, add=add, takes_over=takes_over)
    return relu(convolve_normalized(conv, norm, x, add=add, takes_over=takes_over))  # type: ignore[no-any-return]


def _shortcut(downsample: nn.Module | None, x: Tensor) -> tuple[Tensor, bool]:
    """What is added to a block's result, and whether nobody else can have it."""
    if downsample is None:
        return x, False
    is_known = type(downsample) is nn.Sequential and len(downsample) == 2 and not is_watched(downsample)
    if not is_known or isinstance(x, fx.Proxy):
        return downsample(x), False
    conv, norm = downsample.children()
    return convolve_normalized(conv, norm, x), not (is_watched(conv) or is_watched(norm))


def _fold_shortcut(downsample: nn.Module | None) -> None:
    if type(downsample) is nn.Sequential and len(downsample) == 2:
        downsample[1] = fold_batch_norm(downsample[0], downsample[1])


def _run_stage(blocks: nn.Module, x: Tensor) -> Tensor:
    """Return ``blocks(x)``. A block may overwrite the result of the one before it, where no hook can have kept it."""
    if type(blocks) is not nn.Sequential or is_watched(blocks) or not is_plain(x):
        return blocks(x)  # type: ignore[no-any-return]
    is_free = False
    for block in blocks:
        is_known = type(block) in (BasicBlock, Bottleneck) and not is_watched(block) and _is_plain_relu(block.relu)
        x = block(x, takes_over=True) if is_free and is_known else block(x)
        is_free = is_known
    return x


class ResNet(nn.Module):
    """A residual network without its classifier, which returns the feature maps of selected stages.

    Names of layers and parameters are those of torchvision's ResNet.

    Parameters
    ----------
    block
        :class:`BasicBlock` or :class:`Bottleneck`.
    layers : four ints
        Blocks per stage.
    width : int
        Width of the first stage; it doubles from each to the next.
    norm_layer : callable
        Takes the number of channels and returns a normalisation layer.
    returned_layers : sequence of int
        Stages, 1 to 4, whose maps are returned, as "0", "1" ... in ascending order. Stages after the last of them are
        not created.

    Attributes
    ----------
    channels : list of int
        Channels of the returned maps.

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2016), table 1.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        width: int = 64,
        norm_layer: Norm = nn.BatchNorm2d,
        returned_layers: Sequence[int] = (1, 2, 3, 4),
    ) -> None:
        super().__init__()
        if not returned_layers or min(returned_layers) < 1 or max(returned_layers) > 4:
            raise ValueError(f"returned_layers must be between 1 and 4, got {list(returned_layers)}")
        self.returned_layers = sorted(returned_layers)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(width)
        self.relu = nn.ReLU()
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        inputs = width
        self.channels = []
        for stage, count in enumerate(layers[: self.returned_layers[-1]], 1):
            blocks = []
            stage_width = width << (stage - 1)
            for index in range(count):
                blocks.append(block(inputs, stage_width, 2 if stage > 1 and index == 0 else 1, norm_layer))
                inputs = stage_width * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            if stage in self.returned_layers:
                self.channels.append(inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps of (N, 3, H, W): (N, C, H / 4, W / 4) from stage 1, half the size from each further stage."""
        x = self.maxpool(_activated(self.relu, self.conv1, self.bn1, x))
        maps: dict[str, Tensor] = {}
        for stage in range(1, self.returned_layers[-1] + 1):
            x = _run_stage(getattr(self, f"layer{stage}"), x)
            if stage in self.returned_layers:
                maps[str(len(maps))] = x
        return maps

    def fold(self) -> None:
        """Multiply all normalisations into the convolutions before them, permanently and in place."""
        self.bn1 = fold_batch_norm(self.conv1, self.bn1)
        for module in self.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                module.fold()


_LAYOUTS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 64),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 64),
    "tiny": (BasicBlock, (1, 1, 1, 1), 16),
}


def resnet(name: str, norm_layer: Norm = nn.BatchNorm2d, returned_layers: Sequence[int] = (1, 2, 3, 4)) -> ResNet:
    """Make a residual network by name.

    Parameters
    ----------
    name : str
        resnet18, resnet34, resnet50, resnet101, resnet152, or tiny: one block per stage, a quarter of the channels of
        resnet18, 0.3 million parameters.
    norm_layer, returned_layers
        As in :class:`ResNet`.
    """
    if name not in _LAYOUTS:
        raise ValueError(f"name must be one of {', '.join(_LAYOUTS)}, got {name!r}")
    block, layers, width = _LAYOUTS[name]
    return ResNet(block, layers, width, norm_layer, returned_layers)
