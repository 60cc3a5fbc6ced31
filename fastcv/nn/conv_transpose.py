"""Transposed convolutions as modules, with the constructor and the state of torch.nn's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastcv.ops.conv_transpose import apply, can_pack, pack_weight

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


class _Packed:
    """The packed weight of a module in evaluation, and what it was packed from."""

    __slots__ = ("key", "weight")

    def __init__(self) -> None:
        self.key: tuple[Any, ...] | None = None
        self.weight: Tensor | None = None

    def __deepcopy__(self, memo: Any) -> _Packed:
        return _Packed()

    def __reduce__(self) -> tuple[type[_Packed], tuple[()]]:
        return _Packed, ()


def _forward(module: Any, dims: int, input: Tensor, output_size: list[int] | None) -> Tensor:
    if module.padding_mode != "zeros":
        raise ValueError(f"padding_mode must be 'zeros', got {module.padding_mode!r}")
    extra = module.output_padding
    if output_size is not None:
        extra = module._output_padding(
            input, output_size, module.stride, module.padding, module.kernel_size, dims, module.dilation
        )
    weight = module.weight
    packed = None
    if not module.training and not torch.is_grad_enabled() and can_pack(weight):
        cache = module._packed
        key = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if cache.key != key:
            cache.weight = pack_weight(weight.detach().contiguous(), module.groups)
            cache.key = key
        packed = cache.weight
    options = (module.stride, module.padding, tuple(extra), module.groups, module.dilation, module.activation)
    return apply(dims, input, weight, module.bias, *options, packed)


class ConvTranspose1d(nn.ConvTranspose1d):
    """:func:`fastcv.ops.conv_transpose1d` with weights: see :class:`ConvTranspose2d`."""

    def __init__(self, *arguments: Any, activation: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.activation = activation
        self._packed = _Packed()

    def train(self, mode: bool = True) -> ConvTranspose1d:
        """Set training or evaluation mode, and forget the packed weight."""
        self._packed = _Packed()
        return super().train(mode)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (N, C, L), or (C, L), transposed; ``output_size`` chooses the output padding."""
        return _forward(self, 1, input, output_size)


class ConvTranspose2d(nn.ConvTranspose2d):
    """:func:`fastcv.ops.conv_transpose2d` with weights.

    Constructor, attributes, initial values and ``state_dict`` are those of ``torch.nn.ConvTranspose2d``. In evaluation
    and without gradients the weight is packed for the kernels once, and again when it has changed; a change through
    ``weight.data``, which torch does not record, is seen after the next ``train()`` or ``eval()``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, \
    device, dtype
        As in ``torch.nn.ConvTranspose2d``.
    activation : None or 'relu'
        Fused into the convolution.
    """

    def __init__(self, *arguments: Any, activation: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.activation = activation
        self._packed = _Packed()

    def train(self, mode: bool = True) -> ConvTranspose2d:
        """Set training or evaluation mode, and forget the packed weight."""
        self._packed = _Packed()
        return super().train(mode)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (N, C, H, W), or (C, H, W), transposed; ``output_size`` chooses the output padding."""
        return _forward(self, 2, input, output_size)


class ConvTranspose3d(nn.ConvTranspose3d):
    """:func:`fastcv.ops.conv_transpose3d` with weights: see :class:`ConvTranspose2d`."""

    def __init__(self, *arguments: Any, activation: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.activation = activation
        self._packed = _Packed()

    def train(self, mode: bool = True) -> ConvTranspose3d:
        """Set training or evaluation mode, and forget the packed weight."""
        self._packed = _Packed()
        return super().train(mode)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (N, C, D, H, W), or (C, D, H, W), transposed; ``output_size`` chooses the output padding."""
        return _forward(self, 3, input, output_size)
