"""nms_rotated (K4) beside nms of the same boxes before they are turned: no wheel of detectron2 or mmcv has it.

The peer is our own nms of upright boxes. What a turn may cost is the overlap of two boxes; the order of the work is the
same, and turned boxes overlap less, so that more are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.harness import run_case
from bench.workloads import Problem, Variant, Workload

IMAGE = torch.tensor([1333.0, 800.0])
THRESHOLD = 0.5

Op = Callable[..., torch.Tensor]


def problem(variant: Variant, count: int, is_turned: bool) -> Problem:
    """Boxes cx, cy, w, h, angle with sides of 4 to 204 pixels anywhere inside an image of 800×1333, and scores."""
    generator = torch.Generator().manual_seed(0)
    count *= variant.scale
    sides = 4 + 200 * torch.rand(count, 2, generator=generator)
    centre = sides / 2 + torch.rand(count, 2, generator=generator) * (IMAGE - sides)
    angle = 360 * is_turned * torch.rand(count, 1, generator=generator)
    scores = torch.randperm(count, generator=generator) / count
    corners = torch.cat([centre - sides / 2, centre + sides / 2], dim=1)
    turned = torch.cat([centre, sides, angle], dim=1)
    return Problem((variant.place(turned), variant.place(corners), variant.place(scores)))


def call(op: Op, turned: torch.Tensor, corners: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return op(turned, corners, scores)


def rotated() -> Op:
    from fastcv.ops import nms_rotated

    return lambda turned, corners, scores: nms_rotated(turned, scores, THRESHOLD)


def upright() -> Op:
    from fastcv.ops import nms

    return lambda turned, corners, scores: nms(corners, scores, THRESHOLD)


WORKLOADS = [
    Workload(
        id=f"K4-{title}{'' if is_turned else '-upright'}",
        title=f"nms_rotated, {title} boxes {'turned anyhow' if is_turned else 'without a turn'}, against nms, IoU 0.5",
        problem=partial(problem, count=count, is_turned=is_turned),
        call=call,
        contenders={"fastcv": rotated, "nms": upright},
        peer="nms",
        variants=(("float32", "contiguous"), ("float64", "contiguous")),
        tolerance=None,  # turned boxes overlap otherwise
    )
    for title, count in (("1k", 1000), ("5k", 5000), ("20k", 20_000))
    for is_turned in (True, False)
]

test_nms_rotated = run_case
