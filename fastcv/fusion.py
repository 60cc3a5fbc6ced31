"""Any network made ready for inference on the CPU: normalisations folded, convolutions fused with what follows them."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.parameter import is_lazy

from fastcv.nn._plain import has_hooks, is_untouched
from fastcv.nn.batch_norm import FrozenBatchNorm2d, has_fixed_statistics
from fastcv.nn.conv2d import Conv2d
from fastcv.nn.conv_transpose import ConvTranspose2d
from fastcv.sparse.readiness import make_all_ready

__all__ = ["Report", "optimize"]

_FUNCTIONS = (F.conv2d, torch.conv2d, F.conv_transpose2d, torch.conv_transpose2d)
_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
# By what a graph calls: the name of an activation. Modules and functions say its slope themselves.
_ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.SiLU: "silu",
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    "relu": "relu",
    "relu_": "relu",
    F.leaky_relu: "leaky_relu",
    F.leaky_relu_: "leaky_relu",
    F.silu: "silu",
}

# Those of Python that write to their first argument: iadd, imul ...
_IN_PLACE = {getattr(operator, f"i{name}") for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "mod")}


@dataclass
class Report:
    """What :func:`optimize` did to a module.

    Attributes
    ----------
    replaced
        Name of each convolution that was replaced, and what was fused into it.
    left
        Name of each part that was left as it is, and why.
    """

    replaced: list[tuple[str, str]] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.replaced + self.left), default=0)
        count = len(self.replaced)
        lines = [f"replaced {count} convolution{'' if count == 1 else 's'}"]
        lines += [f"  {name:<{width}}  {what}" for name, what in self.replaced]
        if self.left:
            lines.append("left as they are")
            lines += [f"  {name:<{width}}  {why}" for name, why in self.left]
        return "\n".join(lines)


def optimize(module: nn.Module, *, exact: bool = False) -> nn.Module:
    """Return a copy of a module made ready for fast inference, with what was done to it as ``.report``.

    Convolutions become :class:`fastcv.nn.Conv2d`, which keep their weights packed. Batch normalisation, additions and
    the activations ReLU, leaky ReLU and SiLU behind a convolution are fused into it. Transposed convolutions with a
    stride and without groups become :class:`fastcv.nn.ConvTranspose2d`, with batch normalisation and ReLU. Sparse
    convolutions stay where they are and keep their packed weights besides; a :class:`fastcv.sparse.SparseSequential`
    and the blocks of fastcv's own networks compute them together with what follows them.

    Parameters
    ----------
    module : nn.Module
        It stays as it is. The copy shares the memory of weights that do not change: who loads a state into the copy,
        or writes to its weights, optimizes a ``copy.deepcopy``.
    exact : bool
        Whether to do without Winograd's filtering; see :func:`fastcv.ops.conv2d`.

    Returns
    -------
    nn.Module
        In evaluation mode, without gradients. What ``torch.fx`` can trace becomes a ``torch.fx.GraphModule``, which has
        the ``forward`` of the module but no other method of it; its feature maps are channels_last. What cannot be
        traced keeps its class, and its parts are optimized one by one; so do sparse networks, with all their modules
        and the names of their weights. ``print(optimized.report)`` says which is which.

    Notes
    -----
    Results are the same to rounding. The kernels serve all floating dtypes on the CPU. On other devices, under autocast
    and ``torch.compile``, and where a gradient to the input is wanted, torch's convolution computes the fused layers;
    transposed ones have kernels for all that.

    A trace takes one way through ``forward``: what depends on Python values other than tensors is fixed, and ``x += y``
    makes a new tensor.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    >>> optimized = optimize(network)
    >>> print(optimized.report)
    replaced 1 convolution
      0  batch normalisation, relu
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    report = Report()
    # Weights are not copied, since nothing writes to their memory; but the copy has parameters of its own, whose dtype
    # may change. Buffers are state that a forward may write to.
    shared: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters() if not is_lazy(p)
    }
    copied = copy.deepcopy(module, shared).eval()
    for names, found in zip((report.replaced, report.left), make_all_ready(copied), strict=True):
        names += found
    optimized = _optimized(copied, "", exact, report)
    if isinstance(getattr(optimized, "report", report), Report):  # the module's own goes first
        optimized.report = report  # type: ignore[assignment]
    return optimized


# ---- modules ---------------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Torch's layers, ours, and what has hooks, which a trace would lose."""
        ours = type(m).__module__.startswith("fastcv.nn.")
        return ours or has_hooks(m) or super().is_leaf_module(m, module_qualified_name)


def _is_convolution(module: nn.Module | None) -> bool:
    """Whether a layer is one to replace."""
    if type(module) is nn.Conv2d:
        return is_untouched(module)
    return _is_transposed(module) and is_untouched(module) and _why_slower(module) is None  # type: ignore[arg-type]


def _is_transposed(module: nn.Module | None) -> bool:
    return type(module) is nn.ConvTranspose2d or (type(module) is ConvTranspose2d and module._packed is None)


def _why_slower(conv: nn.Module) -> str | None:
    """Why torch's transposed convolution is not to be replaced, or None."""
    if conv.groups != 1:
        return "torch's transposed convolution is faster where there are groups"
    return "torch's transposed convolution is as fast without a stride" if conv.stride == (1, 1) else None


def _optimized(module: nn.Module, name: str, exact: bool, report: Report) -> nn.Module:
    """Return the module, or what takes its place."""
    if _is_convolution(module):
        chain = _Chain(module)
        report.replaced.append((name or "(itself)", chain.describe()))
        return chain.fused(exact, channels_last=False)
    children = list(module.named_children())
    if not any(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in module.modules()):
        return module
    if is_untouched(module) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
        _unfreeze_names(module)
        try:
            tracer = _Tracer()
            graph = tracer.trace(module)
            for node in graph.nodes:  # before torch 2.14, annotations that are strings cannot be pickled
                node.type = None if isinstance(node.type, str) else node.type
        except Exception as error:  # whatever the module's code says to a stand-in for a tensor
            why = str(error).strip().splitlines() or [type(error).__name__]
            report.left.append((name or "(itself)", f"torch.fx cannot trace {type(module).__name__}: {why[0][:90]}"))
        else:
            traced = fx.GraphModule(module, graph, type(module).__name__)
            _Fusion(traced, f"{name}." if name else "", exact, report).run()
            return traced.eval()
    made: dict[nn.Module, nn.Module] = {}
    for child_name, child in children:
        if child not in made:
            made[child] = _optimized(child, f"{name}.{child_name}" if name else child_name, exact, report)
        setattr(module, child_name, made[child])
    return module


def _unfreeze_names(module: nn.Module) -> None:
    """Put ours in the place of torchvision's FrozenBatchNorm2d, which is made of plain operations."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child)
            if kind.__name__ == "FrozenBatchNorm2d" and kind.__module__.startswith("torchvision."):
                buffers = dict(child.named_buffers())
                norm = FrozenBatchNorm2d(buffers["weight"].shape[0], child.eps)  # type: ignore[arg-type]
                for buffer, value in buffers.items():
                    setattr(norm, buffer, value)
                setattr(parent, name, norm.eval())


# ---- graphs ----------------------------------------------------------------------------------------------------------


@dataclass
class _Chain:
    """A convolution, the nodes behind it that it takes over, and its own in a graph."""

    conv: Any
    node: fx.Node | None = None
    norm: nn.Module | None = None
    norm_name: str = ""
    residual: fx.Node | None = None
    activation: str | None = None
    slope: float = 0.01
    behind: list[fx.Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.is_transposed = _is_transposed(self.conv)
        self.activation = getattr(self.conv, "activation", None)

    @property
    def last(self) -> fx.Node:
        assert self.node is not None
        return self.behind[-1] if self.behind else self.node

    def describe(self) -> str:
        parts = ["transposed"] if self.is_transposed else []
        parts += ["batch normalisation"] if self.norm is not None else []
        parts += ["addition"] if self.residual is not None else []
        return ", ".join(parts + ([self.activation] if self.activation else []))

    def fused(self, exact: bool, channels_last: bool) -> nn.Module:
        if self.is_transposed:
            return ConvTranspose2d.from_conv(self.conv, self.norm, self.activation)
        options = {"exact": exact, "channels_last": channels_last}
        return Conv2d.from_conv(self.conv, self.norm, self.activation, self.slope, **options)


def _is_ready(module: nn.Module) -> bool:
    """Whether a layer is one of fastcv's that needs nothing more."""
    return isinstance(module, Conv2d) or (isinstance(module, ConvTranspose2d) and module._packed is not None)


def _why_left(conv: nn.Module) -> str:
    if has_hooks(conv):
        return "it has hooks"
    if not is_untouched(conv):
        return "its forward has been replaced"
    slower = _why_slower(conv) if _is_transposed(conv) else None
    return slower or f"its class is {type(conv).__name__}"


def _gives_dtype(view: fx.Node) -> bool:
    return isinstance(view.args[1] if len(view.args) > 1 else view.kwargs.get("dtype"), torch.dtype)


class _Fusion:
    """Replaces the chains of one graph, in place."""

    def __init__(self, traced: fx.GraphModule, prefix: str, exact: bool, report: Report) -> None:
        self.traced = traced
        self.prefix = prefix
        self.exact = exact
        self.report = report
        self.modules: dict[str, nn.Module] = dict(traced.named_modules(remove_duplicate=False))
        self.made: dict[Any, str] = {}  # a convolution that is called twice is packed once

    def run(self) -> None:
        self._remove_identities()
        self.order = {node: i for i, node in enumerate(self.traced.graph.nodes)}
        taken: set[str] = set()
        for node in list(self.traced.graph.nodes):
            module = self._module(node)
            if _is_convolution(module):
                chain = self._chain(node)
                self._replace(chain)
                taken.add(chain.norm_name)
            elif node.op == "call_function" and node.target in _FUNCTIONS:
                self.report.left.append((self.prefix + node.name, "a convolution without a module of its own"))
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not _is_ready(module):
                self.report.left.append((self.prefix + str(node.target), _why_left(module)))
            elif isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d) and str(node.target) not in taken:
                self.report.left.append((self.prefix + str(node.target), "no convolution of its own before it"))
            elif node.op == "call_method" and node.target == "view" and not _gives_dtype(node):
                node.target = "reshape"  # channels_last maps have other views
        self.traced.graph.lint()
        self.traced.recompile()
        self.traced.delete_all_unused_submodules()

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def _remove_identities(self) -> None:
        for node in list(self.traced.graph.nodes):
            module = self._module(node)
            if type(module) is nn.Identity and not has_hooks(module) and node.args and not node.kwargs:
                node.replace_all_uses_with(node.args[0])
                self.traced.graph.erase_node(node)

    def _chain(self, conv: fx.Node) -> _Chain:
        chain = _Chain(self._module(conv), conv)
        while len(chain.last.users) == 1:
            user = next(iter(chain.last.users))
            if self._is_disturbed(conv, user) or not self._takes(chain, user):
                break
            chain.behind.append(user)
        return chain

    def _takes(self, chain: _Chain, user: fx.Node) -> bool:
        """Whether a chain takes over the only user of its last node, which is then noted in it."""
        module = self._module(user)
        if chain.activation is not None or (module is not None and not is_untouched(module)):
            return False
        if module is not None and has_fixed_statistics(module):
            if chain.behind or user.args != (chain.last,):
                return False
            chain.norm, chain.norm_name = module, str(user.target)
            return True
        if user.op != "call_module" and user.target in _ADDITIONS:
            return chain.residual is None and not chain.is_transposed and self._takes_addition(chain, user)
        name = _ACTIVATIONS.get(type(module) if module is not None else user.target)
        if name is None or (chain.is_transposed and name != "relu") or not user.args or user.args[0] is not chain.last:
            return False
        slope: Any = 0.01
        if name == "leaky_relu":
            given = user.args[1] if len(user.args) > 1 else user.kwargs.get("negative_slope", 0.01)
            slope = module.negative_slope if isinstance(module, nn.LeakyReLU) else given
        if not isinstance(slope, int | float):
            return False
        chain.activation, chain.slope = name, float(slope)
        return True

    def _takes_addition(self, chain: _Chain, user: fx.Node) -> bool:
        if len(user.args) != 2 or user.kwargs:
            return False
        first, second = user.args
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or first is second:
            return False
        if user.target in (operator.iadd, "add_") and first is not chain.last:
            return False  # it writes into another tensor
        other = second if first is chain.last else first
        if other.op == "get_attr":
            return False
        chain.residual = other
        return True

    def _is_disturbed(self, first: fx.Node, last: fx.Node) -> bool:
        """Whether what runs between two nodes may write to the convolution's input, which is read later now."""
        between = [node for node, place in self.order.items() if self.order[first] < place < self.order[last]]
        return any(self._writes(node) and node.args[:1] != (first,) for node in between)

    def _writes(self, node: fx.Node) -> bool:
        module = self._module(node)
        if module is not None:  # of a class of somebody's own nobody knows
            known = type(module).__module__.startswith(("torch.nn.", "fastcv.nn."))
            return not known or bool(getattr(module, "inplace", False))
        if node.op == "call_method":
            return str(node.target).endswith("_")
        name = getattr(node.target, "__name__", "")
        written = name.endswith("_") and not name.endswith("__")
        return written or any(node.kwargs.get(k) for k in ("inplace", "out")) or node.target in _IN_PLACE

    def _replace(self, chain: _Chain) -> None:
        graph, node = self.traced.graph, chain.node
        assert node is not None
        name = str(node.target)
        key = (chain.conv, chain.norm, chain.activation, chain.slope)
        if key not in self.made:
            fused = chain.fused(self.exact, channels_last=True)
            target = name
            if any(made == target for made in self.made.values()):  # the same weight with something else behind it
                target = f"{name.replace('.', '_')}_{len(self.made)}"
                self.traced.add_submodule(target, fused)
            else:
                parent, _, last = name.rpartition(".")
                setattr(self.traced.get_submodule(parent), last, fused)
            self.made[key] = target
            self.report.replaced.append((self.prefix + name, chain.describe()))
        added = {} if chain.residual is None else {"residual": chain.residual}
        with graph.inserting_after(chain.last):
            fused_node = graph.call_module(self.made[key], node.args, {**node.kwargs, **added})
        chain.last.replace_all_uses_with(fused_node)
        for taken in [*reversed(chain.behind), node]:
            graph.erase_node(taken)
        self.order = {n: i for i, n in enumerate(graph.nodes)}
