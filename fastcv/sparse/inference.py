"""Sparse convolutions made ready for inference: normalisation, addition and activation happen on their way out.

An optimized network keeps all its modules and their weights. Its convolutions keep, besides, their weight with the
normalisation behind them multiplied in and packed; who calls a chain of modules asks :func:`follow` to take them
together, which does so where nobody would see a difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fastcv._hooks import has_any_global_hook, is_untouched
from fastcv.ops._call import is_plain
from fastcv.ops.sparse_conv import infer, pack
from fastcv.sparse.core import SparseConvTensor

__all__ = [
    "ACTIVATIONS",
    "PLAIN_CONVOLUTIONS",
    "PLAIN_NORMS",
    "Chain",
    "JoinedTensor",
    "Kept",
    "convolve",
    "find_chain",
    "follow",
    "is_foldable",
    "is_optimized",
    "is_plain_convolution",
    "make_ready",
    "prepared",
]

# Filled by the modules that define them. A subclass may do anything, and is called.
PLAIN_CONVOLUTIONS: set[type] = set()
PLAIN_NORMS: set[type] = {nn.BatchNorm1d}
ACTIVATIONS: dict[type, str] = {nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.SiLU: "silu"}


class JoinedTensor(SparseConvTensor):
    """The channels of two tensors with the same sites, side by side; copied only for who asks for them."""

    def __init__(self, first: SparseConvTensor, second: Tensor) -> None:
        self.__dict__.update(first.__dict__)
        self.__dict__.pop("_features", None)
        self.parts = (first.features, second)
        self._joined: Tensor | None = None

    @property
    def _features(self) -> Tensor:  # type: ignore[override]
        if self._joined is None:
            self._joined = torch.cat(self.parts, 1)
        return self._joined

    def features_beside(self) -> tuple[Tensor, Tensor | None]:
        """Return the parts, where they are alike."""
        first, second = self.parts
        return self.parts if first.shape == second.shape else (self._features, None)

    @property
    def _channels(self) -> int:
        return sum(part.shape[1] for part in self.parts)

    def _check_rows(self) -> None:
        if any(part.shape[0] != self.indices.shape[0] for part in self.parts):
            super()._check_rows()


class Kept:
    """What an optimized convolution keeps: the normalisation behind it, and its weight with that, packed.

    It holds the memory of the tensors that it was made of: no other can take their place unseen. Copies fold and pack
    for themselves, since the layout depends on the processor.
    """

    def __init__(self, norm: nn.Module | None = None) -> None:
        self.norm = norm
        self._made_of: list[_Source] = []
        self._memory: list[Tensor] = []
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._packed: dict[bool, Tensor | None] = {}

    def __deepcopy__(self, memo: Any) -> Kept:
        return Kept(copy.deepcopy(self.norm, memo))

    def __reduce__(self) -> tuple[type[Kept], tuple[nn.Module | None]]:
        return Kept, (self.norm,)

    def weights(self, conv: Any, has_beside: bool) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
        """Return the folded weight, the bias and the packed weight, as the tensors are now.

        None where somebody trains them after all, or nobody counts their versions.
        """
        grad = torch.is_grad_enabled()
        for where, name, tensor, version, address in self._made_of:
            now = where.get(name)
            if now is None or now is not tensor:
                break
            if now._version != version or now.data_ptr() != address or (grad and now.requires_grad):
                break
        else:
            if has_beside in self._packed:
                return self._weight, self._bias, self._packed[has_beside]  # type: ignore[return-value]
        return self._made_anew(conv, has_beside, grad)

    def _made_anew(self, conv: Any, has_beside: bool, grad: bool) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
        places = _places(conv, self.norm)
        tensors = [where[name] for where, name in places]
        if any(t.is_inference() or not is_plain(t) or (grad and t.requires_grad) for t in tensors):
            return None
        self._memory = [tensor.detach() for tensor in tensors]
        self._made_of = [
            (where, name, tensor, tensor._version, tensor.data_ptr())
            for (where, name), tensor in zip(places, tensors, strict=True)
        ]
        self._weight, self._bias = weight, bias = _folded(conv, self.norm)
        packed = pack(weight, conv.groups, has_beside)
        self._packed = {has_beside: packed}
        return weight, bias, packed


_Source = tuple[dict[str, Any], str, Tensor, int, int]  # its place, its version and address


def _places(conv: Any, norm: nn.Module | None) -> list[tuple[dict[str, Any], str]]:
    """Where whatever a folded weight is made of stands."""
    places = [(conv._parameters, "weight"), (conv._parameters, "bias")]
    if norm is not None:
        places += [(norm._parameters, "weight"), (norm._parameters, "bias")]
        places += [(norm._buffers, "running_mean"), (norm._buffers, "running_var")]
    return [(where, name) for where, name in places if where.get(name) is not None]


@torch.inference_mode(False)
@torch.no_grad()
def _folded(conv: Any, norm: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight (C_out, kz, ky, kx, C_in / groups) and bias; in float64, so that they are rounded only once."""
    dense = isinstance(conv, nn.Conv3d)
    weight, bias = conv.weight.permute(0, 2, 3, 4, 1) if dense else conv.arranged_weight(), conv.bias
    if norm is None:
        return weight, None if bias is None else bias.detach()
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else norm.weight.double() * scale
    shift = -norm.running_mean.double() * scale
    shift = shift if norm.bias is None else shift + norm.bias.double()
    shift = shift if bias is None else shift + bias.double() * scale
    return (weight.double() * scale[:, None, None, None, None]).to(weight.dtype), shift.to(weight.dtype)


# ---- which modules may be taken together -----------------------------------------------------------------------------


@dataclass
class Chain:
    """A convolution and what behind it is taken with it."""

    conv: Any
    norm: nn.Module | None = None
    activation: str | None = None
    slope: float = 0.01
    length: int = 1  # modules

    def describe(self) -> str:
        """What happens on the way out."""
        parts = ["batch normalisation"] if self.norm is not None else []
        return ", ".join(parts + ([self.activation] if self.activation else []))


def is_plain_convolution(module: Any) -> bool:
    return type(module) in PLAIN_CONVOLUTIONS and "weight" in module._parameters and is_untouched(module)


def is_optimized(module: Any) -> bool:
    """Whether a module is a convolution that is ready for inference, and nothing else is to happen in it."""
    return getattr(module, "_kept", None) is not None and is_plain_convolution(module)


def is_foldable(norm: Any, channels: int) -> bool:
    return (
        type(norm) in PLAIN_NORMS
        and not norm.training
        and norm.running_mean is not None
        and norm.num_features == channels
        and is_untouched(norm)
    )


def find_chain(modules: Sequence[nn.Module]) -> Chain:
    """Return what of modules in a row can be taken together with the first, a plain convolution."""
    chain = Chain(modules[0])
    rest = list(modules[1:3])
    if rest and is_foldable(rest[0], chain.conv.out_channels):
        chain.norm = rest.pop(0)
        chain.length += 1
    if rest and type(rest[0]) in ACTIVATIONS and is_untouched(rest[0]):
        chain.activation = ACTIVATIONS[type(rest[0])]
        chain.slope = getattr(rest[0], "negative_slope", 0.01)
        chain.length += 1
    return chain


# ---- the call --------------------------------------------------------------------------------------------------------


def convolve(chain: Chain, input: SparseConvTensor, residual: Tensor | None = None) -> SparseConvTensor | None:
    """Return ``activation(norm(conv(input)) + residual)``, or None where the modules are to be called one by one.

    That is where a gradient is wanted, under autocast, in traces, and for what does not fit: they say what is wrong.
    """
    conv = chain.conv
    if not isinstance(input, SparseConvTensor) or not is_optimized(conv) or conv._kept.norm is not chain.norm:
        return None
    if has_any_global_hook():  # it wants to see each module
        return None
    first, second = input.features_beside() if conv.groups == 1 else (input.features, None)
    run = prepared(conv, conv._kept, first, second, residual, chain.activation, chain.slope)
    return None if run is None else conv.over_map(input, run)


Run = Callable[[Tensor, Tensor | None], Tensor]


def prepared(
    conv: Any,
    kept: Kept,
    features: Tensor,
    beside: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    slope: float,
    with_bias: bool = True,
) -> Run | None:
    """Return what computes the results over a kernel map, given its neighbours and their order, or None as above."""
    if not _are_served(features, beside, residual, conv._parameters["weight"]):
        return None
    weights = kept.weights(conv, beside is not None)
    if weights is None:
        return None
    weight, bias, packed = weights
    bias = bias if with_bias else None
    rest = (residual, activation, slope, packed)
    return lambda map, order: infer(features, beside, weight, bias, map, conv.groups, order, *rest)


def follow(
    conv: Any, norm: nn.Module, activation: str, input: SparseConvTensor, residual: Tensor | None = None
) -> SparseConvTensor | None:
    """:func:`convolve` for a block that knows its modules, which :func:`make_ready` may have made ready."""
    if getattr(conv, "_kept", None) is None or not is_foldable(norm, conv.out_channels):
        return None
    return convolve(Chain(conv, norm, activation), input, residual)


def make_ready(conv: Any, norm: nn.Module) -> bool:
    """Make a convolution ready with the normalisation behind it, where both are plain, and return whether they are."""
    plain = is_plain_convolution(conv) and conv._kept is None and is_foldable(norm, conv.out_channels)
    if plain:
        conv.optimize(norm)
    return plain


def _are_served(features: Tensor, beside: Tensor | None, residual: Tensor | None, weight: Tensor) -> bool:
    grad = torch.is_grad_enabled()
    if not is_plain(features) or torch.is_autocast_enabled(features.device.type):
        return False
    for tensor in (features, beside, residual):
        if tensor is not None and (
            type(tensor) not in (Tensor, nn.Parameter)
            or tensor.dtype is not weight.dtype
            or tensor.is_neg()
            or (grad and tensor.requires_grad)
        ):
            return False
    return True
