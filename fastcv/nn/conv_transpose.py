"""Transposed convolutions as modules, with the constructor and the state of torch.nn's."""

from typing import Any

import torch
from torch import Tensor, fx, nn

from fastcv.nn._packed_weight import PackedWeight
from fastcv.nn.batch_norm import scale_and_shift
from fastcv.ops._call import is_plain
from fastcv.ops.conv_transpose import apply, pack_weight

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

# Symbolic traces record the call, as those of torchvision do.
fx.wrap("apply")


class _ConvTranspose(nn.modules.conv._ConvTransposeNd):
    """What the three modules share. Nothing is kept between calls, unless :meth:`optimize` was called."""

    _packed: PackedWeight | None

    def __init__(self, *arguments: Any, activation: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.activation = activation
        self._packed = None

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve, transposed, with or without a batch; ``output_size`` chooses the output padding."""
        if self.padding_mode != "zeros":
            raise ValueError(f"padding_mode must be 'zeros', got {self.padding_mode!r}")
        dims = len(self.kernel_size)
        extra: Any = self.output_padding
        if output_size is not None:
            geometry = (self.stride, self.padding, self.kernel_size, dims, self.dilation)
            extra = self._output_padding(input, output_size, *geometry)  # type: ignore[arg-type]
        options = (self.stride, self.padding, extra, self.groups, self.dilation, self.activation)
        weight = self.weight
        packed = None if self._packed is None else self._weight_packed(weight)
        return apply(dims, input, weight, self.bias, *options, packed)  # type: ignore[arg-type]

    def optimize(self) -> "_ConvTranspose":
        """Make the module ready for fast inference, permanently, and return it: its weight is packed once.

        Sets evaluation mode and turns gradients off. From then on :meth:`train` raises RuntimeError. Another weight, a
        checkpoint, another dtype or device, operations in place: all that is seen, and packed anew. Only what is
        written through ``weight.data`` is not: load such values before.
        """
        self.eval().requires_grad_(False)
        self._packed = PackedWeight()
        return self

    def _weight_packed(self, weight: Tensor) -> Tensor | None:
        """The packed weight, or None where this call has to do without: it then packs for itself."""
        if not is_plain(weight):
            return None
        if torch.is_autocast_enabled(weight.device.type):  # it will be cast
            return None
        kept = self._packed
        assert kept is not None
        if weight.requires_grad or weight.is_inference():  # someone trains it after all, or nobody counts its versions
            self._packed = PackedWeight()
            return None
        if not kept.is_of(weight):
            packed = pack_weight(weight, self.groups)
            if packed is None:
                return None
            kept = self._packed = PackedWeight(weight, packed)
        return kept.packed  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode; an optimized module cannot train."""
        if mode and self._packed is not None:
            raise RuntimeError("an optimized transposed convolution cannot be trained: it keeps its packed weight")
        return super().train(mode)

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        if self._packed is not None:  # the weight stays the same tensor when its memory is replaced
            self._packed = PackedWeight()
        return super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]


class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """:func:`fastcv.ops.conv_transpose1d` with weights: see :class:`ConvTranspose2d`."""


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """:func:`fastcv.ops.conv_transpose2d` with weights.

    Constructor, attributes, initial values and ``state_dict`` are those of ``torch.nn.ConvTranspose2d``. The weight is
    read at each call as it is then; after :meth:`optimize` the kernels' form of it is kept.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode, \
    device, dtype
        As in ``torch.nn.ConvTranspose2d``.
    activation : None or 'relu'
        Fused into the convolution.
    """

    @classmethod
    def from_conv(
        cls, conv: nn.ConvTranspose2d, norm: nn.Module | None = None, activation: str | None = None
    ) -> "ConvTranspose2d":
        """Return an optimized module that computes ``activation(norm(conv(x)))``.

        Parameters
        ----------
        conv : torch.nn.ConvTranspose2d
            It stays as it is. Without ``norm`` the new module shares its weight's memory.
        norm : BatchNorm2d or FrozenBatchNorm2d, optional
            In evaluation mode; multiplied into the weight.
        activation : None or 'relu'
            As in the constructor.
        """
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.output_padding,
            conv.groups,
            conv.bias is not None,
            conv.dilation,
            conv.padding_mode,
            device="meta",
            activation=activation,
        )
        weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        if norm is not None:
            # in float64, so that the product is rounded only once
            scale, shift = (value.detach().double() for value in scale_and_shift(norm))  # type: ignore[arg-type]
            grouped = weight.double().unflatten(0, (conv.groups, -1)) * scale.view(conv.groups, 1, -1, 1, 1)
            folded = shift if bias is None else shift + bias.double() * scale
            weight, bias = grouped.flatten(0, 1).to(weight.dtype), folded.to(weight.dtype)
        made.weight = nn.Parameter(weight, requires_grad=False)
        made.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        made.optimize()
        return made


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """:func:`fastcv.ops.conv_transpose3d` with weights: see :class:`ConvTranspose2d`."""
