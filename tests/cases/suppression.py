"""Non-maximum suppression."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import batched_nms, batched_nms_padded, batched_nms_rotated, nms, nms_rotated

NAN = float("nan")
FLOATING = "must be float16, bfloat16, float32 or float64"


def boxes(seed: int, *lead: int, side: float = 20.0) -> Tensor:
    """Rows of x1, y1, x2, y2."""
    corner = uniform(seed, *lead, 2, high=side)
    return torch.cat([corner, corner + uniform(seed + 9, *lead, 2, low=1, high=12)], -1)


def sample(seed: int, count: int = 6, side: float = 20.0) -> dict[str, Any]:
    """The arguments of nms."""
    return {"boxes": boxes(seed, count, side=side), "scores": uniform(seed + 5, count), "iou_threshold": 0.3}


def with_classes(seed: int, **sizes: Any) -> dict[str, Any]:
    """The arguments of batched_nms."""
    chosen = sample(seed, **sizes)
    return {**chosen, "idxs": torch.arange(len(chosen["scores"])) % 2}


def turned(seed: int, count: int = 6, side: float = 20.0) -> dict[str, Any]:
    """The arguments of nms_rotated."""
    chosen = sample(seed, count, side)
    numbers = chosen["boxes"]
    rows = numbers[:, :2], numbers[:, 2:] - numbers[:, :2], uniform(seed + 7, count, 1, high=360.0)
    return {**chosen, "boxes": torch.cat(rows, -1)}


def turned_with_classes(seed: int, **sizes: Any) -> dict[str, Any]:
    """The arguments of batched_nms_rotated."""
    chosen = turned(seed, **sizes)
    return {**chosen, "idxs": torch.arange(len(chosen["scores"])) % 2}


BAD = (
    Bad({"boxes": [1.0]}, TypeError, "boxes must be a torch.Tensor, got list"),
    Bad({"scores": 3}, TypeError, "scores must be a torch.Tensor, got int"),
    Bad({"boxes": torch.zeros(6, 4, dtype=torch.int64)}, TypeError, f"boxes {FLOATING}, got int64"),
    Bad({"scores": torch.zeros(6, dtype=torch.int64)}, TypeError, f"scores {FLOATING}, got int64"),
    Bad({"scores": torch.zeros(5)}, ValueError, "scores must have shape (N,) = (6), got (5,)"),
    Bad({"scores": torch.zeros(6, 1)}, ValueError, "scores must have shape (N,) = (6), got (6, 1)"),
    Bad({"scores": torch.zeros(6, device="meta")}, ValueError, "scores must be on the device of boxes (cpu), got meta"),
    Bad({"iou_threshold": 1.5}, ValueError, "iou_threshold must be in [0, 1], got 1.5"),
    Bad({"iou_threshold": -0.1}, ValueError, "iou_threshold must be in [0, 1], got -0.1"),
    Bad({"iou_threshold": NAN}, ValueError, "iou_threshold must be in [0, 1], got nan"),
)
SHAPE = (
    Bad({"boxes": torch.zeros(6, 5)}, ValueError, "boxes must have shape (N, 4), got (6, 5)"),
    Bad({"boxes": torch.zeros(4)}, ValueError, "boxes must have shape (N, 4), got (4,)"),
    Bad({"boxes": torch.zeros(())}, ValueError, "boxes must have shape (N, 4), got ()"),
)
CLASSES = (
    Bad({"idxs": [0, 1]}, TypeError, "idxs must be a torch.Tensor, got list"),
    Bad(
        {"idxs": torch.zeros(6, device="meta").long()},
        ValueError,
        "idxs must be on the device of boxes (cpu), got meta",
    ),
    Bad({"idxs": torch.zeros(6).cfloat()}, TypeError, "idxs must be of a real dtype, got complex64"),
    Bad({"idxs": torch.zeros(5)}, ValueError, "idxs must have shape (N,) = (6), got (5,)"),
    Bad({"idxs": torch.zeros(5, dtype=torch.int32)}, ValueError, "idxs must have shape (N,) = (6), got (5,)"),
)
BAD_SCORES = tuple(bad for bad in BAD if not isinstance(bad.changed.get("boxes"), torch.Tensor))
TURNED_SHAPE = (
    Bad({"boxes": torch.zeros(6, 5, dtype=torch.int64)}, TypeError, f"boxes {FLOATING}, got int64"),
    Bad({"boxes": torch.zeros(6, 4)}, ValueError, "boxes must have shape (N, 5), got (6, 4)"),
    Bad({"boxes": torch.zeros(5)}, ValueError, "boxes must have shape (N, 5), got (5,)"),
)
NOTHING_TURNED = {"boxes": torch.zeros(0, 5), "scores": torch.zeros(0)}
NOTHING = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
CASES = [
    OpCase(
        nms,
        sample,
        bad=(*BAD, *SHAPE),
        empty=(Empty(NOTHING, (0,)),),
        large=lambda: sample(0, 5000, side=300.0),
        size_depends_on_data=True,
    ),
    OpCase(
        batched_nms,
        with_classes,
        bad=(*BAD, *CLASSES, *SHAPE, Bad({"idxs": None}, TypeError, "idxs must be a torch.Tensor, got NoneType")),
        empty=(Empty({**NOTHING, "idxs": torch.zeros(0, dtype=torch.int64)}, (0,)),),
        large=lambda: with_classes(0, count=5000, side=300.0),
        size_depends_on_data=True,
    ),
    OpCase(
        nms_rotated,
        turned,
        bad=(*BAD_SCORES, *TURNED_SHAPE),
        empty=(Empty(NOTHING_TURNED, (0,)),),
        large=lambda: turned(0, 3000, side=300.0),
        size_depends_on_data=True,
    ),
    OpCase(
        batched_nms_rotated,
        turned_with_classes,
        bad=(
            *BAD_SCORES,
            *CLASSES,
            *TURNED_SHAPE,
            Bad({"idxs": None}, TypeError, "idxs must be a torch.Tensor, got NoneType"),
        ),
        empty=(Empty({**NOTHING_TURNED, "idxs": torch.zeros(0, dtype=torch.int64)}, (0,)),),
        large=lambda: turned_with_classes(0, count=3000, side=300.0),
        size_depends_on_data=True,
    ),
    OpCase(
        batched_nms_padded,
        lambda seed: {**with_classes(seed), "max_output": 4},
        bad=(
            *BAD,
            *CLASSES,
            Bad({"boxes": torch.zeros(6, 5)}, ValueError, "boxes must have shape (N, 4) or (B, N, 4), got (6, 5)"),
            Bad({"max_output": -1}, ValueError, "max_output must be at least 0, got -1"),
        ),
        empty=(
            Empty({**NOTHING, "idxs": None}, [(4,), ()]),
            Empty({"boxes": torch.zeros(0, 3, 4), "scores": torch.zeros(0, 3), "idxs": None}, [(0, 4), (0,)]),
            Empty({"max_output": 0}, [(0,), ()]),
        ),
    ),
]
