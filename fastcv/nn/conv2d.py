"""Convolution for inference as a module, with the constructor and the state of torch.nn's."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.nn._packed_weight import PackedWeight
from fastcv.nn._plain import PLAIN_CONVOLUTIONS, is_plain_convolution
from fastcv.nn.batch_norm import fold_batch_norm
from fastcv.ops._call import is_plain
from fastcv.ops.conv2d import apply

__all__ = ["Conv2d", "replace_convolutions"]


class Conv2d(nn.Conv2d):
    """:func:`fastcv.ops.conv2d` with weights: a convolution for inference.

    Constructor, attributes, initial values and ``state_dict`` are those of ``torch.nn.Conv2d``. The weight is read at
    each call as it is then; after :meth:`optimize` the kernels' form of it is kept: packed, or transformed and packed,
    which for kernels of 3 x 3 takes up to seven times the memory of the weight.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As in ``torch.nn.Conv2d``.
    activation : None, 'relu', 'leaky_relu' or 'silu'
        Fused into the convolution.
    negative_slope : float
        Of 'leaky_relu'.
    exact : bool
        Whether to do without Winograd's filtering; see :func:`fastcv.ops.conv2d`.
    channels_last : bool
        Whether the input is brought into channels_last where it is not, so that the result is.
    """

    _packed: PackedWeight | None

    def __init__(
        self,
        *arguments: Any,
        activation: str | None = None,
        negative_slope: float = 0.01,
        exact: bool = False,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.activation = activation
        self.negative_slope = negative_slope
        self.exact = exact
        self.channels_last = channels_last
        self._packed = None

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        norm: nn.Module | None = None,
        activation: str | None = None,
        negative_slope: float = 0.01,
        exact: bool = False,
        channels_last: bool = False,
    ) -> "Conv2d":
        """Return an optimized module that computes ``activation(norm(conv(x)))``.

        Parameters
        ----------
        conv : torch.nn.Conv2d
            It stays as it is. Without ``norm`` the new module shares its weight's memory.
        norm : BatchNorm2d or FrozenBatchNorm2d, optional
            In evaluation mode and without hooks; multiplied into the weight.
        activation, negative_slope, exact, channels_last
            As in the constructor.
        """
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device="meta",
            activation=activation,
            negative_slope=negative_slope,
            exact=exact,
            channels_last=channels_last,
        )
        made.weight = nn.Parameter(conv.weight.detach(), requires_grad=False)
        if conv.bias is not None:
            made.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
        if norm is not None and fold_batch_norm(made, norm) is norm and not isinstance(norm, nn.Identity):
            raise ValueError("norm must have no hooks: they are not called once it is folded")
        return made.optimize()

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolve (N, C, H, W) or (C, H, W), add ``residual``, and activate.

        Where a gradient is wanted, under autocast, in traces and on other devices torch's own operations do it.
        """
        if self.is_served(input, residual):
            return self.convolve(input, residual, self.activation)
        output = self._conv_forward(input, self.weight, self.bias)
        if residual is not None:
            output = output + residual
        if self.activation == "leaky_relu":
            return F.leaky_relu(output, self.negative_slope)
        return output if self.activation is None else getattr(F, self.activation)(output)  # type: ignore[no-any-return]

    def is_served(self, input: Tensor, residual: Tensor | None = None, enlarges: bool = False) -> bool:
        """Whether :meth:`convolve` takes these tensors; with ``enlarges`` a residual of another size, too."""
        weight, bias = self._parameters.get("weight"), self.bias
        if weight is None:  # it is made anew in each call, as by a parametrization
            return False
        tensors = (input, weight) if residual is None else (input, weight, residual)
        return (
            isinstance(input, Tensor)
            and all(is_plain(tensor) and tensor.is_cpu and tensor.dtype is weight.dtype for tensor in tensors)
            and not torch.is_autocast_enabled("cpu")
            and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
            and (bias is None or not (torch.is_grad_enabled() and bias.requires_grad))
            and (residual is None or enlarges or tuple(residual.shape) == self._output_shape(input))
        )

    def convolve(
        self, input: Tensor, residual: Tensor | None, activation: str | None, takes_over: bool = False
    ) -> Tensor:
        """Convolve, add and activate in one pass; ``activation`` takes the place of the module's own.

        With ``takes_over`` nobody else needs ``residual``: the result may be written over it. It may also be smaller
        than the result, which then adds its nearest pixels.
        """
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        if self.channels_last and input.dim() == 4:
            input = input.contiguous(memory_format=torch.channels_last)
        weight = self._parameters["weight"]
        assert weight is not None
        packed = None if self._packed is None else self._weight_packed(weight)
        form: Any = (self.stride, padding, self.dilation, self.groups, residual)
        form += (activation, self.negative_slope, self.exact, packed, takes_over)
        return apply(input, weight, self.bias, *form)

    def _output_shape(self, input: Tensor) -> tuple[int, ...]:
        def size(axis: int) -> int:
            around = self._reversed_padding_repeated_twice[2 - 2 * axis : 4 - 2 * axis]
            reach: int = self.dilation[axis] * (self.kernel_size[axis] - 1)
            return (input.shape[axis - 2] + sum(around) - reach - 1) // self.stride[axis] + 1

        return (*input.shape[:-3], self.out_channels, size(0), size(1))

    def optimize(self) -> "Conv2d":
        """Make the module ready for fast inference, permanently, and return it: its weight is packed once.

        Sets evaluation mode and turns gradients off. From then on :meth:`train` raises RuntimeError. Which form the
        weight takes depends on the sizes of the input, so the first call with sizes of a kind packs. Another weight, a
        checkpoint, another dtype or device, operations in place: all that is seen, and packed anew. Only what is
        written through ``weight.data`` is not: load such values before.
        """
        self.eval().requires_grad_(False)
        self._packed = PackedWeight()
        return self

    @property
    def is_optimized(self) -> bool:
        """Whether :meth:`optimize` was called."""
        return self._packed is not None

    def _weight_packed(self, weight: Tensor) -> dict[int, Tensor] | None:
        """The packed forms of the weight, by tile, or None where this call has to do without: it packs for itself."""
        kept = self._packed
        assert kept is not None
        if weight.requires_grad or weight.is_inference():  # someone trains it after all, or nobody counts its versions
            self._packed = PackedWeight()
            return None
        if not kept.is_of(weight):
            kept = self._packed = PackedWeight(weight, {})
        forms: dict[int, Tensor] = kept.packed
        return forms

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode; an optimized module cannot train."""
        if mode and self._packed is not None:
            raise RuntimeError("an optimized convolution cannot be trained: it keeps its packed weight")
        return super().train(mode)

    def extra_repr(self) -> str:
        """As torch.nn.Conv2d, and the activation."""
        text: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


PLAIN_CONVOLUTIONS.add(Conv2d)


def replace_convolutions(module: nn.Module) -> None:
    """Replace every torch.nn.Conv2d below a module by an optimized :class:`Conv2d`, in place."""
    places: dict[nn.Conv2d, list[tuple[nn.Module, str]]] = {}
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and is_plain_convolution(child):
                places.setdefault(child, []).append((parent, name))
    for child, found in places.items():
        made = Conv2d.from_conv(child)
        for parent, name in found:
            setattr(parent, name, made)
