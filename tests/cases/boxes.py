"""Overlaps of boxes, matching and soft suppression."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import (
    box_iou,
    box_iou_rotated,
    complete_box_iou,
    distance_box_iou,
    generalized_box_iou,
    match_boxes,
    soft_nms,
)

NAN = float("nan")
FLOATING = "must be float16, bfloat16, float32 or float64"
NUMBERS = "must be of a floating or an integer dtype"
zeros = torch.zeros


def boxes(seed: int, *lead: int, side: float = 20.0) -> Tensor:
    """Rows of x1, y1, x2, y2."""
    corner = uniform(seed, *lead, 2, high=side)
    return torch.cat([corner, corner + uniform(seed + 9, *lead, 2, low=1, high=12)], -1)


def turned(seed: int, count: int) -> Tensor:
    """Rows of cx, cy, w, h and an angle in degrees."""
    rest = uniform(seed + 9, count, 2, low=1, high=12), uniform(seed + 5, count, 1, low=-180, high=180)
    return torch.cat([uniform(seed, count, 2, high=20.0), *rest], -1)


def overlap(function: Any, *bad: Bad, exact_gradient: bool = True, **options: Any) -> OpCase:
    """A case of a function (boxes1, boxes2, ...)."""
    return OpCase(
        function,
        lambda seed: {"boxes1": boxes(seed, 2, 3), "boxes2": boxes(seed + 1, 4), **options},
        large=lambda: {"boxes1": boxes(0, 290).float(), "boxes2": boxes(1, 700).float(), **options},
        differentiable=("boxes1", "boxes2"),
        order=1,
        exact_gradient=exact_gradient,
        bad=(
            Bad({"boxes1": [1.0]}, TypeError, "boxes1 must be a torch.Tensor, got list"),
            Bad({"boxes2": None}, TypeError, "boxes2 must be a torch.Tensor, got NoneType"),
            Bad({"boxes1": zeros(4)}, ValueError, "boxes1 must have shape (..., N, 4), got (4,)"),
            Bad({"boxes2": zeros(3, 5)}, ValueError, "boxes2 must have shape (..., M, 4), got (3, 5)"),
            Bad({"boxes1": zeros(2, 4).bool()}, TypeError, f"boxes1 {NUMBERS}, got bool"),
            Bad({"boxes2": zeros(2, 4, dtype=torch.complex64)}, TypeError, f"boxes2 {NUMBERS}, got complex64"),
            Bad(
                {"boxes2": zeros(3, 2, 4)},
                ValueError,
                "boxes1 and boxes2 must have leading axes that broadcast, got (2, 3, 4) and (3, 2, 4)",
            ),
            Bad(
                {"boxes2": zeros(3, 4, device="meta")},
                ValueError,
                "boxes2 must be on the device of boxes1 (cpu), got meta",
            ),
            *bad,
        ),
        empty=(
            Empty({"boxes1": zeros(0, 4)}, (0, 4)),
            Empty({"boxes2": zeros(0, 4)}, (2, 3, 0)),
            Empty({"boxes1": zeros(0, 3, 4), "boxes2": zeros(1, 5, 4)}, (0, 3, 5)),
            Empty({"boxes1": zeros(0, 4), "boxes2": zeros(0, 4)}, (0, 0)),
        ),
    )


EPS = (
    Bad({"eps": -1.0}, ValueError, "eps must not be negative, got -1.0"),
    Bad({"eps": NAN}, ValueError, "eps must not be negative, got nan"),
)
SETS = ("boxes1", "boxes2")
UNKNOWN_FORMATS = ("xyxyxy", "", None, 3)
ALL_FORMATS = "xyxy, xywh, cxcywh, cxcywhr, xywhr, xyxyxyxy"
FORMATS = (
    *(Bad({"fmt": f}, ValueError, f"fmt must be one of {ALL_FORMATS}, got {f!r}") for f in UNKNOWN_FORMATS),
    Bad({"fmt": "xywh", "boxes1": None}, TypeError, "boxes1 must be a torch.Tensor, got NoneType"),
    Bad({"fmt": "xywh", "boxes2": zeros(4)}, ValueError, "boxes2 must have shape (..., M, 4), got (4,)"),
    Bad({"fmt": "xyxyxyxy"}, ValueError, "boxes1 must have shape (N, 8), got (2, 3, 4)"),
    Bad(
        {"fmt": "xywhr", "boxes1": zeros(2, 5), "boxes2": zeros(5)},
        ValueError,
        "boxes2 must have shape (N, 5), got (5,)",
    ),
    Bad({"fmt": "xyxyxyxy", **{n: zeros(2, 8).long() for n in SETS}}, TypeError, f"boxes1 {FLOATING}, got int64"),
    Bad({"fmt": "cxcywh", "boxes1": zeros(2, 4).bool()}, TypeError, f"boxes1 {NUMBERS}, got bool"),
)


def suppression(seed: int, count: int = 6, side: float = 20.0) -> dict[str, Any]:
    """The arguments of soft_nms."""
    return {
        "boxes": boxes(seed, count, side=side),
        "scores": uniform(seed + 5, count),
        "iou_threshold": 0.3,
        "sigma": 0.5,
        "min_score": 0.01,
        "method": "gaussian",
    }


CASES = [
    overlap(box_iou, *FORMATS),
    OpCase(
        box_iou_rotated,
        lambda seed: {"boxes1": turned(seed, 3), "boxes2": turned(seed + 1, 4)},
        large=lambda: {"boxes1": turned(0, 290), "boxes2": turned(1, 700).float()},
        bad=(
            Bad({"boxes1": [1.0]}, TypeError, "boxes1 must be a torch.Tensor, got list"),
            Bad({"boxes2": None}, TypeError, "boxes2 must be a torch.Tensor, got NoneType"),
            Bad({"boxes1": zeros(2, 4)}, ValueError, "boxes1 must have shape (N, 5), got (2, 4)"),
            Bad({"boxes2": zeros(2, 3, 5)}, ValueError, "boxes2 must have shape (M, 5), got (2, 3, 5)"),
            Bad({"boxes1": zeros(2, 5).long()}, TypeError, f"boxes1 {FLOATING}, got int64"),
            Bad({"boxes2": zeros(2, 5).bool()}, TypeError, f"boxes2 {FLOATING}, got bool"),
            Bad(
                {"boxes2": zeros(3, 5, device="meta")},
                ValueError,
                "boxes2 must be on the device of boxes1 (cpu), got meta",
            ),
        ),
        empty=(
            Empty({"boxes1": zeros(0, 5)}, (0, 4)),
            Empty({"boxes2": zeros(0, 5)}, (3, 0)),
            Empty({"boxes1": zeros(0, 5), "boxes2": zeros(0, 5)}, (0, 0)),
        ),
    ),
    overlap(generalized_box_iou),
    overlap(distance_box_iou, *EPS, eps=1e-7),
    overlap(complete_box_iou, *EPS, exact_gradient=False, eps=1e-7),
    OpCase(
        match_boxes,
        lambda seed: {
            "gt": boxes(seed, 3),
            "candidates": boxes(seed + 1, 7),
            "high_threshold": 0.3,
            "low_threshold": 0.1,
            "allow_low_quality_matches": True,
        },
        large=lambda: {
            "gt": boxes(0, 20, side=100.0).float(),
            "candidates": boxes(1, 9000, side=100.0).float(),
            "high_threshold": 0.5,
            "low_threshold": 0.3,
            "allow_low_quality_matches": True,
        },
        bad=(
            Bad({"gt": [1.0]}, TypeError, "gt must be a torch.Tensor, got list"),
            Bad({"candidates": None}, TypeError, "candidates must be a torch.Tensor, got NoneType"),
            Bad({"gt": zeros(4)}, ValueError, "gt must have shape (N, 4), got (4,)"),
            Bad({"candidates": zeros(2, 5)}, ValueError, "candidates must have shape (M, 4), got (2, 5)"),
            Bad({"gt": zeros(3, 4).int()}, TypeError, f"gt {FLOATING}, got int32"),
            Bad({"candidates": zeros(3, 4).long()}, TypeError, f"candidates {FLOATING}, got int64"),
            Bad(
                {"candidates": zeros(3, 4, device="meta")},
                ValueError,
                "candidates must be on the device of gt (cpu), got meta",
            ),
            Bad(
                {"high_threshold": 0.05},
                ValueError,
                "low_threshold must not be greater than high_threshold, got 0.1 and 0.05",
            ),
            Bad(
                {"low_threshold": NAN},
                ValueError,
                "low_threshold must not be greater than high_threshold, got nan and 0.3",
            ),
        ),
        empty=(
            Empty({"gt": zeros(0, 4)}, (7,)),
            Empty({"candidates": zeros(0, 4)}, (0,)),
            Empty({"gt": zeros(0, 4), "candidates": zeros(0, 4)}, (0,)),
        ),
    ),
    OpCase(
        soft_nms,
        suppression,
        large=lambda: suppression(0, 2000, side=300.0),
        size_depends_on_data=True,
        bad=(
            Bad({"boxes": [1.0]}, TypeError, "boxes must be a torch.Tensor, got list"),
            Bad({"scores": 3}, TypeError, "scores must be a torch.Tensor, got int"),
            Bad({"boxes": zeros(6, 5)}, ValueError, "boxes must have shape (N, 4), got (6, 5)"),
            Bad({"boxes": zeros(6, 4).long()}, TypeError, f"boxes {FLOATING}, got int64"),
            Bad({"scores": zeros(5)}, ValueError, "scores must have shape (N,) = (6), got (5,)"),
            Bad({"scores": zeros(6, 1)}, ValueError, "scores must have shape (N,) = (6), got (6, 1)"),
            Bad({"scores": zeros(6)}, TypeError, "scores must have the dtype of boxes (float64), got float32"),
            Bad(
                {"scores": zeros(6, device="meta").double()},
                ValueError,
                "scores must be on the device of boxes (cpu), got meta",
            ),
            Bad({"iou_threshold": 1.5}, ValueError, "iou_threshold must be in [0, 1], got 1.5"),
            Bad({"sigma": 0.0}, ValueError, "sigma must be positive, got 0.0"),
            Bad({"sigma": NAN}, ValueError, "sigma must be positive, got nan"),
            Bad({"min_score": -0.5}, ValueError, "min_score must not be negative, got -0.5"),
            Bad({"min_score": NAN}, ValueError, "min_score must not be negative, got nan"),
            Bad({"method": "cubic"}, ValueError, "method must be 'linear' or 'gaussian', got 'cubic'"),
        ),
        empty=(Empty({"boxes": zeros(0, 4), "scores": zeros(0)}, [(0,), (0,)]),),
    ),
]
