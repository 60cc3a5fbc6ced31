"""Losses, and the sum they are reduced with."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)
from fastcv.ops.ordered_sum import ordered_sum

NAN = float("nan")
FLOATING = "must be float16, bfloat16, float32 or float64"
zeros = torch.zeros


def boxes(seed: int, count: int = 5) -> Tensor:
    """Rows of x1, y1, x2, y2."""
    corner = uniform(seed, count, 2, high=8)
    return torch.cat([corner, corner + uniform(seed + 9, count, 2, low=1, high=9)], -1)


def box_loss(function: Any, reduction: str, exact_gradient: bool = True) -> OpCase:
    """A case of a function (boxes1, boxes2, reduction, eps)."""
    return OpCase(
        function,
        lambda seed: {"boxes1": boxes(seed), "boxes2": boxes(seed + 1), "reduction": reduction, "eps": 1e-7},
        large=lambda: {"boxes1": boxes(0, 200_000).float(), "boxes2": boxes(1, 200_000).float(), "reduction": "sum"},
        differentiable=("boxes1", "boxes2"),
        order=1,
        exact_gradient=exact_gradient,
        bad=(
            Bad({"boxes1": 3}, TypeError, "boxes1 must be a torch.Tensor, got int"),
            Bad({"boxes1": zeros(2, 5)}, ValueError, "boxes1 must have shape (N, 4) or (4,), got (2, 5)"),
            Bad({"boxes2": zeros(())}, ValueError, "boxes2 must have shape (N, 4) or (4,), got ()"),
            Bad({"boxes2": zeros(3, 4)}, ValueError, "boxes2 must have the shape of boxes1 (5, 4), got (3, 4)"),
            Bad(
                {"boxes2": zeros(5, 4).bool()},
                TypeError,
                "boxes2 must be of a floating or an integer dtype, got bool",
            ),
            Bad(
                {"boxes2": zeros(5, 4, device="meta")},
                ValueError,
                "boxes2 must be on the device of boxes1 (cpu), got meta",
            ),
            Bad({"reduction": "max"}, ValueError, "reduction must be 'none', 'mean' or 'sum', got 'max'"),
            Bad({"eps": -1.0}, ValueError, "eps must not be negative, got -1.0"),
            Bad({"eps": NAN}, ValueError, "eps must not be negative, got nan"),
        ),
        empty=(
            Empty({"boxes1": zeros(0, 4), "boxes2": zeros(0, 4), "reduction": "none"}, (0,)),
            Empty({"boxes1": zeros(0, 4), "boxes2": zeros(0, 4), "reduction": "mean"}, ()),
            Empty({"boxes1": zeros(0, 4), "boxes2": zeros(0, 4), "reduction": "sum"}, ()),
        ),
    )


def focal(seed: int, *shape: int) -> dict[str, Any]:
    """The arguments of sigmoid_focal_loss."""
    shape = shape or (3, 4)
    return {
        "inputs": uniform(seed, *shape, low=-4, high=4),
        "targets": uniform(seed + 1, *shape),
        "alpha": 0.25,
        "gamma": 2.0,
        "reduction": "mean",
    }


CASES = [
    box_loss(generalized_box_iou_loss, "none"),
    box_loss(distance_box_iou_loss, "mean"),
    box_loss(complete_box_iou_loss, "sum", exact_gradient=False),
    OpCase(
        sigmoid_focal_loss,
        focal,
        large=lambda: {name: v.float() if isinstance(v, Tensor) else v for name, v in focal(0, 600_000).items()},
        differentiable=("inputs", "targets"),
        order=1,
        bad=(
            Bad({"inputs": None}, TypeError, "inputs must be a torch.Tensor, got NoneType"),
            Bad({"targets": 1.0}, TypeError, "targets must be a torch.Tensor, got float"),
            Bad({"inputs": zeros(3, 4).int()}, TypeError, f"inputs {FLOATING}, got int32"),
            Bad({"targets": zeros(3, 4).long()}, TypeError, f"targets {FLOATING}, got int64"),
            Bad({"targets": zeros(3, 1)}, ValueError, "targets must have the shape of inputs (3, 4), got (3, 1)"),
            Bad(
                {"targets": zeros(3, 4, device="meta")},
                ValueError,
                "targets must be on the device of inputs (cpu), got meta",
            ),
            Bad({"alpha": 1.5}, ValueError, "alpha must be in [0, 1], or -1 for no weights, got 1.5"),
            Bad({"alpha": -0.5}, ValueError, "alpha must be in [0, 1], or -1 for no weights, got -0.5"),
            Bad({"alpha": NAN}, ValueError, "alpha must be in [0, 1], or -1 for no weights, got nan"),
            Bad({"gamma": -1.0}, ValueError, "gamma must not be negative, got -1.0"),
            Bad({"gamma": NAN}, ValueError, "gamma must not be negative, got nan"),
            Bad({"reduction": "all"}, ValueError, "reduction must be 'none', 'mean' or 'sum', got 'all'"),
        ),
        empty=(
            Empty({"inputs": zeros(0, 4), "targets": zeros(0, 4), "reduction": "none"}, (0, 4)),
            Empty({"inputs": zeros(0, 4), "targets": zeros(0, 4), "reduction": "mean"}, ()),
            Empty({"inputs": zeros(0, 4), "targets": zeros(0, 4), "reduction": "sum"}, ()),
        ),
    ),
    OpCase(
        ordered_sum,
        lambda seed: {"input": uniform(seed, 2, 3, 4), "axis": 1, "mean": True},
        large=lambda: {"input": uniform(0, 600_000).float(), "axis": None, "mean": False},
        differentiable=("input",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"input": 3}, TypeError, "input must be a torch.Tensor, got int"),
            Bad({"input": zeros(2, 3).int()}, TypeError, f"input {FLOATING}, got int32"),
            Bad({"axis": 3}, ValueError, "axis must be in [0, 3), got 3"),
            Bad({"axis": -1}, ValueError, "axis must be in [0, 3), got -1"),
        ),
        empty=(
            Empty({"input": zeros(0, 3, 4)}, (3,)),
            Empty({"input": zeros(2, 0, 4)}, (0,)),
            Empty({"input": zeros(2, 3, 0), "axis": None}, ()),
        ),
    ),
]
