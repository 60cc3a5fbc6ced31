"""What is true of every operator, told once per operator: see test_contract.py."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Bad:
    """Arguments that are refused.

    Attributes
    ----------
    changed
        What is changed in the sample, by name of the argument.
    error
        The type of the exception.
    text
        Its whole text.
    in_traces
        Whether a trace, which sees no values, can tell.
    """

    changed: Arguments
    error: type[Exception]
    text: str
    in_traces: bool = True


@dataclass(frozen=True)
class Empty:
    """Arguments without elements, and the shape of each result (one shape where there is one)."""

    changed: Arguments
    shapes: Any


@dataclass(frozen=True)
class OpCase:
    """One public function.

    Attributes
    ----------
    function
        From ``fastcv.ops``.
    sample
        ``sample(seed)``: small arguments by name, of the same shapes for every seed; floating tensors in float64 where
        the function takes it.
    bad, empty
        See their types.
    large
        Arguments so large that the threads share the work; by default the sample.
    differentiable
        Names of the arguments that get a gradient.
    order
        How often it can be differentiated: 0, 1 or 2.
    exact_gradient
        Whether the gradient is that of the value: not where something counts as a constant.
    forward_mode
        Whether there is a forward-mode derivative.
    size_depends_on_data
        Whether a trace cannot tell the shape of the result.
    reference
        What the results are compared with, called with the same arguments. By default that of fastcv.reference with the
        name of the function, where it has all of these arguments.
    """

    function: Callable[..., Any]
    sample: Callable[[int], Arguments]
    bad: Sequence[Bad] = ()
    empty: Sequence[Empty] = ()
    large: Callable[[], Arguments] | None = None
    differentiable: tuple[str, ...] = ()
    order: int = 0
    exact_gradient: bool = True
    forward_mode: bool = False
    size_depends_on_data: bool = False
    reference: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__


def all_cases() -> Iterator[OpCase]:
    """Every case of tests/cases, in the order of files and of their lists."""
    package = importlib.import_module("cases")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        yield from importlib.import_module(f"cases.{info.name}").CASES


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor in an argument or a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for element in value for tensor in tensors_of(element)]
    if isinstance(value, dict):
        return tensors_of(list(value.values()))
    return []


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same arguments with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(element, change) for element in value)
    if isinstance(value, dict):
        return {name: map_tensors(element, change) for name, element in value.items()}
    return value


def uniform(seed: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Random float64 numbers in [low, high)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low
