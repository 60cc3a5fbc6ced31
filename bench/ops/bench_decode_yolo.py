"""Decoding of YOLOv3-tiny's finer head: 26 × 26 cells of three anchors and 80 classes, a few objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

ANCHORS = [(10.0, 14.0), (23.0, 27.0), (37.0, 58.0)]
THRESHOLD = 0.25


def problem(variant: Variant) -> Problem:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(1, 255, 26, 26, generator=generator)
    output.unflatten(1, (3, 85))[:, :, 4:] -= 8  # nothing is there
    cells = torch.randperm(26 * 26, generator=generator)[:20]
    output.flatten(2)[:, 4, cells] = 4
    output.flatten(2)[:, 7, cells] = 4
    return Problem((variant.place(output),))


def call(op: Callable[..., Any], output: torch.Tensor) -> torch.Tensor:
    _, scores, _, count = op(output, ANCHORS, (416, 416), THRESHOLD, 512)
    return torch.cat([scores.flatten().exp(), count.to(scores)])


def in_torch() -> Callable[..., Any]:
    """All boxes and the table of all scores, then the high ones."""

    def decode(output: torch.Tensor, anchors: Any, size: Any, threshold: float, capacity: int) -> Any:
        images, _, height, width = output.shape
        values = output.unflatten(1, (len(anchors), -1)).permute(0, 3, 4, 1, 2)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([x, y], -1).to(output)[:, :, None]
        centres = (values[..., :2].sigmoid() + cells) * output.new_tensor([size[1] / width, size[0] / height])
        half = values[..., 2:4].exp() * output.new_tensor(anchors) / 2
        boxes = torch.cat([centres - half, centres + half], -1).flatten(1, 3)
        table = (values[..., 4:5].sigmoid() * values[..., 5:].sigmoid()).flatten(1, 3)
        image, box, label = (table >= threshold).nonzero(as_tuple=True)
        scores = table.new_full((images, capacity), -torch.inf)
        scores[0, : len(box)] = table[image, box, label]
        return boxes[image, box], scores, label, image.bincount(minlength=images)

    return decode


WORKLOADS = [
    Workload(
        id="Y1-decode",
        title="decode_yolo, 26×26 cells, 3 anchors, 80 classes, 20 objects",
        problem=problem,
        call=call,
        contenders={"fastcv": "fastcv.ops:decode_yolo", "torch": in_torch},
        peer="torch",
        targets={name: Target(ratio=20) for name in ("one thread", "all threads")},
        variants=(("float32", "contiguous"), ("float32", "channels_last"), ("float64", "contiguous")),
    )
]

test_decode_yolo = run_case
