"""The operators that pool regions of interest and are linear in the features, each with its transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastcv.ops._arguments import new_dense
from fastcv.ops._define import define

__all__ = ["define_linear_pooling"]


def define_linear_pooling(name: str, options: str, position_sensitive: bool = False) -> Callable[..., Any]:
    """Declare ``name(input, boxes, pooled_height, pooled_width, *options)`` and ``name_backward``; return the first.

    Parameters
    ----------
    name
        Of the operator.
    options
        The rest of the schema, such as ``"float spatial_scale, bool aligned"``.
    position_sensitive
        Whether every bin has channels of its own.
    """

    def fake(input: Tensor, boxes: Tensor, height: int, width: int, *_: Any) -> Tensor:
        bins = height * width if position_sensitive else 1
        return new_dense(input, boxes.shape[0], input.shape[1] // bins, height, width)

    def fake_backward(
        grad: Tensor, boxes: Tensor, batch: int, channels: int, height: int, width: int, *_: Any
    ) -> Tensor:
        return new_dense(grad, batch, channels, height, width)

    def adjoint(grad: Tensor, shape: Any, boxes: Tensor, height: int, width: int, *rest: Any) -> Any:
        return backward(grad, boxes, *shape, *rest)

    def adjoint_backward(grad: Tensor, shape: Any, boxes: Tensor, n: int, c: int, h: int, w: int, *rest: Any) -> Any:
        return forward(grad, boxes, shape[2], shape[3], *rest)

    forward = define(
        f"{name}(Tensor input, Tensor boxes, SymInt pooled_height, SymInt pooled_width, {options}) -> Tensor",
        fake=fake,
        adjoint=adjoint,
    )
    backward = define(
        f"{name}_backward(Tensor grad_output, Tensor boxes, SymInt batch, SymInt channels, SymInt height, "
        f"SymInt width, {options}) -> Tensor",
        fake=fake_backward,
        adjoint=adjoint_backward,
    )
    return forward
