"""A convolution and the activation behind it in one pass over the map, for inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.nn.convolution import can_fuse

__all__ = ["FusedConvolution"]

# What oneDNN calls Darknet's activations, and their numbers.
_EPILOGUES: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []),
    "leaky": ("leaky_relu", [0.1]),
    "relu": ("relu", []),
    "logistic": ("sigmoid", []),
    "tanh": ("tanh", []),
    "swish": ("swish", []),
}
_unary: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_pack: Any = getattr(torch.ops.mkldnn, "_reorder_convolution_weight", None)
_MOST_SHAPES = 4  # for each of which the weight is kept once more


class FusedConvolution(nn.Conv2d):
    """``activation(conv(x))`` with the parameters of a convolution, which do not change any more.

    oneDNN wants weights in an order of its own, which depends on the shape of the map. For 512 to 1024 channels at
    13 × 13, bringing them into it takes a quarter of the time; so they are kept in it, for the last few shapes.

    Parameters
    ----------
    conv : nn.Conv2d
        The convolution; its parameters are shared.
    name : str
        The activation as Darknet calls it.
    activation : callable
        The same, for where it is not part of the convolution.
    """

    def __init__(self, conv: nn.Conv2d, name: str, activation: Callable[[Tensor], Tensor]) -> None:
        form: Any = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.bias is not None)
        with torch.device("meta"):  # no parameters of its own
            super().__init__(conv.in_channels, conv.out_channels, *form)
        self.weight, self.bias = conv.weight, conv.bias
        self.training = conv.training
        self.name, self.activation = name, activation
        self._packed: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, filters, H', W')."""
        if self.name not in _EPILOGUES or _pack is None or not can_fuse(x, self.weight):
            return self.activation(super().forward(x))
        form: Any = (self.padding, self.stride, self.dilation, self.groups)
        epilogue, numbers = _EPILOGUES[self.name]
        result: Tensor = _unary(x, self._weight_for(x, form), self.bias, *form, epilogue, numbers, "")
        return result

    def _weight_for(self, x: Tensor, form: Any) -> Tensor:
        shape = tuple(x.shape)
        packed = self._packed.get(shape)
        if packed is None:
            while len(self._packed) >= _MOST_SHAPES:
                self._packed.pop(next(iter(self._packed)), None)
            self._packed[shape] = packed = _pack(self.weight, *form, list(shape))
        return packed

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        self._packed = {}
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call, unused-ignore]

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._packed = {}
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": {}}
