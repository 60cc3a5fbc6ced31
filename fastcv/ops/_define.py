"""One declaration per operator; from it the eager way and the ``torch.library`` way are made.

An :class:`Operator` called with plain tensors goes straight to the compiled module (through an ``autograd.Function``
when a gradient is needed): about a microsecond. Under ``torch.compile``, ``torch.export``, a dispatch mode, a tensor
subclass or a function transform the same declaration serves as ``torch.ops.fastcv.<name>``, with its fake
implementation, its gradient and its batching rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

_LIBRARY = torch.library.Library("fastcv", "DEF")

# What forward implementations return and take: see Operator.
Outputs = Any
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Gradient:
    """How an operator is differentiated.

    Attributes
    ----------
    arguments
        Names of the differentiable arguments, as in the schema.
    save
        ``save(arguments, outputs) -> (tensors, constants)``: what the derivatives need.
    backward
        ``backward(tensors, constants, needs, *grad_outputs)``: one gradient (or None) per differentiable argument;
        ``needs`` says which are wanted. Made of differentiable operations, it gives double backward.
    jvp
        ``jvp(tensors, constants, *tangents)``: the forward-mode derivative, one tangent (or None) per differentiable
        argument. None where there is no such rule.
    """

    arguments: tuple[str, ...]
    save: Callable[[Arguments, Outputs], tuple[tuple[Tensor, ...], Any]]
    backward: Callable[..., tuple[Tensor | None, ...]]
    jvp: Callable[..., Outputs] | None = None


# The guards of the eager way. Two are private to torch: where a torch lacks them, the dispatcher is always right.
_is_compiling = torch.compiler.is_compiling
_transforms_active: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_dispatch_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_is_grad_enabled = torch.is_grad_enabled
_DIRECT_TYPES = frozenset({Tensor, Parameter})


class Operator:
    """An operator with an eager way and a ``torch.library`` way.

    Parameters
    ----------
    schema
        Name and signature in torch's schema language, ``"name(Tensor input, ...) -> Tensor"``.
    forward
        ``forward(*arguments) -> outputs``: checks, allocates, and calls the compiled module. Real tensors only.
    fake
        ``fake(*arguments) -> outputs``: the same checks and allocation, without the call. Must work on tensors without
        memory and on symbolic sizes.
    gradient
        None for an operator without derivatives.
    """

    def __init__(
        self,
        schema: str,
        *,
        forward: Callable[..., Outputs],
        fake: Callable[..., Outputs],
        gradient: Gradient | None = None,
    ) -> None:
        self.name = schema[: schema.index("(")]
        parsed = torch._C.parse_schema(f"fastcv::{schema}")
        names = [argument.name for argument in parsed.arguments]
        self._tensors = tuple(
            i for i, a in enumerate(parsed.arguments) if re.match(r"(Optional\[)?Tensor", str(a.type))
        )
        self._forward = forward
        self._differentiable = tuple(names.index(name) for name in gradient.arguments) if gradient else ()
        self._register(schema, forward, self._on_one_device(fake, names), gradient, len(names))

    def _register(
        self,
        schema: str,
        forward: Callable[..., Outputs],
        fake: Callable[..., Outputs],
        gradient: Gradient | None,
        arity: int,
    ) -> None:
        qualified = f"fastcv::{self.name}"
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        for device in ("CPU", "CUDA"):
            _LIBRARY.impl(self.name, forward, device)
        torch.library.register_fake(qualified, fake, lib=_LIBRARY)
        self._dispatched = getattr(torch.ops.fastcv, self.name)
        torch.library.register_vmap(qualified, _one_by_one(self._dispatched), lib=_LIBRARY)
        self._eager: Callable[..., Outputs] = forward
        self._transformed: Callable[..., Outputs] = self._dispatched
        if gradient is None:
            return
        rules = _Rules(gradient, self._differentiable, arity)
        torch.library.register_autograd(qualified, rules.backward, setup_context=rules.setup_context, lib=_LIBRARY)
        self._eager = rules.eager_function(self.name, forward).apply
        self._transformed = rules.transform_function(self.name, self).apply

    def _on_one_device(self, fake: Callable[..., Outputs], names: list[str]) -> Callable[..., Outputs]:
        """Return ``fake`` with the check that the bindings make for real tensors."""

        def checked(*arguments: Any) -> Outputs:
            first = self._tensors[0]
            for position in self._tensors[1:]:
                tensor = arguments[position]
                if tensor is not None and tensor.device != arguments[first].device:
                    raise ValueError(
                        f"{names[position]} must be on the device of {names[first]} ({arguments[first].device}), "
                        f"got {tensor.device}"
                    )
            return fake(*arguments)

        return checked

    def __call__(self, *arguments: Any) -> Any:
        if _is_compiling():
            return self._dispatched(*arguments)
        if _transforms_active():
            return self._transformed(*arguments)
        if _dispatch_modes():
            return self._dispatched(*arguments)
        for position in self._tensors:
            tensor = arguments[position]
            # A tensor with the negative bit set is not what its memory says; the dispatcher resolves it.
            if tensor is not None and (type(tensor) not in _DIRECT_TYPES or tensor.is_neg()):
                return self._dispatched(*arguments)
        try:
            if self._needs_gradient(arguments):
                return self._eager(*arguments)
            return self._forward(*arguments)
        except RuntimeError:
            # Tensors without memory that the bindings could see, such as meta tensors.
            if all(a is None or a.is_cpu or a.is_cuda for a in (arguments[position] for position in self._tensors)):
                raise
        return self._dispatched(*arguments)

    def _needs_gradient(self, arguments: Arguments) -> bool:
        if self._differentiable:
            if forward_ad._current_level >= 0:
                return True
            if _is_grad_enabled():
                for position in self._differentiable:
                    tensor = arguments[position]
                    if tensor is not None and tensor.requires_grad:
                        return True
        return False


def _one_by_one(function: Callable[..., Outputs]) -> Callable[..., tuple[Outputs, Any]]:
    """Return the batching rule that calls ``function`` for each element of the batch, in order."""

    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Outputs, Any]:
        results = [
            function(*(_element(a, dim, index) for a, dim in zip(arguments, in_dims, strict=True)))
            for index in range(info.batch_size)
        ]
        if not isinstance(results[0], tuple):
            return torch.stack(results), 0
        return tuple(torch.stack(column) for column in zip(*results, strict=True)), tuple(0 for _ in results[0])

    return vmap


def _element(argument: Any, dim: Any, index: int) -> Any:
    """One element of a batched argument; a list of numbers, whose ``dim`` is a list of None, is as it was."""
    return argument.select(dim, index) if isinstance(dim, int) else argument


class _Rules:
    """The derivative rules in the forms that autograd wants them."""

    def __init__(self, gradient: Gradient, differentiable: tuple[int, ...], arity: int) -> None:
        self._gradient = gradient
        self._differentiable = differentiable
        self._arity = arity

    def setup_context(self, ctx: Any, inputs: Arguments, output: Outputs) -> None:
        tensors, ctx.constants = self._gradient.save(inputs, output)
        ctx.save_for_backward(*tensors)

    def backward(self, ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        needs = tuple(ctx.needs_input_grad[position] for position in self._differentiable)
        gradients = self._gradient.backward(ctx.saved_tensors, ctx.constants, needs, *grad_outputs)
        result: list[Tensor | None] = [None] * self._arity
        for position, value in zip(self._differentiable, gradients, strict=True):
            result[position] = value
        return tuple(result)

    def jvp(self, ctx: Any, *tangents: Any) -> Outputs:
        if self._gradient.jvp is None:
            raise NotImplementedError("this operator has no forward-mode derivative")
        return self._gradient.jvp(ctx.saved_tensors, ctx.constants, *(tangents[i] for i in self._differentiable))

    def eager_function(self, name: str, forward: Callable[..., Outputs]) -> Any:
        """The form with ``forward(ctx, ...)``, which costs a third of the other."""

        def forward_with_context(ctx: Any, *arguments: Any) -> Outputs:
            output = forward(*arguments)
            tensors, ctx.constants = self._gradient.save(arguments, output)
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)
            return output

        return self._make(f"{name}_eager", forward=forward_with_context)

    def transform_function(self, name: str, operator: Operator) -> Any:
        """The form with ``setup_context``, which function transforms ask for."""

        def setup_context(ctx: Any, inputs: Arguments, output: Outputs) -> None:
            tensors, ctx.constants = self._gradient.save(inputs, output)
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

        forward = operator.__call__
        return self._make(f"{name}_transform", forward=forward, setup_context=setup_context, vmap=_one_by_one(forward))

    def _make(self, name: str, **methods: Callable[..., Any]) -> Any:
        methods = {"backward": self.backward, "jvp": self.jvp, **methods}
        return type(name, (torch.autograd.Function,), {key: staticmethod(value) for key, value in methods.items()})
