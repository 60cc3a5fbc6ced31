"""The layers of a Darknet network, each made from its section and the shapes before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.yolo.config import Section
from fastcv.models.yolo.heads import HEADS, Head, make_head
from fastcv.nn._plain import is_plain_convolution, is_untouched
from fastcv.nn.batch_norm import has_fixed_statistics
from fastcv.nn.conv2d import Conv2d

__all__ = ["Connected", "Convolutional", "Layer", "Output", "Shape", "make_convolution", "make_layer"]

Shape = tuple[int, int, int]  # channels, height, width

_MOST_NUMBERS = 1 << 30  # of a layer's weights or of its map: a text must not ask for any amount of memory
_EPS = 1e-6  # Darknet's


def _linear(x: Tensor) -> Tensor:
    return x


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": _linear,
    "leaky": _leaky,
    "relu": F.relu,
    "relu6": F.relu6,
    "logistic": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "selu": F.selu,
    "mish": F.mish,
    "swish": F.silu,
}


# Activations that conv2d has, and what it calls them.
_KERNELS = {"linear": None, "leaky": "leaky_relu", "relu": "relu", "swish": "silu"}


class Layer(nn.Module):
    """A layer: what it is made of, the numbers of the layers it takes (-1 is the image), and its result's shape."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        super().__init__()
        self.section = section
        self.sources = tuple(sources)
        self.shape = shape
        if shape[0] * shape[1] * shape[2] > _MOST_NUMBERS:
            raise section.error(f"the result must have at most {_MOST_NUMBERS} numbers, got the shape {shape}")

    def forward(self, x: Tensor) -> Tensor:
        """Return the input, as [cost] does."""
        return x

    def stored(self) -> list[Tensor]:
        """Return the tensors of a ``.weights`` file, in its order."""
        return []

    def extra_repr(self) -> str:
        return f"{self.section.name}, from {self.sources}, to {self.shape}"


def make_convolution(
    channels: int, filters: int, size: int, stride: int, padding: int, dilation: int, groups: int, bias: bool
) -> nn.Conv2d:
    """Return the convolution of a layer: the one place where all of them are made."""
    return nn.Conv2d(channels, filters, size, stride, padding, dilation, groups, bias)


class Convolutional(Layer):
    """[convolutional]: a convolution, batch normalisation where asked for, an activation."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        section.refuse("binary", "xnor", "stride_x", "stride_y", "antialiasing", "share_index", "deform", "rotate")
        channels, height, width = shape
        filters = section.integer("filters", 1, 1)
        size, stride = section.integer("size", 1, 1, 255), section.integer("stride", 1, 1, 255)
        dilation, groups = section.integer("dilation", 1, 1, 255), section.integer("groups", 1, 1)
        padding = section.integer("padding", 0, 0, 255)
        if section.integer("pad", 0):
            padding = size // 2 * dilation
        if channels % groups or filters % groups:
            raise section.error(f"groups must divide {channels} and {filters} channels, got {groups}", "groups")
        reach = dilation * (size - 1) + 1
        height, width = ((length + 2 * padding - reach) // stride + 1 for length in (height, width))
        if height < 1 or width < 1:
            raise section.error(f"size must be at most the padded map's, {shape[1:]}, got {size}", "size")
        super().__init__(section, sources, (filters, height, width))
        check_count(section, channels // groups * filters * size * size)
        normalised = bool(section.integer("batch_normalize", 0))
        self.conv = make_convolution(channels, filters, size, stride, padding, dilation, groups, not normalised)
        self.norm = nn.BatchNorm2d(filters, eps=_EPS) if normalised else None
        self.activation = _activation(section, "logistic")
        if self.activation is not _linear:
            nn.init.kaiming_uniform_(self.conv.weight, 0.1)  # keeps the size of maps through many leaky layers

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.activation(x if self.norm is None else self.norm(x))

    def optimize(self) -> None:
        """Fold the normalisation into the convolution, and activations that its kernels have, for inference.

        Layers that somebody watches or has put in another's place stay as they are.
        """
        is_plain = is_plain_convolution(self.conv) and not isinstance(self.conv, Conv2d)
        if not is_plain or (
            self.norm is not None and (not is_untouched(self.norm) or not has_fixed_statistics(self.norm))
        ):
            return
        name = self.section.text("activation", "logistic")
        self.conv = Conv2d.from_conv(self.conv, self.norm, _KERNELS.get(name), negative_slope=0.1)
        self.norm = None
        if name in _KERNELS:
            self.activation = _linear

    def stored(self) -> list[Tensor]:
        if self.norm is None:
            return [_given(self.conv.bias), self.conv.weight]
        return [*_normalisation(self.norm), self.conv.weight]


class Local(Layer):
    """[local]: a convolution that has weights of its own for every place of its result."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        channels, height, width = shape
        filters, size = section.integer("filters", 1, 1), section.integer("size", 1, 1, 255)
        self.size, self.stride = size, section.integer("stride", 1, 1, 255)
        self.padding = section.integer("pad", 0, 0, 1)
        if self.padding and size != 3:
            raise section.error(f"pad must be 0 for a size other than 3, got size {size}", "pad")
        if min(height, width) + 2 * self.padding < size:
            raise section.error(f"size must be at most the padded map's, {shape[1:]}, got {size}", "size")
        height, width = ((length + 2 * self.padding - size) // self.stride + 1 for length in (height, width))
        super().__init__(section, sources, (filters, height, width))
        inputs = channels * size * size
        check_count(section, height * width * filters * inputs)
        self.weight = nn.Parameter(torch.empty(height * width, filters, inputs))
        self.bias = nn.Parameter(torch.zeros(filters, height, width))
        self.activation = _activation(section, "logistic")
        nn.init.uniform_(self.weight, -((6 / inputs) ** 0.5), (6 / inputs) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        windows = F.unfold(x, self.size, padding=self.padding, stride=self.stride)  # (N, inputs, places)
        result = torch.bmm(windows.permute(2, 0, 1), self.weight.mT).permute(1, 2, 0)
        return self.activation(result.reshape(len(x), *self.shape) + self.bias)

    def stored(self) -> list[Tensor]:
        return [self.bias, self.weight]


class Connected(Layer):
    """[connected]: a linear layer of all numbers of a map."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        inputs, outputs = shape[0] * shape[1] * shape[2], section.integer("output", 1, 1, 1 << 24)
        super().__init__(section, sources, (outputs, 1, 1))
        check_count(section, inputs * outputs)
        normalised = bool(section.integer("batch_normalize", 0))
        self.linear = nn.Linear(inputs, outputs, bias=not normalised)
        self.norm = nn.BatchNorm1d(outputs, eps=_EPS) if normalised else None
        self.activation = _activation(section, "logistic")
        if self.activation is not _linear:
            nn.init.kaiming_uniform_(self.linear.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1))
        return self.activation(x if self.norm is None else self.norm(x))[:, :, None, None]

    def stored(self) -> list[Tensor]:
        if self.norm is None:
            return [_given(self.linear.bias), self.linear.weight]
        bias, *others = _normalisation(self.norm)
        return [bias, self.linear.weight, *others]


class MaxPool(Layer):
    """[maxpool]. Padding is ``size - 1`` in all unless given, the larger part of it at the right and at the bottom."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        section.refuse("stride_x", "stride_y", "antialiasing", "maxpool_depth")
        self.stride = stride = section.integer("stride", 1, 1, 255)
        self.size = size = section.integer("size", stride, 1, 255)
        padding = section.integer("padding", size - 1, 0, 255)
        channels, height, width = shape
        if padding > 2 * size - 2 or min(height, width) + padding < size:
            raise section.error(f"padding must make windows that meet the map, {shape[1:]}, got {padding}", "padding")
        out = [(length + padding - size) // stride + 1 for length in (height, width)]
        super().__init__(section, sources, (channels, out[0], out[1]))
        before = padding // 2
        after = [max(0, (o - 1) * stride + size - before - length) for o, length in zip(out, shape[1:], strict=True)]
        self.padding = (before, after[1], before, after[0])  # without what no window reaches

    def forward(self, x: Tensor) -> Tensor:
        if any(self.padding):
            x = F.pad(x, self.padding, value=-torch.inf)
        return F.max_pool2d(x, self.size, self.stride)[..., : self.shape[1], : self.shape[2]]


class Route(Layer):
    """[route]: the maps of other layers, one after the other in channels; with ``groups`` one part of each."""

    def __init__(self, section: Section, sources: Sequence[int], shapes: Sequence[Shape]) -> None:
        self.groups = groups = section.integer("groups", 1, 1)
        self.group = section.integer("group_id", 0, 0, groups - 1)
        if any(shape[1:] != shapes[0][1:] or shape[0] % groups for shape in shapes):
            raise section.error(f"layers must have maps of one size and {groups} groups, got {list(shapes)}", "layers")
        super().__init__(section, sources, (sum(shape[0] // groups for shape in shapes), *shapes[0][1:]))

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat([x.chunk(self.groups, 1)[self.group] for x in maps], 1)


class Shortcut(Layer):
    """[shortcut]: the sum of maps of one shape."""

    def __init__(self, section: Section, sources: Sequence[int], shapes: Sequence[Shape]) -> None:
        if any(shape != shapes[0] for shape in shapes):
            raise section.error(f"from must name layers of the same shape, got {list(shapes)}", "from")
        if section.text("weights_type", "none") != "none":
            raise section.error("weights_type is not supported", "weights_type")
        super().__init__(section, sources, shapes[0])
        self.activation = _activation(section, "linear")

    def forward(self, *maps: Tensor) -> Tensor:
        total = maps[0]
        for x in maps[1:]:
            total = total + x
        return self.activation(total)


class Upsample(Layer):
    """[upsample]: each pixel repeated ``stride`` times in both directions, times ``scale``."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        self.stride = stride = section.integer("stride", 2, 1, 255)
        self.scale = section.number("scale", 1)
        super().__init__(section, sources, (shape[0], shape[1] * stride, shape[2] * stride))

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Dropout(Layer):
    """[dropout]: numbers at random to 0 in training, the others larger for it."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        super().__init__(section, sources, shape)
        self.probability = section.number("probability", 0.5)
        if not 0 <= self.probability <= 1:
            raise section.error(f"probability must be from 0 to 1, got {self.probability}", "probability")

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.probability, self.training)


class Reorg(Layer):
    """[reorg]: blocks of ``stride`` × ``stride`` pixels become channels.

    Darknet reads the map (C, H, W) as (C / stride², stride × H, stride × W) for it, and so does this.
    """

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape) -> None:
        section.refuse("reverse", "flatten", "extra")
        self.stride = stride = section.integer("stride", 1, 1, 255)
        channels, height, width = shape
        if channels % (stride * stride) or height % stride or width % stride:
            raise section.error(f"stride must divide the map's size, and its square the channels of {shape}", "stride")
        super().__init__(section, sources, (channels * stride * stride, height // stride, width // stride))

    def forward(self, x: Tensor) -> Tensor:
        images, channels, height, width = x.shape
        s = self.stride
        blocks = x.reshape(images, channels // (s * s), height, s, width, s)
        return blocks.permute(0, 3, 5, 1, 2, 4).reshape(images, *self.shape)


class Output(Layer):
    """[yolo], [region] or [detection]: the map before it goes out, to be decoded by ``head``."""

    def __init__(self, section: Section, sources: Sequence[int], shape: Shape, head: Head) -> None:
        super().__init__(section, sources, shape)
        self.head = head


_PLAIN: dict[str, Callable[[Section, Sequence[int], Shape], Layer]] = {
    "convolutional": Convolutional,
    "connected": Connected,
    "local": Local,
    "maxpool": MaxPool,
    "reorg": Reorg,
    "upsample": Upsample,
    "dropout": Dropout,
    "cost": Layer,
}


def make_layer(section: Section, before: Sequence[Layer], image: Shape) -> Layer:
    """Return the layer of a section.

    Parameters
    ----------
    section : Section
        Any but [net].
    before : sequence of Layer
        The layers of the sections before.
    image : tuple of int
        Shape of the network's input: channels, height, width.

    Raises
    ------
    ValueError
        For a section or option that is not supported, or does not fit the layers before. One line, with file, line and
        section.
    """
    index = len(before)
    if section.name == "route":
        sources = _sources(section, "layers", index)
        return Route(section, sources, [_shape(section, source, before, image) for source in sources])
    shape = _shape(section, index - 1, before, image)
    if section.name == "shortcut":
        sources = [index - 1, *_sources(section, "from", index)]
        return Shortcut(section, sources, [_shape(section, source, before, image) for source in sources])
    if section.name in HEADS:
        return Output(section, [index - 1], shape, make_head(section, shape, (image[1], image[2])))
    if section.name not in _PLAIN:
        known = ", ".join(sorted([*_PLAIN, *HEADS, "route", "shortcut"]))
        raise section.error(f"a network cannot have this section, only {known}")
    return _PLAIN[section.name](section, [index - 1], shape)


def check_count(section: Section, count: int) -> None:
    """Raise ValueError for a layer with too many weights."""
    if count > _MOST_NUMBERS:
        raise section.error(f"must have at most {_MOST_NUMBERS} weights, got {count}")


def _sources(section: Section, option: str, index: int) -> list[int]:
    """Return the layers that an option names; negative numbers count back from the layer itself."""
    given = section.integers(option)
    if given is None:
        raise section.error(f"{option} must be given")
    sources = [number if number >= 0 else index + number for number in given]
    for number, source in zip(given, sources, strict=True):
        if not 0 <= source < index:
            raise section.error(f"{option} must name layers before layer {index}, got {number}", option)
    return sources


def _shape(section: Section, source: int, before: Sequence[Layer], image: Shape) -> Shape:
    if source < 0:
        return image
    if isinstance(before[source], Output):
        raise section.error(f"must not take the result of layer {source}, [{before[source].section.name}]")
    return before[source].shape


def _activation(section: Section, default: str) -> Callable[[Tensor], Tensor]:
    name = section.text("activation", default)
    if name not in _ACTIVATIONS:
        raise section.error(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name[:40]!r}", "activation")
    return _ACTIVATIONS[name]


def _normalisation(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> list[Tensor]:
    return [norm.bias, norm.weight, _given(norm.running_mean), _given(norm.running_var)]


def _given(value: Any) -> Tensor:
    assert isinstance(value, Tensor)
    return value
