"""Containers and the layers that work site by site."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.sparse import constants
from fastcv.sparse.core import SparseConvTensor
from fastcv.sparse.inference import ACTIVATIONS, PLAIN_NORMS, convolve, find_chain, is_optimized, is_plain_convolution

__all__ = [
    "RemoveGrid",
    "SparseBatchNorm",
    "SparseIdentity",
    "SparseModule",
    "SparseReLU",
    "SparseSequential",
    "SparseSyncBatchNorm",
    "ToDense",
    "assign_name_for_sparse_modules",
    "is_sparse_conv",
    "is_spconv_module",
]


class SparseModule(nn.Module):
    """Base of the modules to which :class:`SparseSequential` hands the sparse tensor itself.

    Parameters
    ----------
    name : str, optional
        Kept as an attribute.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._sparse_unique_name = ""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load weights of any of spconv's layouts. (mmdet3d puts a function of its own in this one's place.)"""
        own, saved = self._parameters.get("weight"), state_dict.get(prefix + "weight")
        conv1x1 = getattr(self, "conv1x1", None)  # None: no convolution
        if conv1x1 is not None and own is not None and isinstance(saved, Tensor) and own.dim() == saved.dim():
            try:
                state_dict = {**state_dict, prefix + "weight": _as_krsc(saved, own.shape, conv1x1)}
            except ValueError as error:
                rest[-1].append(f"{prefix}weight {error}")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _as_krsc(saved: Tensor, own: torch.Size, conv1x1: bool) -> Tensor:
    """Return a weight of any layout as (C_out, \\*kernel, C_in), the layer's shape ``own``.

    Raises ValueError where the shape is that of several layouts, and nobody has said which.
    """
    last = saved.dim() - 1
    axes = {"KRSC": tuple(range(last + 1)), "RSKC": (last - 1, *range(last - 1), last), "RSCK": (last, *range(last))}
    layout = constants.SAVED_WEIGHT_LAYOUT
    fitting = [name for name in axes if saved.permute(axes[name]).shape == own]
    if conv1x1 and fitting and layout in ("", *fitting):
        return saved.reshape(own)  # read as (C_in, C_out) in every layout
    if not layout:
        if "KRSC" in fitting or not fitting:
            return saved
        if len(fitting) > 1:
            raise ValueError(
                f"of shape {tuple(saved.shape)} may be {' or '.join(fitting)}: set the environment "
                "variable SPCONV_SAVED_WEIGHT_LAYOUT, or fastcv.sparse.constants.SAVED_WEIGHT_LAYOUT, to what it is"
            )
        layout = fitting[0]
    return saved.permute(axes[layout]).contiguous()


class SparseSequential(SparseModule):
    """Modules one after the other: sparse ones get the sparse tensor, all others its features (N, C).

    Parameters
    ----------
    *args : Module, or one OrderedDict of them
        Named by position, or by the keys.
    **kwargs : Module
        More of them, named.

    Notes
    -----
    Every module is called for tensors without sites too, so that channels and gradients are right. A
    ``nn.BatchNorm1d`` in training, which refuses less than two rows, is given its running statistics for these and
    does not change them.

    Examples
    --------
    >>> from fastcv.sparse import SparseConv3d, SubMConv3d
    >>> net = SparseSequential(
    ...     SubMConv3d(4, 16, 3, indice_key="sites"),
    ...     nn.BatchNorm1d(16),
    ...     nn.ReLU(),
    ...     SparseConv3d(16, 32, 3, stride=2, padding=1),
    ...     ToDense(),
    ... )
    """

    def __init__(self, *args: Any, **kwargs: nn.Module) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for position, module in enumerate(args):
                self.add_module(str(position), module)
        for name, module in kwargs.items():
            self.add(module, name)

    def __getitem__(self, index: int) -> nn.Module:
        modules = list(self._modules.values())
        if not -len(modules) <= index < len(modules):
            raise IndexError(f"index {index} is out of range for {len(modules)} modules")
        module = modules[index]
        assert module is not None
        return module

    def __len__(self) -> int:
        return len(self._modules)

    def add(self, module: nn.Module, name: str | None = None) -> None:
        """Append a module, by default named by its position."""
        if name is None:
            name = str(len(self._modules))
        if name in self._modules:
            raise ValueError(f"a module named {name!r} exists already")
        self.add_module(name, module)

    def make_ready(self) -> list[tuple[str, str]]:
        """Make the convolutions ready for inference, with what follows them, and return their names and what that is.

        :func:`fastcv.optimize` calls it.
        """
        made = []
        names, modules = list(self._modules), list(self._modules.values())
        for place, module in enumerate(modules if type(self).forward is SparseSequential.forward else []):
            if is_plain_convolution(module) and getattr(module, "_kept", None) is None:
                chain = find_chain(modules[place:])  # type: ignore[arg-type]
                chain.conv.optimize(chain.norm)
                made.append((names[place], chain.describe()))
        return made

    def forward(self, input: Any) -> Any:
        """Pass ``input``, a sparse or a dense tensor, through all modules."""
        modules: list[Any] = list(self._modules.values())
        while modules:
            length, output = 1, None
            if is_optimized(modules[0]):
                chain = find_chain(modules)
                length, output = chain.length, convolve(chain, input)
            if output is None:
                length, module = 1, modules[0]
                if isinstance(input, SparseConvTensor) and not is_spconv_module(module):
                    output = input.replace_feature(_apply(module, input.features))
                else:
                    output = module(input)
            input = output
            del modules[:length]
        return input


class SparseBatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over the features of a sparse tensor; trains with any number of sites.

    With less than two sites there is no variance: these are normalised by the running statistics, which stay as they
    are.
    """

    def forward(self, input: Any) -> Any:
        """Normalise the features of a sparse tensor, or a tensor (N, C)."""
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(self.forward(input.features))
        return _batch_norm(self, input, super().forward)


class SparseSyncBatchNorm(nn.SyncBatchNorm):
    """``nn.SyncBatchNorm`` over the features of a sparse tensor."""

    def forward(self, input: Any) -> Any:
        """Normalise the features of a sparse tensor, or a tensor."""
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(super().forward(input.features))
        return super().forward(input)


class SparseReLU(nn.ReLU):
    """``nn.ReLU`` over the features of a sparse tensor."""

    def forward(self, input: Any) -> Any:
        """Clamp the features of a sparse tensor, or a tensor."""
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(super().forward(input.features))
        return super().forward(input)


class SparseIdentity(nn.Identity):
    """Returns the sparse tensor as it is."""


class ToDense(SparseModule):
    """:meth:`SparseConvTensor.dense` as a module: to (B, C, \\*spatial_shape)."""

    def forward(self, x: SparseConvTensor) -> Tensor:
        """Return the grid (B, C, \\*spatial_shape)."""
        return x.dense()


class RemoveGrid(SparseModule):
    """Forgets the ``grid`` of the sparse tensor, which is not used here."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Return the tensor, without a grid."""
        x.grid = None
        return x


PLAIN_NORMS.add(SparseBatchNorm)
ACTIVATIONS[SparseReLU] = "relu"

_SPARSE = (SparseModule, SparseBatchNorm, SparseSyncBatchNorm, SparseReLU, SparseIdentity)


def is_spconv_module(module: Any) -> bool:
    """Return whether a module takes the sparse tensor itself."""
    return isinstance(module, _SPARSE)


def is_sparse_conv(module: Any) -> bool:
    """Return whether a module is a sparse convolution."""
    return isinstance(module, SparseModule) and hasattr(module, "conv1x1")


def assign_name_for_sparse_modules(module: nn.Module) -> None:
    """Tell each sparse module its name in ``module``, as ``_sparse_unique_name``."""
    for name, child in module.named_modules():
        if isinstance(child, SparseModule):
            child._sparse_unique_name = name


def _apply(module: nn.Module, features: Tensor) -> Tensor:
    if isinstance(module, nn.BatchNorm1d):
        return _batch_norm(module, features, module)
    output: Tensor = module(features)
    return output


def _batch_norm(module: nn.BatchNorm1d, features: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
    """Normalise features (N, C) of any number of sites, by ``forward`` where torch can."""
    rows = features.shape[0]
    needed = 2 if module.training or module.running_mean is None else 1
    if not torch.compiler.is_compiling():
        enough = rows >= needed
    else:
        from torch.fx.experimental.symbolic_shapes import guard_or_false, guard_or_true

        enough = guard_or_false(rows >= needed)
        if needed == 2 and not enough and guard_or_true(rows >= needed):  # not known: taken to be enough
            torch._check(rows >= needed)
            enough = True
    return forward(features) if enough else _normalise_by_running_statistics(module, features)


def _normalise_by_running_statistics(module: nn.BatchNorm1d, features: Tensor) -> Tensor:
    mean, var = module.running_mean, module.running_var
    if mean is None or var is None:  # a single row is its own mean
        output = features - features
    else:
        output = ((features - mean) * torch.rsqrt(var + module.eps)).to(features.dtype)
    return output if module.weight is None else (output * module.weight + module.bias).to(features.dtype)
