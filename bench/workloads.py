"""The vocabulary with which an op's bench file declares what is measured.

A bench file holds a list named ``WORKLOADS`` and one line, ``test_<op> = run_case``. Everything else, which
contenders exist here, on how many threads, how often, in which order, is the harness's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

Contender = str | Callable[[], Callable[..., Any]]
"""Where a competitor is found: ``"package.module:function"``, or a function that imports and returns it.

Whatever cannot be imported on this machine is skipped with the reason.
"""


@dataclass(frozen=True)
class Target:
    """What a result has to reach; every number that is given counts.

    Parameters
    ----------
    ratio
        Times faster than the peer, at least.
    share
        Share of the machine's measured limit (0 to 1), at least.
    seconds
        Time of one call, at most.
    """

    ratio: float | None = None
    share: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Variant:
    """One form of a workload's data.

    Parameters
    ----------
    dtype
        Name of a torch dtype, such as ``"bfloat16"``.
    layout
        ``"contiguous"`` or ``"channels_last"``.
    device
        ``"cpu"`` or ``"cuda"``.
    """

    dtype: str = "float32"
    layout: str = "contiguous"
    device: str = "cpu"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def scale(self) -> int:
        """By how much the number of items (RoIs, boxes, points) grows: a GPU wants four times as many."""
        return 4 if self.device == "cuda" else 1

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Bring a tensor to this variant's device, dtype and (when it has four axes) memory format."""
        placed = tensor.to(self.device, self.torch_dtype)
        if self.layout == "channels_last" and placed.dim() == 4:
            placed = placed.contiguous(memory_format=torch.channels_last)
        return placed


@dataclass(frozen=True)
class Problem:
    """Built inputs, and the work that no implementation can avoid.

    Parameters
    ----------
    args
        Handed to :attr:`Workload.call` behind the contender.
    bytes
        Bytes that must be read or written at least once, the result included; 0 when they do not matter.
    flops
        Floating-point operations that must be done; 0 when they do not matter.
    """

    args: tuple[Any, ...]
    bytes: int = 0
    flops: int = 0


@dataclass(frozen=True, eq=False)
class Workload:
    """A task that several contenders do in turn.

    Parameters
    ----------
    id
        Short name, such as ``"A1"``.
    title
        One line: op, shapes, parameters.
    problem
        Builds the inputs for a variant, always the same ones; called once per variant.
    call
        ``call(contender, *problem.args)``: one timed execution.
    contenders
        Name to place; the order is the order of measurement.
    peer
        The contender that ratios refer to.
    targets
        Keyed ``"one thread"``, ``"all threads"`` and ``"cuda"``; they hold for the first variant on a CPU and for
        every variant on a GPU.
    variants
        ``(dtype, layout)`` pairs. The first is always measured, the others with ``--full`` alone.
    iterations
        Calls per timed round. More than one: the cost of a call itself is measured, by the wall clock.
    devices
        Where it is measured: of sizes for a GPU alone, ``("cuda",)``.
    tolerance
        By how much a result may deviate from the first contender's: norm of the difference over norm of the
        result, in float32 and float64 (half types get 50 times as much). None when results cannot be compared.
    """

    id: str
    title: str
    problem: Callable[[Variant], Problem]
    call: Callable[..., Any]
    contenders: Mapping[str, Contender]
    peer: str = "torchvision"
    targets: Mapping[str, Target] = field(default_factory=dict)
    variants: tuple[tuple[str, str], ...] = (("float32", "contiguous"),)
    iterations: int = 1
    devices: tuple[str, ...] = ("cpu", "cuda")
    tolerance: float | None = 1e-3

    def __post_init__(self) -> None:
        unknown = set(self.targets) - {"one thread", "all threads", "cuda"}
        if unknown:
            raise ValueError(f"targets of workload {self.id}: unknown keys {sorted(unknown)}")

    def target(self, variant: Variant, threads: int) -> Target:
        """What is asked of fastcv for this variant on that many threads."""
        if variant.device == "cuda":
            return self.targets.get("cuda", Target())
        if (variant.dtype, variant.layout) != self.variants[0]:
            return Target()
        return self.targets.get("one thread" if threads == 1 else "all threads", Target())
