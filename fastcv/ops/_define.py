"""One declaration per operator; from it the eager way and the ``torch.library`` way are made.

An :class:`Operator` called with plain tensors goes straight to the compiled module (through an ``autograd.Function``
when a gradient is needed): about a microsecond. Under ``torch.compile``, ``torch.export``, a dispatch mode, a tensor
subclass or a function transform the same declaration serves as ``torch.ops.fastcv.<name>``, with its fake
implementation, its gradient and its batching rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import copy
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
        ``backward(tensors, constants, needs, *grad_outputs)``: one gradient (or None) per differentiable argument, a
        list for a list of tensors; ``needs`` says which are wanted. Made of differentiable operations, it gives double
        backward. What stands for the gradient of an output of integers, zeros or None, means nothing.
    jvp
        ``jvp(tensors, constants, *tangents)``: the forward-mode derivative, one tangent (or None) per differentiable
        argument. None where there is no such rule.
    """

    arguments: tuple[str, ...]
    save: Callable[[Arguments, Outputs], tuple[tuple[Tensor, ...], Any]]
    backward: Callable[..., tuple[Tensor | list[Tensor] | None, ...]]
    jvp: Callable[..., Outputs] | None = None


# The guards of the eager way. Two are private to torch: where a torch lacks one, the dispatcher is always right.
# Other tracers than Dynamo show as a dispatch mode.
_is_compiling = torch.compiler.is_dynamo_compiling
_HAS_GUARDS = hasattr(torch._C, "_are_functorch_transforms_active") and hasattr(torch._C, "_len_torch_dispatch_stack")
_transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active if _HAS_GUARDS else lambda: False
_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack if _HAS_GUARDS else lambda: 1
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
    adjoint
        In place of ``gradient`` for an operator that is linear in its first argument, a tensor or a list of them, and
        returns one tensor or a list of them: ``adjoint(grad_output, shape, *rest) -> grad``, its transpose, made of
        differentiable operations; ``shape`` is that of the first argument, ``rest`` the other arguments. The operator
        itself is then its forward-mode derivative.
    inference
        What the eager way calls in place of ``forward`` when no derivative will be asked for. May leave out outputs
        that only derivatives need.
    """

    def __init__(
        self,
        schema: str,
        *,
        forward: Callable[..., Outputs],
        fake: Callable[..., Outputs],
        gradient: Gradient | None = None,
        adjoint: Callable[..., Any] | None = None,
        inference: Callable[..., Outputs] | None = None,
    ) -> None:
        self.name = schema[: schema.index("(")]
        parsed = torch._C.parse_schema(f"fastcv::{schema}")
        names = [argument.name for argument in parsed.arguments]
        kinds = [str(argument.type) for argument in parsed.arguments]
        self._optional = frozenset(i for i, kind in enumerate(kinds) if kind.startswith("Optional["))
        self._tensors = tuple(i for i, kind in enumerate(kinds) if re.match(r"(Optional\[)?Tensor", kind))
        self._lists = tuple(i for i, kind in enumerate(kinds) if kind == "List[Tensor]")
        self._returns_list = any(str(returned.type) == "List[Tensor]" for returned in parsed.returns)
        self._forward = inference or forward
        if adjoint is not None:
            gradient = _linear_gradient(self, names[0], tuple(i - 1 for i in self._tensors if i > 0), adjoint)
        self._differentiable = tuple(names.index(name) for name in gradient.arguments) if gradient else ()
        self.call = self._compile_call(names)
        self._register(schema, forward, self._on_one_device(fake, names), gradient, names)

    def _register(
        self,
        schema: str,
        forward: Callable[..., Outputs],
        fake: Callable[..., Outputs],
        gradient: Gradient | None,
        names: list[str],
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
        arity = len(names)
        rules = _Rules(gradient, self._differentiable, arity)
        torch.library.register_autograd(qualified, rules.backward, setup_context=rules.setup_context, lib=_LIBRARY)
        if self._lists or self._returns_list:
            rules = _ListRules(gradient, self._differentiable, arity, self._lists, self._returns_list)
        self._eager = rules.eager_function(self.name, forward)
        whole = copy(self)  # below a transform all outputs are needed
        whole._forward = forward
        whole.call = whole._compile_call(names)
        self._transformed = whole._transformed = rules.transform_function(self.name, whole)

    def _on_one_device(self, fake: Callable[..., Outputs], names: list[str]) -> Callable[..., Outputs]:
        """Return ``fake`` with the check that the bindings make for real tensors."""

        def checked(*arguments: Any) -> Outputs:
            first, *others = self._named_tensors(arguments, names)
            for name, tensor in others:
                if tensor.device != first[1].device:
                    raise ValueError(
                        f"{name} must be on the device of {first[0]} ({first[1].device}), got {tensor.device}"
                    )
            return fake(*arguments)

        return checked

    def _named_tensors(self, arguments: Arguments, names: list[str]) -> list[tuple[str, Tensor]]:
        """Return all tensors among the arguments, in the order of the schema."""
        named = []
        for position in sorted(self._tensors + self._lists):
            if position in self._lists:
                named += [(f"{names[position]}[{i}]", tensor) for i, tensor in enumerate(arguments[position])]
            elif arguments[position] is not None:
                named.append((names[position], arguments[position]))
        return named

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)

    def _compile_call(self, names: list[str]) -> Callable[..., Any]:
        """Return the call with its guards written out for these arguments.

        Written as loops over the arguments, the guards of a call with two tensors take as long as its kernel.
        """
        plain = []
        for position in self._tensors:
            # A tensor with the negative bit set is not what its memory says; the dispatcher resolves it.
            name = names[position]
            one = f"type({name}) in direct_types and not {name}.is_neg()"
            plain.append(f"({name} is None or {one})" if position in self._optional else one)
        plain += [f"all_plain({names[position]})" for position in self._lists]
        wanted = ["forward_ad._current_level >= 0"]
        for position in self._differentiable:
            name = names[position]
            requires = f"any_requires_grad({name})" if position in self._lists else f"{name}.requires_grad"
            given = f"{name} is not None and " if position in self._optional else ""
            wanted.append(f"({given}{requires} and is_grad_enabled())")
        arguments = ", ".join(names)
        source = f"""
def make(operator, is_compiling, transforms_active, dispatch_modes, is_grad_enabled):
    def {self.name}({arguments}):
        if is_compiling():
            return operator._dispatched({arguments})
        if transforms_active():
            return operator._transformed({arguments})
        if dispatch_modes() or not ({" and ".join(plain) or True}):
            return operator._dispatched({arguments})
        try:
            if {" or ".join(wanted) if self._differentiable else False}:
                return operator._eager({arguments})
            return operator._forward({arguments})
        except RuntimeError:
            # Tensors without memory that the bindings could see, such as meta tensors.
            if all(a.is_cpu or a.is_cuda for _, a in operator._named_tensors(({arguments},), {names})):
                raise
        return operator._dispatched({arguments})
    return {self.name}
"""
        scope = {
            "direct_types": _DIRECT_TYPES,
            "all_plain": _all_plain,
            "any_requires_grad": _any_requires_grad,
            "forward_ad": forward_ad,
        }
        exec(source, scope)  # as dataclasses do it
        make: Any = scope["make"]
        made: Callable[..., Any] = make(self, _is_compiling, _transforms_active, _dispatch_modes, _is_grad_enabled)
        return made


def _all_plain(tensors: Sequence[Tensor]) -> bool:
    return all(type(tensor) in _DIRECT_TYPES and not tensor.is_neg() for tensor in tensors)


def _any_requires_grad(tensors: Sequence[Tensor]) -> bool:
    return any(tensor.requires_grad for tensor in tensors)


def _linear_gradient(
    operator: Operator, argument: str, tensors: tuple[int, ...], adjoint: Callable[..., Any]
) -> Gradient:
    """Return the derivatives of an operator that is linear in its first argument.

    ``tensors`` are the positions of tensors among the other arguments.
    """

    def save(arguments: Arguments, output: Outputs) -> tuple[tuple[Tensor, ...], Any]:
        first, *rest = arguments
        kept = tuple(rest[position] for position in tensors)
        for position in tensors:
            rest[position] = None
        return kept, (_shape(first), _shape(output), rest)

    def restore(kept: Any, constants: list[Any]) -> list[Any]:
        rest = list(constants)
        for position, tensor in zip(tensors, kept, strict=True):
            rest[position] = tensor
        return rest

    def backward(kept: Any, constants: Any, needs: Any, grad_output: Any) -> tuple[Any]:
        shape, output_shape, rest = constants
        return (adjoint(_filled(grad_output, output_shape), shape, *restore(kept, rest)),)

    def jvp(kept: Any, constants: Any, tangent: Any) -> Outputs:
        shape, _, rest = constants
        return operator(_filled(tangent, shape), *restore(kept, rest))

    return Gradient((argument,), save, backward, jvp)


def _shape(value: Tensor | Sequence[Tensor]) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return [tuple(tensor.shape) for tensor in value]


def _filled(value: Any, shape: Any) -> Any:
    """Return a tensor as it is, and a list of tensors with zeros for those that are None."""
    if isinstance(value, Tensor):
        return value
    some = next(tensor for tensor in value if tensor is not None)
    return [some.new_zeros(s) if tensor is None else tensor for tensor, s in zip(value, shape, strict=True)]


def _one_by_one(function: Callable[..., Outputs]) -> Callable[..., tuple[Outputs, Any]]:
    """Return the batching rule that calls ``function`` for each element of the batch, in order."""

    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Outputs, Any]:
        def pick(argument: Any, dim: Any, index: int) -> Any:
            if isinstance(dim, list | tuple):
                return [pick(element, d, index) for element, d in zip(argument, dim, strict=True)]
            return argument if dim is None else argument.select(dim, index)

        results = [
            function(*(pick(a, dim, index) for a, dim in zip(arguments, in_dims, strict=True)))
            for index in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        kind = type(results[0])
        return kind(torch.stack(column) for column in zip(*results, strict=True)), kind(0 for _ in results[0])

    return vmap


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
        if grad_outputs[0] is None:  # see eager_function
            return (None,) * self._arity
        # An argument that is a list of tensors has a list here.
        needs = tuple(ctx.needs_input_grad[position] for position in self._differentiable)
        wanted = tuple(any(need) if isinstance(need, list | tuple) else need for need in needs)
        gradients = self._gradient.backward(ctx.saved_tensors, ctx.constants, wanted, *grad_outputs)
        result: list[Any] = [None] * self._arity
        for position, value, need in zip(self._differentiable, gradients, needs, strict=True):
            result[position] = [None] * len(need) if value is None and isinstance(need, list | tuple) else value
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
            if type(output) is tuple and not any(other.is_floating_point() for other in output[1:]):
                # Only the first has a gradient. For the others autograd would make zeros at each call.
                ctx.set_materialize_grads(False)
            return output

        return self._make(f"{name}_eager", forward=forward_with_context).apply

    def transform_function(self, name: str, operator: Operator) -> Any:
        """The form with ``setup_context``, which function transforms ask for."""

        def setup_context(ctx: Any, inputs: Arguments, output: Outputs) -> None:
            tensors, ctx.constants = self._gradient.save(inputs, output)
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

        forward = operator.__call__
        methods = {"forward": forward, "setup_context": setup_context, "vmap": _one_by_one(forward)}
        return self._make(f"{name}_transform", **methods).apply

    def _make(self, name: str, **methods: Callable[..., Any]) -> Any:
        methods = {"backward": self.backward, "jvp": self.jvp, **methods}
        return type(name, (torch.autograd.Function,), {key: staticmethod(value) for key, value in methods.items()})


class _ListRules(_Rules):
    """The rules of an operator that takes or returns lists of tensors.

    An ``autograd.Function`` sees tensors only among its direct arguments, so lists are spread out for it: its first
    argument is their lengths, and its outputs are a tuple.
    """

    def __init__(
        self,
        gradient: Gradient,
        differentiable: tuple[int, ...],
        arity: int,
        lists: tuple[int, ...],
        returns_list: bool,
    ) -> None:
        super().__init__(gradient, differentiable, arity)
        self._lists = lists
        self._returns_list = returns_list

    def _spread(self, arguments: Arguments) -> Arguments:
        spread: list[Any] = [tuple(len(arguments[position]) for position in self._lists)]
        for position, argument in enumerate(arguments):
            if position in self._lists:
                spread.extend(argument)
            else:
                spread.append(argument)
        return tuple(spread)

    def _gather(self, lengths: tuple[int, ...], spread: Sequence[Any]) -> Arguments:
        arguments: list[Any] = []
        rest = iter(spread)
        remaining = iter(lengths)
        for position in range(self._arity):
            if position in self._lists:
                arguments.append([next(rest) for _ in range(next(remaining))])
            else:
                arguments.append(next(rest))
        return tuple(arguments)

    def _as_outputs(self, result: Any) -> Any:
        return tuple(result) if self._returns_list else result

    def _applied(self, function: Any) -> Callable[..., Outputs]:
        def apply(*arguments: Any) -> Outputs:
            result = function.apply(*self._spread(arguments))
            return list(result) if self._returns_list else result

        return apply

    def _save_context(self, ctx: Any, inputs: Arguments, output: Outputs) -> None:
        ctx.lengths = inputs[0]
        tensors, ctx.constants = self._gradient.save(self._gather(ctx.lengths, inputs[1:]), output)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    def _backward_spread(self, ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        needs = self._gather(ctx.lengths, ctx.needs_input_grad[1:])
        wanted = tuple(any(needs[p]) if p in self._lists else needs[p] for p in self._differentiable)
        grads = (list(grad_outputs),) if self._returns_list else grad_outputs
        gradients = self._gradient.backward(ctx.saved_tensors, ctx.constants, wanted, *grads)
        empty = iter(ctx.lengths)
        result: list[Any] = [[None] * next(empty) if p in self._lists else None for p in range(self._arity)]
        for position, value in zip(self._differentiable, gradients, strict=True):
            if value is not None:
                result[position] = value
        return (None, *self._spread(tuple(result))[1:])

    def _jvp_spread(self, ctx: Any, *tangents: Any) -> Outputs:
        if self._gradient.jvp is None:
            raise NotImplementedError("this operator has no forward-mode derivative")
        grouped = self._gather(ctx.lengths, tangents[1:])
        chosen = (grouped[position] for position in self._differentiable)
        return self._as_outputs(self._gradient.jvp(ctx.saved_tensors, ctx.constants, *chosen))

    def eager_function(self, name: str, forward: Callable[..., Outputs]) -> Any:
        """The form with ``forward(ctx, ...)``."""

        def forward_with_context(ctx: Any, lengths: tuple[int, ...], *spread: Any) -> Outputs:
            output = self._as_outputs(forward(*self._gather(lengths, spread)))
            self._save_context(ctx, (lengths, *spread), output)
            return output

        methods = {"backward": self._backward_spread, "jvp": self._jvp_spread}
        return self._applied(self._make(f"{name}_eager", forward=forward_with_context, **methods))

    def transform_function(self, name: str, operator: Operator) -> Any:
        """The form with ``setup_context``."""

        def forward(lengths: tuple[int, ...], *spread: Any) -> Outputs:
            return self._as_outputs(operator(*self._gather(lengths, spread)))

        methods = {"backward": self._backward_spread, "jvp": self._jvp_spread, "vmap": _one_by_one(forward)}
        made = self._make(f"{name}_transform", forward=forward, setup_context=self._save_context, **methods)
        return self._applied(made)
