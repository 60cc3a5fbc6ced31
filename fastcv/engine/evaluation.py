"""How well a model does on a data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fastcv.engine import processes
from fastcv.engine.loader import evaluation_loader
from fastcv.engine.tasks import Task

__all__ = ["autocast", "evaluate"]


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Return the context in which a network computes in half precision: float16 on a GPU, bfloat16 on a CPU."""
    return torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16, enabled=enabled)


@torch.no_grad()
def evaluate(
    task: Task,
    model: nn.Module,
    data: Any,
    *,
    batch: int = 4,
    workers: int = 0,
    device: str | torch.device = "auto",
    amp: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[list[Any], dict[str, float]]:
    """Return the task's records of all samples, in order, and their metrics.

    In several processes each takes every n-th sample, and all return the same.

    Parameters
    ----------
    task : Task
    model : nn.Module
        Left in evaluation mode, on the device.
    data : data set
    batch, workers, device, amp
        As in :class:`fastcv.engine.TrainOptions`.
    on_batch : callable, optional
        Called with the number of finished batches and of all.
    """
    if not len(data):
        raise ValueError("data must hold at least one sample, got none")
    place = processes.choose_device(device) if isinstance(device, str) else device
    processes.start(place)
    task.prepare(data)
    model.to(place).eval()
    processes.share_state(model, buffers_only=True)
    ranks, share = processes.count(), max(1, batch // processes.count())
    mine = range(processes.rank(), len(data), ranks)
    records: list[Any] = []
    loader = evaluation_loader(data, mine, task.collate, share, workers, place.type == "cuda")
    for number, samples in enumerate(loader):
        with autocast(place, amp):
            records += task.records(model, task.to(samples, place))
        if on_batch is not None:
            on_batch(number + 1, math.ceil(len(mine) / share))
    shares = processes.gather(records)
    ordered = [shares[index % ranks][index // ranks] for index in range(len(data))]
    return ordered, processes.broadcast(task.metrics(ordered) if processes.rank() == 0 else None)
