"""RoI pooling."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import multiscale_roi_align, ps_roi_align, ps_roi_pool, roi_align, roi_align_rotated, roi_pool

SHAPE = (
    "boxes must have shape (K, 5), rows of batch index, x1, y1, x2, y2 (or be a list of (L, 4) tensors, one per image)"
)
ROTATED_SHAPE = (
    "boxes must have shape (K, 6), rows of batch index, cx, cy, w, h, angle "
    "(or be a list of (L, 5) tensors, one per image)"
)
HALF, INT = torch.float16, torch.int32


def boxes(seed: int, count: int = 3, images: int = 2, side: float = 12.0) -> Tensor:
    """Rows of batch index, x1, y1, x2, y2."""
    corner, sides = uniform(seed, count, 2, high=side / 2), uniform(seed + 9, count, 2, low=1, high=side)
    index = torch.arange(count, dtype=torch.float64) % images
    return torch.cat([index[:, None], corner, corner + sides], 1)


def rotated(upright: Tensor) -> Tensor:
    """Rows of batch index, cx, cy, w, h, angle from those of batch index, x1, y1, x2, y2."""
    corner, other = upright[:, 1:3], upright[:, 3:]
    angle = 40.0 * torch.arange(1, len(upright) + 1, dtype=upright.dtype)[:, None]
    return torch.cat([upright[:, :1], (corner + other) / 2, other - corner, angle], 1)


def pooling(function: Any, channels: int, sampling: dict[str, Any], bad: tuple[Bad, ...] = ()) -> OpCase:
    """A case of a function (input, boxes, output_size, ...)."""
    is_rotated = function is roi_align_rotated
    make = rotated if is_rotated else torch.Tensor.clone
    numbers, shape = (5, ROTATED_SHAPE) if is_rotated else (4, SHAPE)

    def sample(seed: int, **sizes: Any) -> dict[str, Any]:
        return {"input": uniform(seed, 2, channels, 7, 9), "boxes": make(boxes(seed)), "output_size": 2, **sampling}

    def large() -> dict[str, Any]:
        input = uniform(0, 2, 4 * channels, 30, 40).float()
        return {**sample(0), "input": input, "boxes": make(boxes(0, 150, side=40)).float()}

    zeros = torch.zeros
    out = channels // 4 if function in (ps_roi_align, ps_roi_pool) else channels
    return OpCase(
        function,
        sample,
        large=large,
        differentiable=("input",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
            Bad(
                {"input": zeros(channels, 8, 8)},
                ValueError,
                f"input must have shape (N, C, H, W), got ({channels}, 8, 8)",
            ),
            Bad(
                {"input": zeros(1, channels, 8, 8, dtype=INT)},
                TypeError,
                "input must be float16, bfloat16, float32 or float64, got int32",
            ),
            Bad(
                {"input": zeros(1, channels, 8, 8, dtype=torch.complex64)},
                TypeError,
                "input must be float16, bfloat16, float32 or float64, got complex64",
            ),
            Bad({"boxes": zeros(3, numbers)}, ValueError, f"{shape}, got (3, {numbers})"),
            Bad({"boxes": zeros(5)}, ValueError, f"{shape}, got (5,)"),
            Bad(
                {"boxes": zeros(1, numbers + 1, dtype=torch.int64)},
                TypeError,
                "boxes must be of a floating dtype not wider than float64, got int64",
            ),
            Bad(
                {"input": zeros(1, channels, 8, 8, dtype=HALF)},
                TypeError,
                "boxes must be of a floating dtype not wider than float32, got float64",
            ),
            Bad(
                {"boxes": "all"},
                TypeError,
                f"boxes must be a (K, {numbers + 1}) tensor or a list of (L, {numbers}) tensors, got str",
            ),
            Bad(
                {"boxes": [zeros(1, numbers)]},
                ValueError,
                "boxes must be one tensor per image: input has 2 images, boxes 1",
            ),
            Bad(
                {"boxes": [zeros(1, numbers + 1)] * 2},
                ValueError,
                f"boxes[0] must have shape (L, {numbers}), got (1, {numbers + 1})",
            ),
            Bad(
                {"boxes": [zeros(1, numbers, dtype=INT)] * 2},
                TypeError,
                "boxes[0] must be of a floating dtype, got torch.int32",
            ),
            Bad(
                {"boxes": zeros(1, numbers + 1, device="meta")},
                ValueError,
                "boxes must be on the device of input (cpu), got meta",
            ),
            Bad({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
            Bad({"output_size": (2, -1)}, ValueError, "output_size must be positive, got (2, -1)"),
            Bad(
                {"output_size": (2, 2, 2)},
                TypeError,
                "output_size must be an int or two ints (height, width), got (2, 2, 2)",
            ),
            Bad({"output_size": 2.5}, TypeError, "output_size must be an int or two ints (height, width), got 2.5"),
            *bad,
        ),
        empty=(
            Empty({"boxes": zeros(0, numbers + 1).double()}, (0, out, 2, 2)),
            Empty({"input": zeros(2, 0, 7, 9).double()}, (3, 0, 2, 2)),
            Empty({"input": zeros(2, channels, 0, 9).double()}, (3, out, 2, 2)),
            Empty({"input": zeros(2, channels, 7, 0).double()}, (3, out, 2, 2)),
            Empty({"input": zeros(0, channels, 7, 9), "boxes": []}, (0, out, 2, 2)),
        ),
    )


TOO_MANY = Bad({"sampling_ratio": 10**6}, ValueError, "sampling_ratio must be at most 65536, got 1000000")
TOO_MANY_ROTATED = Bad({"sampling_ratio": 5000}, ValueError, "sampling_ratio must be at most 4096, got 5000")
NOT_DIVISIBLE = Bad(
    {"input": torch.zeros(2, 7, 7, 9).double()},
    ValueError,
    "input must have channels divisible by the bins of output_size (2, 2), got 7 channels",
)
TOO_LARGE = Bad(
    {"input": torch.zeros(1, 1, 1, 1).double().expand(1, 1, 2**16, 2**16)},
    ValueError,
    "input must have fewer than 2147483648 pixels, got 4294967296",
)
MAPS = [torch.zeros(2, 3, 4, 4).double(), torch.zeros(2, 3, 2, 2).double()]
OPTIONS = {"spatial_scale": 0.5, "sampling_ratio": 2, "aligned": True}
CASES = [
    pooling(roi_align, 3, OPTIONS, (TOO_MANY,)),
    pooling(roi_align_rotated, 3, {"spatial_scale": 0.5, "sampling_ratio": 2}, (TOO_MANY_ROTATED,)),
    pooling(roi_pool, 3, {"spatial_scale": 0.5}, (TOO_LARGE,)),
    pooling(ps_roi_align, 8, {"spatial_scale": 0.5, "sampling_ratio": 2}, (TOO_MANY, NOT_DIVISIBLE)),
    pooling(ps_roi_pool, 8, {"spatial_scale": 0.5}, (NOT_DIVISIBLE,)),
    OpCase(
        multiscale_roi_align,
        lambda seed: {
            "features": [uniform(seed + level, 2, 3, 16 >> level, 12 >> level) for level in range(2)],
            "boxes": boxes(seed, side=400.0),
            "output_size": (2, 3),
            "scales": [1 / 4, 1 / 8],
            "sampling_ratio": 1,
            "aligned": False,
            "canonical_scale": 224.0,
            "canonical_level": 3,
        },
        differentiable=("features",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"features": 3}, TypeError, "features must be a list of tensors, got int"),
            Bad({"features": []}, ValueError, "features must hold 1 to 8 tensors, got 0"),
            Bad({"features": MAPS * 5, "scales": [0.5] * 10}, ValueError, "features must hold 1 to 8 tensors, got 10"),
            Bad({"features": [torch.zeros(1), 3]}, TypeError, "features[1] must be a torch.Tensor, got int"),
            Bad({"scales": [0.5]}, TypeError, "scales must be 2 floats, got [0.5]"),
            Bad({"scales": 0.25}, TypeError, "scales must be 2 floats, got 0.25"),
            Bad({"scales": [0.5, 0.0]}, ValueError, "scales must be positive and finite, got (0.5, 0.0)"),
            Bad(
                {"scales": [0.25, 0.5]},
                ValueError,
                "scales must go from the finest map to the coarsest, got (0.25, 0.5)",
            ),
            Bad({"canonical_scale": 0.0}, ValueError, "canonical_scale must be positive, got 0.0"),
            Bad(
                {"features": [torch.zeros(2, 3, 4, 4).double(), torch.zeros(2, 3, 2, 2)]},
                TypeError,
                "features[1] must have the dtype of features[0] (float64), got float32",
            ),
            Bad(
                {"features": [MAPS[0][0], MAPS[1]]},
                ValueError,
                "features[0] must have shape (N, C, H, W), got (3, 4, 4)",
            ),
            Bad(
                {"features": [MAPS[0], MAPS[1][0]]},
                ValueError,
                "features[1] must have shape (N, C, H, W) = (2, 3, *, *), got (3, 2, 2)",
            ),
            Bad(
                {"features": [MAPS[0], MAPS[1][:, :1]]},
                ValueError,
                "features[1] must have shape (N, C, H, W) = (2, 3, *, *), got (2, 1, 2, 2)",
            ),
            Bad(
                {"features": [MAPS[0].int(), MAPS[1].int()]},
                TypeError,
                "features[0] must be float16, bfloat16, float32 or float64, got int32",
            ),
            Bad({"boxes": torch.zeros(3, 4)}, ValueError, f"{SHAPE}, got (3, 4)"),
            Bad({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
            TOO_MANY,
        ),
        empty=(
            Empty({"features": [level[:0] for level in MAPS], "boxes": []}, (0, 3, 2, 3)),
            Empty(
                {"features": [torch.zeros(2, 3, 0, 4), torch.zeros(2, 3, 0, 0)], "boxes": torch.zeros(2, 5)},
                (2, 3, 2, 3),
            ),
            Empty({"boxes": torch.zeros(0, 5).double()}, (0, 3, 2, 3)),
        ),
    ),
]
