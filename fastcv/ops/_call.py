"""The call of an operator: guards that choose the way, and scalars of any number type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from fastcv import _C
from fastcv.ops._arguments import as_bool, as_float, as_int, check_numbers
from fastcv.ops._autocast import AUTOCAST_KEYS, call_cast

COMPILED: dict[str, Any] = {"_C": _C}
"""The compiled module that all operators call. Tests put that of the emulated CUDA kernels in its place."""

# The guards of the eager way. Some are private to torch: where a torch lacks those, the dispatcher is always right.
# Other tracers than Dynamo and torch.jit show as a dispatch mode.
HAS_GUARDS = hasattr(torch._C, "_are_functorch_transforms_active") and hasattr(torch._C, "_len_torch_dispatch_stack")
_GUARDS: dict[str, Any] = {
    "is_compiling": torch.compiler.is_dynamo_compiling,
    "is_tracing": getattr(torch._C, "_is_tracing", torch.jit._trace.is_tracing),
    "transforms_active": torch._C._are_functorch_transforms_active if HAS_GUARDS else lambda: False,
    "dispatch_modes": torch._C._len_torch_dispatch_stack if HAS_GUARDS else lambda: 1,
    "is_grad_enabled": torch.is_grad_enabled,
    "forward_ad": forward_ad,
    "is_excluded": getattr(torch._C, "_dispatch_tls_is_dispatch_key_excluded", lambda key: False),
}
_PLAIN_TYPES = frozenset({Tensor, Parameter})
_SCALARS: dict[str, Callable[[Any, str], Any]] = {"int": as_int, "float": as_float, "bool": as_bool}


@dataclass(frozen=True)
class Signature:
    """What a schema says of an operator's arguments and results."""

    name: str
    names: tuple[str, ...]
    tensors: tuple[int, ...]  # positions of tensors, optional ones among them
    lists: tuple[int, ...]  # positions of lists of tensors
    optional: frozenset[int]
    scalars: tuple[tuple[int, Callable[[Any, str], Any]], ...]  # position, and what turns a value into the scalar
    returns_list: bool

    @staticmethod
    def parse(schema: str) -> Signature:
        """Read a schema such as ``"name(Tensor input, int[] sizes) -> Tensor"``."""
        parsed = torch._C.parse_schema(f"fastcv::{schema}")
        kinds = [str(argument.type) for argument in parsed.arguments]
        plain = [re.sub(r"Optional\[(.*)\]", r"\1", kind) for kind in kinds]
        return Signature(
            name=schema[: schema.index("(")],
            names=tuple(argument.name for argument in parsed.arguments),
            tensors=tuple(i for i, kind in enumerate(plain) if kind == "Tensor"),
            lists=tuple(i for i, kind in enumerate(plain) if kind == "List[Tensor]"),
            optional=frozenset(i for i, kind in enumerate(kinds) if kind.startswith("Optional[")),
            scalars=tuple((i, _SCALARS[kind]) for i, kind in enumerate(plain) if kind in _SCALARS),
            returns_list=any(str(returned.type) == "List[Tensor]" for returned in parsed.returns),
        )

    def all_tensors(self, arguments: Sequence[Any]) -> list[tuple[str, Any]]:
        """Return name and value of everything that must be a tensor, in the order of the schema."""
        named = []
        for position in sorted(self.tensors + self.lists):
            name, value = self.names[position], arguments[position]
            if position in self.lists:
                named += [(f"{name}[{i}]", tensor) for i, tensor in enumerate(value)]
            elif value is not None or position not in self.optional:
                named.append((name, value))
        return named

    def converted(self, arguments: Sequence[Any]) -> list[Any]:
        """Return the arguments with scalars of any number type as the schema wants them.

        Raises TypeError or ValueError, which name the argument, for what is not a tensor or no such number.
        """
        for name, tensor in self.all_tensors(arguments):
            check_numbers(tensor, name)
        made = list(arguments)
        for position, convert in self.scalars:
            if made[position] is not None or position not in self.optional:
                made[position] = convert(made[position], self.names[position])
        return made


def generate_call(
    signature: Signature,
    dispatched: Callable[..., Any],
    compiled: str,
    differentiable: tuple[str, ...] = (),
    eager: Callable[..., Any] | None = None,
    transformed: Callable[..., Any] | None = None,
    autocast: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """Return the call of an operator, with its guards written out for its arguments.

    Written as loops over the arguments, the guards of a call with two tensors take as long as its kernel.

    Parameters
    ----------
    signature
        Of the operator.
    dispatched
        ``torch.ops.fastcv.<name>``.
    compiled
        Name of the compiled function for plain tensors where no gradient is wanted.
    differentiable
        Names of the arguments that may want a gradient.
    eager, transformed
        What is called where one does, and under a function transform. By default nothing is differentiable.
    autocast
        As :func:`define` has it. Only such an operator asks whether autocast is on.
    """
    autocast = autocast or {}
    unusual = ["transforms_active()", "dispatch_modes()", "is_tracing()"]
    unusual += [f"not is_excluded(autocast_{device})" for device in autocast]
    plain, wanted = [], ["forward_ad._current_level >= 0"]
    for position, name in enumerate(signature.names):
        # A tensor with the negative bit set is not what its memory says; the dispatcher resolves it.
        if position in signature.lists:
            plain.append(f"all_plain({name})")
            requires = f"any_requires_grad({name})"
        elif position in signature.tensors:
            one = f"type({name}) in plain_types and not {name}.is_neg()"
            plain.append(f"({name} is None or {one})" if position in signature.optional else one)
            requires = f"{name}.requires_grad"
        elif (position, as_bool) in signature.scalars:  # pybind11 takes anything for a bool
            plain.append(f"({name} is True or {name} is False)")
        if name in differentiable:
            given = f"{name} is not None and " if position in signature.optional else ""
            wanted.append(f"({given}{requires} and is_grad_enabled())")
    names = ", ".join(signature.names)
    source = f"""
def {signature.name}({names}):
    if is_compiling():
        return dispatched({names})
    if {" and ".join(plain) or True} and not ({" or ".join(unusual)}):
        try:
            if {" or ".join(wanted) if differentiable else False}:
                return eager({names})
            return COMPILED["_C"].{compiled}({names})
        except (TypeError, RuntimeError) as error:
            return again(error, {names})
    return otherwise({names})
"""

    def otherwise(*arguments: Any) -> Any:
        converted = signature.converted(arguments)
        for device, dtype in autocast.items():
            first = signature.all_tensors(arguments)[0][1]
            if torch.is_autocast_enabled(device) and first.device.type == device:
                return call_cast(call, device, dtype, *converted)
        if transformed is not None and _GUARDS["transforms_active"]():
            return transformed(*converted)
        return dispatched(*converted)

    def again(error: Exception, *arguments: Any) -> Any:
        """Convert what the compiled function could not take, or find out that it is not for these tensors."""
        try:
            converted = signature.converted(arguments)
        except (TypeError, ValueError) as readable:
            raise readable from None
        if any(not (tensor.is_cpu or tensor.is_cuda) for _, tensor in signature.all_tensors(arguments)):
            return dispatched(*converted)  # without memory, such as meta tensors
        if all(after is before for after, before in zip(converted, arguments, strict=True)):
            raise error
        return call(*converted)

    scope = {
        **_GUARDS,
        "COMPILED": COMPILED,
        "plain_types": _PLAIN_TYPES,
        "all_plain": _all_plain,
        "any_requires_grad": _any_requires_grad,
        **{"dispatched": dispatched, "eager": eager, "again": again, "otherwise": otherwise},
        **{f"autocast_{device}": AUTOCAST_KEYS[device] for device in autocast},
    }
    exec(source, scope)  # as dataclasses do it
    call: Any = scope[signature.name]
    return call  # type: ignore[no-any-return]


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is what its memory says, and nothing follows the operations on it."""
    followed = any(_GUARDS[name]() for name in ("is_compiling", "is_tracing", "transforms_active", "dispatch_modes"))
    return not followed and _all_plain([tensor]) and (tensor.is_cpu or tensor.is_cuda)


def _all_plain(tensors: Sequence[Tensor]) -> bool:
    return all(type(tensor) in _PLAIN_TYPES and not tensor.is_neg() for tensor in tensors)


def _any_requires_grad(tensors: Sequence[Tensor]) -> bool:
    return any(tensor.requires_grad for tensor in tensors)
