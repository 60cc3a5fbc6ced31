"""The derivatives of an operator, in the forms that autograd wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastcv.ops._call import Signature

Arguments = tuple[Any, ...]
Outputs = Any


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


def linear_gradient(signature: Signature, operator: Callable[..., Outputs], adjoint: Callable[..., Any]) -> Gradient:
    """Return the derivatives of an operator that is linear in its first argument: see :func:`define`."""
    tensors = tuple(position - 1 for position in signature.tensors if position > 0)  # among the other arguments

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

    return Gradient((signature.names[0],), save, backward, jvp)


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


def one_by_one(function: Callable[..., Outputs]) -> Callable[..., tuple[Outputs, Any]]:
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


class Rules:
    """The derivative rules as ``torch.library`` and ``autograd.Function`` want them.

    A Function sees tensors only among its direct arguments. Where an operator takes lists of tensors, they are spread
    out for it behind their lengths; where it returns a list, the Function returns a tuple.
    """

    def __init__(self, signature: Signature, gradient: Gradient) -> None:
        self._signature = signature
        self._gradient = gradient
        self._lists = signature.lists
        self._arity = len(signature.names)
        self._differentiable = tuple(signature.names.index(name) for name in gradient.arguments)

    # ---- for torch.library, which knows lists ------------------------------------------------------------------------

    def setup_context(self, ctx: Any, inputs: Arguments, output: Outputs) -> None:
        """Save what the derivatives need."""
        tensors, ctx.constants = self._gradient.save(inputs, output)
        ctx.save_for_backward(*tensors)

    def backward(self, ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        """Return a gradient, a list of them, or None for each argument."""
        if grad_outputs[0] is None:  # see eager_function
            return (None,) * self._arity
        return self._gradients(ctx, ctx.needs_input_grad, grad_outputs)

    def _gradients(self, ctx: Any, needs: Sequence[Any], grad_outputs: Arguments) -> tuple[Any, ...]:
        wanted = tuple(any(needs[p]) if p in self._lists else needs[p] for p in self._differentiable)
        gradients = self._gradient.backward(ctx.saved_tensors, ctx.constants, wanted, *grad_outputs)
        result: list[Any] = [[None] * len(needs[p]) if p in self._lists else None for p in range(self._arity)]
        for position, value in zip(self._differentiable, gradients, strict=True):
            if value is not None:
                result[position] = value
        return tuple(result)

    # ---- for autograd.Function, which does not -----------------------------------------------------------------------

    def eager_function(self, forward: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """The form with ``forward(ctx, ...)``, which costs a third of the other."""
        without_lists = not self._lists and not self._signature.returns_list
        save = self._gradient.save

        def forward_with_context(ctx: Any, *spread: Any) -> Outputs:
            if without_lists:
                output = forward(*spread)
                tensors, ctx.constants = save(spread, output)
                ctx.save_for_backward(*tensors)
                if forward_ad._current_level >= 0:
                    ctx.save_for_forward(*tensors)
            else:
                output = self._as_tuple(forward(*self._gathered(spread)))
                self._save(ctx, spread, output)
            if type(output) is tuple and not any(other.is_floating_point() for other in output[1:]):
                # Only the first has a gradient. For the others autograd would make zeros at each call.
                ctx.set_materialize_grads(False)
            return output

        return self._applied("eager", forward=forward_with_context)

    def transform_function(self, forward: Callable[..., Outputs]) -> Callable[..., Outputs]:
        """The form with ``setup_context``, which function transforms ask for."""

        def forward_spread(*spread: Any) -> Outputs:
            return self._as_tuple(forward(*self._gathered(spread)))

        return self._applied(
            "transform", forward=forward_spread, setup_context=self._save, vmap=one_by_one(forward_spread)
        )

    def _applied(self, kind: str, **methods: Callable[..., Any]) -> Callable[..., Outputs]:
        methods = {"backward": self._backward_spread, "jvp": self._jvp_spread, **methods}
        members = {name: staticmethod(method) for name, method in methods.items()}
        function: Any = type(f"{self._signature.name}_{kind}", (torch.autograd.Function,), members)

        def apply(*arguments: Any) -> Outputs:
            result = function.apply(*self._spread(arguments))
            return list(result) if self._signature.returns_list else result

        has_lists = self._lists or self._signature.returns_list
        return apply if has_lists else function.apply

    def _spread(self, arguments: Arguments) -> Arguments:
        if not self._lists:
            return arguments
        spread: list[Any] = [tuple(len(arguments[position]) for position in self._lists)]
        for position, argument in enumerate(arguments):
            spread += argument if position in self._lists else (argument,)
        return tuple(spread)

    def _gathered(self, spread: Arguments, lengths: Sequence[int] | None = None) -> Arguments:
        """The arguments again. What goes with them, such as tangents, has no lengths at its head: give them."""
        if not self._lists:
            return spread
        rest, remaining = iter(spread[1:]), iter(lengths or spread[0])
        return tuple(
            [next(rest) for _ in range(next(remaining))] if position in self._lists else next(rest)
            for position in range(self._arity)
        )

    def _as_tuple(self, result: Outputs) -> Outputs:
        return tuple(result) if self._signature.returns_list else result

    def _save(self, ctx: Any, spread: Arguments, output: Outputs) -> None:
        ctx.lengths = spread[0] if self._lists else None
        tensors, ctx.constants = self._gradient.save(self._gathered(spread), output)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    def _backward_spread(self, ctx: Any, *grad_outputs: Any) -> tuple[Any, ...]:
        needs = self._gathered(ctx.needs_input_grad, ctx.lengths if self._lists else None)
        if not self._signature.returns_list and grad_outputs[0] is None:  # see eager_function
            return (None,) * len(ctx.needs_input_grad)
        grads = (list(grad_outputs),) if self._signature.returns_list else grad_outputs
        spread = self._spread(self._gradients(ctx, needs, grads))
        return (None, *spread[1:]) if self._lists else spread

    def _jvp_spread(self, ctx: Any, *tangents: Any) -> Outputs:
        if self._gradient.jvp is None:
            raise NotImplementedError("this operator has no forward-mode derivative")
        grouped = self._gathered(tangents, ctx.lengths if self._lists else None)
        chosen = (grouped[position] for position in self._differentiable)
        return self._as_tuple(self._gradient.jvp(ctx.saved_tensors, ctx.constants, *chosen))
