"""Deformable convolution."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform

from fastcv.ops import deform_conv2d

FLOATING = "must be float16, bfloat16, float32 or float64"
OFFSETS, MASKS = "(N, 2 * offset groups * kH * kW, H', W')", "(N, offset groups * kH * kW, H', W')"
PAIR = "an int or two ints (height, width)"
zeros = torch.zeros


def doubles(*shape: int) -> torch.Tensor:
    return zeros(shape, dtype=torch.float64)


def sample(seed: int) -> dict[str, Any]:
    """Two groups, two offset groups. No place lies so near to a pixel that finite differences reach the next."""
    whole = uniform(seed + 3, 2, 24, 3, 7, low=-2, high=3).floor()
    return {
        "input": uniform(seed, 2, 4, 5, 6, low=-1),
        "offset": whole + uniform(seed + 4, 2, 24, 3, 7, low=0.1, high=0.9),
        "weight": uniform(seed + 1, 6, 2, 3, 2, low=-1),
        "bias": uniform(seed + 2, 6, low=-1),
        "stride": (2, 1),
        "padding": 1,
        "dilation": 1,
        "mask": uniform(seed + 5, 2, 12, 3, 7),
    }


def large() -> dict[str, Any]:
    """Several blocks of positions and of channels, and more than one image."""
    return {
        "input": uniform(0, 2, 72, 25, 31, low=-1).float(),
        "offset": uniform(1, 2, 36, 25, 31, low=-3, high=3).float(),
        "weight": uniform(2, 40, 36, 3, 3, low=-1).float(),
        "bias": uniform(3, 40).float(),
        "padding": 1,
        "mask": uniform(4, 2, 18, 25, 31).float(),
    }


def wrong_tensor(name: str, *shape: int) -> tuple[Bad, ...]:
    """What is no companion of the input."""
    return (
        Bad({name: zeros(shape)}, TypeError, f"{name} must have the dtype of input (float64), got float32"),
        Bad(
            {name: zeros(shape, dtype=torch.float64, device="meta")},
            ValueError,
            f"{name} must be on the device of input (cpu), got meta",
        ),
    )


CASES = [
    OpCase(
        deform_conv2d,
        sample,
        large=large,
        differentiable=("input", "offset", "weight", "bias", "mask"),
        order=1,
        bad=(
            Bad({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
            Bad({"offset": None}, TypeError, "offset must be a torch.Tensor, got NoneType"),
            Bad({"weight": 1.0}, TypeError, "weight must be a torch.Tensor, got float"),
            Bad({"mask": 1.0}, TypeError, "mask must be a torch.Tensor, got float"),
            Bad({"input": zeros(4, 5, 6)}, ValueError, "input must have shape (N, C, H, W), got (4, 5, 6)"),
            Bad({"input": zeros(2, 4, 5, 6).int()}, TypeError, f"input {FLOATING}, got int32"),
            Bad({"input": zeros(2, 4, 5, 6, dtype=torch.cfloat)}, TypeError, f"input {FLOATING}, got complex64"),
            *wrong_tensor("offset", 2, 24, 3, 7),
            *wrong_tensor("weight", 6, 2, 3, 2),
            *wrong_tensor("bias", 6),
            *wrong_tensor("mask", 2, 12, 3, 7),
            Bad(
                {"weight": doubles(6, 2, 3)},
                ValueError,
                "weight must have shape (O, C / groups, kH, kW), got (6, 2, 3)",
            ),
            Bad(
                {"weight": doubles(6, 3, 3, 2)},
                ValueError,
                "weight must have C / groups channels, a divisor of C = 4, got shape (6, 3, 3, 2)",
            ),
            Bad(
                {"weight": doubles(6, 0, 3, 2)},
                ValueError,
                "weight must have C / groups channels, a divisor of C = 4, got shape (6, 0, 3, 2)",
            ),
            Bad(
                {"weight": doubles(5, 2, 3, 2)},
                ValueError,
                "weight must have output channels that its 2 groups divide, got shape (5, 2, 3, 2)",
            ),
            Bad(
                {"weight": doubles(6, 2, 0, 2)},
                ValueError,
                "weight must have a kernel of 1 to 2^20 elements, got shape (6, 2, 0, 2)",
            ),
            Bad({"offset": doubles(2, 24, 3)}, ValueError, f"offset must have shape {OFFSETS}, got (2, 24, 3)"),
            *(
                Bad(
                    {"offset": doubles(2, channels, 3, 7)},
                    ValueError,
                    "offset must have 2 * offset groups * kH * kW channels, a multiple of 12 by a divisor of C = 4, "
                    f"got shape (2, {channels}, 3, 7)",
                )
                for channels in (0, 8, 25, 36)
            ),
            Bad(
                {"offset": doubles(2, 24, 3, 6)},
                ValueError,
                f"offset must have shape {OFFSETS} = (2, 24, 3, 7), got (2, 24, 3, 6)",
            ),
            Bad(
                {"offset": doubles(1, 24, 3, 7)},
                ValueError,
                f"offset must have shape {OFFSETS} = (2, 24, 3, 7), got (1, 24, 3, 7)",
            ),
            Bad(
                {"mask": doubles(2, 6, 3, 7)},
                ValueError,
                f"mask must have shape {MASKS} = (2, 12, 3, 7), got (2, 6, 3, 7)",
            ),
            Bad({"bias": doubles(5)}, ValueError, "bias must have shape (O,) = (6), got (5,)"),
            Bad({"stride": 0}, ValueError, "stride must be positive, got 0"),
            Bad({"stride": (1, 2, 3)}, TypeError, f"stride must be {PAIR}, got (1, 2, 3)"),
            Bad({"stride": 1.5}, TypeError, f"stride must be {PAIR}, got 1.5"),
            Bad({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
            Bad({"padding": "same"}, TypeError, f"padding must be {PAIR}, got 'same'"),
            Bad(
                {"padding": 2**40},
                ValueError,
                f"padding must be from 0 to 2^31 - 1 along each axis, got {(2**40, 2**40)}",
            ),
            Bad(
                {"padding": 2**20},
                ValueError,
                "padding and stride must give fewer than 2^31 output positions per image, got (1048578, 2097157)",
            ),
            Bad({"dilation": (1, 0)}, ValueError, "dilation must be positive, got (1, 0)"),
            Bad(
                {"dilation": 4},
                ValueError,
                "input must be at least as large with its padding as the dilated kernel, got shape (2, 4, 5, 6)",
            ),
            Bad(
                {"input": doubles(2, 4, 0, 6)},
                ValueError,
                "input must be at least as large with its padding as the dilated kernel, got shape (2, 4, 0, 6)",
            ),
        ),
        empty=(
            Empty({"input": doubles(0, 4, 5, 6), "offset": doubles(0, 24, 3, 7), "mask": None}, (0, 6, 3, 7)),
            Empty({"weight": doubles(0, 2, 3, 2), "bias": doubles(0)}, (2, 0, 3, 7)),
            Empty({"input": doubles(2, 0, 5, 6), "weight": doubles(6, 0, 3, 2)}, (2, 6, 3, 7)),
            Empty(
                {
                    "input": doubles(2, 4, 0, 6),
                    "padding": (2, 1),
                    "offset": doubles(2, 24, 1, 7),
                    "mask": doubles(2, 12, 1, 7),
                },
                (2, 6, 1, 7),
            ),
        ),
    ),
]
