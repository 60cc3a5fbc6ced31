"""Operators of two tensors that can be differentiated once, in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from torch import Tensor

from fastcv.ops._define import Gradient, define

__all__ = ["define_with_gradient_pair"]


def define_with_gradient_pair(
    name: str,
    first: str,
    second: str,
    options: str,
    fake: Callable[..., Any],
    autocast: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """Declare ``name(first, second, *options) -> Tensor`` and ``name_backward``; return the call of the first.

    ``_C.name_backward(grad, first, second, *options, needs_first, needs_second)`` returns both gradients; one that is
    not needed has no elements.

    Parameters
    ----------
    name
        Of the operator.
    first, second
        Names of the two tensors.
    options
        The rest of the schema, such as ``"int kind, float eps"``.
    fake, autocast
        As :func:`define` takes them.
    """

    def fake_backward(grad: Tensor, a: Tensor, b: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        needs_first, needs_second = rest[-2:]
        return a.new_empty(a.shape if needs_first else (0,)), b.new_empty(b.shape if needs_second else (0,))

    def save(arguments: tuple[Any, ...], output: Tensor) -> tuple[tuple[Tensor, ...], Any]:
        return arguments[:2], arguments[2:]

    def differentiate(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = backward(grad, *tensors, *constants, *needs)
        return tuple(gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))

    def save_nothing(arguments: tuple[Any, ...], outputs: Any) -> tuple[tuple[Tensor, ...], Any]:
        return (), None

    def refuse(*_: Any) -> NoReturn:
        raise NotImplementedError(f"{name} can be differentiated once, not twice")

    backward = define(
        f"{name}_backward(Tensor grad, Tensor {first}, Tensor {second}, {options}, bool needs_{first}, "
        f"bool needs_{second}) -> (Tensor, Tensor)",
        fake=fake_backward,
        gradient=Gradient(("grad", first, second), save_nothing, refuse),
    )
    return define(
        f"{name}(Tensor {first}, Tensor {second}, {options}) -> Tensor",
        fake=fake,
        gradient=Gradient((first, second), save, differentiate),
        autocast=autocast,
    )
