"""Training in several processes (``torchrun``): who does what, and what they tell each other."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = [
    "average_gradients",
    "broadcast",
    "choose_device",
    "count",
    "gather",
    "means",
    "rank",
    "share_state",
    "start",
]


def start(device: torch.device) -> None:
    """Join the processes that ``torchrun`` has started, if it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the GPU where there is one, of this process under ``torchrun``."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def means(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the mean of each value over the processes."""
    if count() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    mean: list[float] = (tensor / count()).tolist()
    return mean


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients over the processes. One that a process lacks counts as zero there.

    All of a dtype travel as one vector: a parameter that only some batches use needs no care then, unlike with
    DistributedDataParallel.
    """
    if count() == 1:
        return
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(has)
    used = [p for p, number in zip(parameters, has.tolist(), strict=True) if number]
    for dtype in sorted({p.dtype for p in used}, key=str):
        of_dtype = [p for p in used if p.dtype is dtype]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in of_dtype]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= count()
        for p, grad, part in zip(of_dtype, grads, flat.split([g.numel() for g in grads]), strict=True):
            p.grad = grad.copy_(part.view(grad.shape))


def share_state(model: nn.Module, buffers_only: bool = False) -> None:
    """Give all processes the weights and buffers of process 0."""
    if count() > 1:
        values: list[Tensor] = list(model.buffers()) + ([] if buffers_only else [p.data for p in model.parameters()])
        for value in values:
            dist.broadcast(value, 0)


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, in all processes."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """Return the value of process 0."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]
