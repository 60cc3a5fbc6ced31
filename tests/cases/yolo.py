"""The heads of YOLO."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform

from fastcv.ops import decode_yolo, decode_yolo_v1

NAN = float("nan")
FLOATING = "must be float16, bfloat16, float32 or float64"
zeros = torch.zeros


def head(seed: int, *shape: int) -> dict[str, Any]:
    """The arguments of decode_yolo; two anchors."""
    return {
        "output": uniform(seed, *(shape or (2, 16, 3, 4)), low=-3, high=3),
        "anchors": [(10.0, 20.0), (30.0, 15.0)],
        "image_size": (48, 64),
        "score_threshold": 0.3,
        "max_output": 8,
        "softmax": False,
        "scale_xy": 1.1,
    }


def first_head(seed: int, images: int = 2) -> dict[str, Any]:
    """The arguments of decode_yolo_v1: 3 × 3 cells of two boxes and four classes."""
    return {
        "output": uniform(seed, images, 126),
        "side": 3,
        "boxes": 2,
        "image_size": (48, 64),
        "score_threshold": 0.3,
        "max_output": 8,
        "softmax": False,
        "square": True,
    }


def many(change: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return {**arguments, "score_threshold": 0.01, "max_output": 500, **change}


BAD = (
    Bad({"output": [1.0]}, TypeError, "output must be a torch.Tensor, got list"),
    Bad({"image_size": (0, 4)}, ValueError, "image_size[0] must be positive, got 0"),
    Bad({"image_size": (4, -1)}, ValueError, "image_size[1] must be positive, got -1"),
    Bad({"image_size": 4}, TypeError, "image_size must be two ints (height, width), got 4"),
    Bad({"score_threshold": -0.1}, ValueError, "score_threshold must be at least 0, got -0.1"),
    Bad({"score_threshold": NAN}, ValueError, "score_threshold must be at least 0, got nan"),
    Bad({"max_output": -1}, ValueError, "max_output must be at least 0, got -1"),
)
CASES = [
    OpCase(
        decode_yolo,
        head,
        large=lambda: many({}, head(0, 9, 16, 26, 26)),
        bad=(
            *BAD,
            Bad({"output": zeros(2, 16, 3, 4).long()}, TypeError, f"output {FLOATING}, got int64"),
            Bad(
                {"output": zeros(16, 3, 4)},
                ValueError,
                "output must have shape (N, A (5 + K), H, W), got (16, 3, 4)",
            ),
            Bad(
                {"output": zeros(2, 17, 3, 4)},
                ValueError,
                "output must have A (5 + K) channels for A = 2 anchors and K classes, got 17",
            ),
            Bad(
                {"output": zeros(2, 10, 3, 4)},
                ValueError,
                "output must have A (5 + K) channels for A = 2 anchors and K classes, got 10",
            ),
            Bad({"anchors": []}, ValueError, "anchors must hold 1 to 32 pairs (width, height), got 0 numbers"),
            Bad(
                {"anchors": [(1, 2)] * 33},
                ValueError,
                "anchors must hold at most 32 pairs (width, height), got 33",
            ),
            Bad({"anchors": 4}, TypeError, "anchors must be a sequence of pairs (width, height), got int"),
            Bad({"anchors": [(1, 2, 3)]}, TypeError, "anchors[0] must be 2 floats (width, height), got (1, 2, 3)"),
        ),
        empty=(
            Empty({"output": zeros(0, 16, 3, 4)}, [(0, 8, 4), (0, 8), (0, 8), (0,)]),
            Empty({"output": zeros(2, 16, 0, 4)}, [(2, 8, 4), (2, 8), (2, 8), (2,)]),
            Empty({"max_output": 0}, [(2, 0, 4), (2, 0), (2, 0), (2,)]),
        ),
    ),
    OpCase(
        decode_yolo_v1,
        first_head,
        large=lambda: many({"max_output": 30}, first_head(0, 40)),
        bad=(
            *BAD,
            Bad({"output": zeros(2, 126).long()}, TypeError, f"output {FLOATING}, got int64"),
            Bad({"output": zeros(126)}, ValueError, "output must have shape (N, S S (K + 5 B)), got (126,)"),
            Bad({"side": 0}, ValueError, "side must be positive, got 0"),
            Bad({"boxes": 0}, ValueError, "boxes must be positive, got 0"),
            Bad({"boxes": 33}, ValueError, "boxes must be at most 32, got 33"),
            Bad(
                {"output": zeros(2, 125)},
                ValueError,
                "output must have S S (K + 5 B) numbers per image for S = 3, B = 2 and K classes, got 125",
            ),
            Bad(
                {"boxes": 3},
                ValueError,
                "output must have S S (K + 5 B) numbers per image for S = 3, B = 3 and K classes, got 126",
            ),
        ),
        empty=(
            Empty({"output": zeros(0, 126)}, [(0, 8, 4), (0, 8), (0, 8), (0,)]),
            Empty({"max_output": 0}, [(2, 0, 4), (2, 0), (2, 0), (2,)]),
        ),
    ),
]
