"""A network made from a Darknet configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fastcv.models.yolo.config import DarknetConfig
from fastcv.models.yolo.heads import Head
from fastcv.models.yolo.layers import Connected, Convolutional, Layer, Output, Shape, make_layer
from fastcv.models.yolo.weights import DarknetWeights, WeightsHeader, read_weights, write_weights

__all__ = ["DarknetNetwork"]


class DarknetNetwork(nn.Module):
    """The network of a ``.cfg`` file.

    Sections: convolutional, connected, local, maxpool, route, reorg, shortcut, upsample, dropout, cost (which does
    nothing here), and the heads yolo, region and detection.

    Parameters
    ----------
    config : DarknetConfig
        From :func:`read_config`, :func:`parse_config` or :func:`make_config`.

    Attributes
    ----------
    input_shape : tuple of int
        Channels, height and width of the images that the network takes.
    shapes : list of tuple of int
        Channels, height and width of each layer's result; a head's is that of its map.
    heads : list of Head
        What decodes the network's outputs.
    header : WeightsHeader
        Of the weights that were loaded, for :meth:`save_weights`.

    Raises
    ------
    ValueError
        For sections or options that are not supported or do not fit each other. One line, with file, line and section.

    References
    ----------
    Redmon: Darknet: Open Source Neural Networks in C (2013-2016).
    """

    def __init__(self, config: DarknetConfig) -> None:
        super().__init__()
        net = config.net
        self.config = config
        self.input_shape: Shape = (
            net.integer("channels", 3, 1),
            net.integer("height", 416, 1),
            net.integer("width", 416, 1),
        )
        layers: list[Layer] = []
        for section in config.sections[1:]:
            layers.append(make_layer(section, layers, self.input_shape))
        if not layers:
            raise net.error("must be followed by layers")
        self.layers = nn.ModuleList(layers)
        self.header = WeightsHeader()
        self.optimized = False
        self._last_use = {source: index for index, layer in enumerate(layers) for source in layer.sources}

    @property
    def shapes(self) -> list[Shape]:
        return [layer.shape for layer in self._layers()]

    @property
    def heads(self) -> list[Head]:
        return [layer.head for layer in self._layers() if isinstance(layer, Output)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) to the maps of the heads, not decoded; without a head to the result of the last layer."""
        if images.dim() != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(f"images must have shape (N, {str(self.input_shape)[1:]}, got {tuple(images.shape)}")
        if self.optimized or self.training:  # training takes half the time of that in the usual format on a CPU
            images = images.contiguous(memory_format=torch.channels_last)
        results: dict[int, Tensor] = {-1: images}
        outputs: list[Tensor] = []
        x = images
        for index, layer in enumerate(self._layers()):
            x = layer(*(results[source] for source in layer.sources))
            if isinstance(layer, Output):
                outputs.append(x)
            results[index] = x
            for source in layer.sources:  # a map is let go when no layer to come takes it
                if self._last_use[source] == index:
                    results.pop(source, None)
        return outputs or [x]

    def load_weights(self, weights: str | Path | DarknetWeights) -> DarknetNetwork:
        """Load a ``.weights`` file, all of it or none of it, and return the network.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ValueError
            If it is no such file, or has more or fewer numbers than the network: one line, with the layer where they
            end.
        """
        self._refuse_optimized()
        if not isinstance(weights, DarknetWeights):
            weights = read_weights(weights)
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError("the network is on the device meta, which holds no values: make it on another device")
        values, position = weights.values, 0
        found: list[tuple[Tensor, Tensor]] = []
        for layer in self._layers():
            stored = layer.stored()
            needed = sum(tensor.numel() for tensor in stored)
            if position + needed > len(values):
                raise layer.section.error(
                    f"{weights.file} must have {needed} numbers for this layer, got {len(values) - position}"
                )
            for tensor in stored:
                part = values[position : position + tensor.numel()]
                if isinstance(layer, Connected) and tensor.dim() == 2 and weights.header.is_transposed:
                    part = part.view(tensor.shape[::-1]).t()
                found.append((tensor, part.reshape(tensor.shape)))
                position += tensor.numel()
        if position != len(values):
            last = self._layers()[-1].section
            raise last.error(f"{weights.file} must end here, with {position} numbers, got {len(values)}")
        with torch.no_grad():
            for tensor, part in found:
                tensor.copy_(part)
        self.header = weights.header
        return self

    def save_weights(self, path: str | Path) -> None:
        """Write a ``.weights`` file, completely or not at all. One that was loaded is written with the same bytes."""
        self._refuse_optimized()
        parts = []
        for layer in self._layers():
            for tensor in layer.stored():
                transposed = isinstance(layer, Connected) and tensor.dim() == 2 and self.header.is_transposed
                parts.append((tensor.detach().t() if transposed else tensor.detach()).reshape(-1))
        values = torch.cat(parts) if parts else torch.empty(0)
        write_weights(path, DarknetWeights(values, self.header))

    def optimize(self) -> DarknetNetwork:
        """Fold normalisations into the convolutions and store weights in channels_last: for inference, permanently."""
        self._refuse_optimized()
        self.eval().requires_grad_(False)
        for layer in self._layers():
            if isinstance(layer, Convolutional):
                layer.optimize()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self.optimized = True
        return self

    def train(self, mode: bool = True) -> DarknetNetwork:
        """Set training or evaluation mode; an optimized network cannot train."""
        if mode and self.optimized:
            raise RuntimeError("an optimized network cannot be trained: its batch normalisation is gone")
        return super().train(mode)

    def _refuse_optimized(self) -> None:
        if self.optimized:
            raise RuntimeError("the network is optimized: load and save its weights before, and optimize it once")

    def _layers(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]
