"""One declaration per operator; from it the eager way and the ``torch.library`` way are made.

::

    roi_align(...)               the public function: lists of boxes, pairs, the docstring
      └─ the generated call      guards, scalars of any number type                          _call.py
           ├─ plain tensors                 ─→ _C.roi_align   checks, allocates, runs, returns
           ├─ plain tensors, a gradient     ─→ autograd.Function ─→ _C.roi_align              _autograd.py
           ├─ torch.autocast                ─→ the call again with cast tensors, autocast off               _autocast.py
           ├─ a function transform          ─→ the same with setup_context ─→ the call again, one level down
           └─ compiling, tracing, subclass  ─→ torch.ops.fastcv.roi_align ─→ _C.roi_align
                                                 └─ without memory ─→ _C.roi_align on descriptions, then ``fake``

The compiled function takes the arguments of the schema, in its order. It alone checks them: a trace lets it check
descriptions of the tensors (shape, strides, dtype, device), so that all ways say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastcv.ops._autocast import call_cast
from fastcv.ops._autograd import Gradient, Rules, linear_gradient, one_by_one
from fastcv.ops._call import COMPILED, Signature, generate_call

__all__ = ["OPERATORS", "Gradient", "define", "size_from_data"]

_LIBRARY = torch.library.Library("fastcv", "DEF")

OPERATORS: dict[str, Signature] = {}
"""Every operator that was declared, by name."""


def define(
    schema: str,
    *,
    fake: Callable[..., Any],
    gradient: Gradient | None = None,
    adjoint: Callable[..., Any] | None = None,
    inference: str | None = None,
    autocast: Mapping[str, str] | None = None,
) -> Callable[..., Any]:
    """Declare an operator and return its call.

    Parameters
    ----------
    schema
        Name and signature in torch's schema language, ``"name(Tensor input, ...) -> Tensor"``. ``_C.name`` computes it.
    fake
        ``fake(*arguments) -> outputs``: tensors of the shape, strides and dtype of the result, for tensors without
        memory and symbolic sizes. It need not check: the compiled function has.
    gradient
        None for an operator without derivatives.
    adjoint
        In place of ``gradient`` for an operator that is linear in its first argument, a tensor or a list of them, and
        returns one tensor or a list of them: ``adjoint(grad_output, shape, *rest) -> grad``, its transpose, made of
        differentiable operations; ``shape`` is that of the first argument, ``rest`` the other arguments. The operator
        itself is then its forward-mode derivative.
    inference
        Name of the compiled function that is called where no derivative will be asked for. It may leave out outputs
        that only derivatives need.
    autocast
        The dtype that the operator computes in under ``torch.autocast``, by type of device ("cpu", "cuda"): "lower" for
        that of autocast, or "float32". That of its peer in torch; by default autocast changes nothing.
    """
    signature = Signature.parse(schema)
    name = signature.name
    for function in (name, inference or name):
        if not hasattr(COMPILED["_C"], function):
            raise ImportError(f"fastcv's compiled module has no {function}: rebuild it with pip install .")
    OPERATORS[name] = signature

    def compiled(*arguments: Any) -> Any:
        return getattr(COMPILED["_C"], name)(*arguments)

    def checked_fake(*arguments: Any) -> Any:
        try:
            described = [_described(argument) for argument in arguments]
        except LookupError:
            pass  # a size that only the data will tell: the compiled function checks it when it runs
        else:
            compiled(*described)
        return fake(*arguments)

    qualified = f"fastcv::{name}"
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, compiled, device)
    torch.library.register_fake(qualified, checked_fake, lib=_LIBRARY)
    dispatched = getattr(torch.ops.fastcv, name)
    for device, dtype in (autocast or {}).items():
        _LIBRARY.impl(name, partial(call_cast, dispatched, device, dtype), f"Autocast{device.upper()}")
    torch.library.register_vmap(qualified, one_by_one(dispatched), lib=_LIBRARY)
    if adjoint is not None:
        gradient = linear_gradient(signature, lambda *arguments: call(*arguments), adjoint)
    if gradient is None:
        return generate_call(signature, dispatched, compiled=inference or name, autocast=autocast)
    rules = Rules(signature, gradient)
    torch.library.register_autograd(qualified, rules.backward, setup_context=rules.setup_context, lib=_LIBRARY)
    functions: dict[str, Any] = {
        "differentiable": gradient.arguments,
        "eager": rules.eager_function(compiled),
        "transformed": rules.transform_function(lambda *arguments: whole_call(*arguments)),
        "autocast": autocast,
    }
    whole_call = generate_call(signature, dispatched, name, **functions)  # below a transform all outputs are needed
    call = generate_call(signature, dispatched, inference, **functions) if inference else whole_call
    return call


def size_from_data(like: Tensor) -> Any:
    """Return, in a fake, a size that only the data will tell. Raises NotImplementedError for meta tensors."""
    if type(like) is Tensor:
        raise NotImplementedError("the size of this result depends on the data, and meta tensors have none")
    return torch.library.get_ctx().new_dynamic_size()


def _described(argument: Any) -> Any:
    """Return what the compiled function takes for an argument of a trace: descriptions, and the sizes seen by it.

    Raises LookupError for a size that is not known before the program runs.
    """
    if isinstance(argument, Tensor):
        sizes, strides = (tuple(_size(size) for size in sizes) for sizes in (argument.shape, argument.stride()))
        device = argument.device
        return COMPILED["_C"].Description(sizes, strides, argument.dtype, device.type, device.index or 0)
    if isinstance(argument, list | tuple):
        return [_described(element) for element in argument]
    return _size(argument) if isinstance(argument, torch.SymInt) else argument


def _size(size: int | torch.SymInt) -> int:
    """Return the size that a symbol had when it was traced. Nothing is guarded on it."""
    if isinstance(size, torch.SymInt):
        node: Any = size.node
        if not node.has_hint():
            raise LookupError(size)
        return int(node.hint)
    return size
