"""Convolution for inference."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform

from fastcv.ops import conv2d

FLOATING = "must be float16, bfloat16, float32 or float64"
zeros = torch.zeros


def sample(seed: int) -> dict[str, Any]:
    """Four channels in two groups."""
    return {
        "input": uniform(seed, 2, 4, 5, 6, low=-1),
        "weight": uniform(seed + 1, 6, 2, 3, 2, low=-1),
        "bias": uniform(seed + 2, 6, low=-1),
        "stride": 2,
        "padding": 1,
        "dilation": 1,
        "groups": 2,
        "residual": uniform(seed + 3, 2, 6, 3, 4, low=-1),
        "activation": "leaky_relu",
        "negative_slope": 0.1,
        "exact": False,
    }


def large() -> dict[str, Any]:
    """Winograd, with the last tiles and channels cut off."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator) for shape in ((2, 35, 37, 41), (70, 35, 3, 3), (70,))]
    names = ("input", "weight", "bias")
    return {**dict(zip(names, tensors, strict=True)), "padding": 1, "activation": "silu"}


CASES = [
    OpCase(
        conv2d,
        sample,
        large=large,
        bad=(
            Bad({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
            Bad({"weight": None}, TypeError, "weight must be a torch.Tensor, got NoneType"),
            Bad({"bias": 1.0}, TypeError, "bias must be a torch.Tensor, got float"),
            Bad({"residual": 1.0}, TypeError, "residual must be a torch.Tensor, got float"),
            *(
                Bad({"input": zeros(s)}, ValueError, f"input must have shape (N, C, H, W), with or without N, got {s}")
                for s in ((4, 5), (1, 2, 4, 5, 6))
            ),
            Bad({"input": zeros(2, 4, 5, 6).int()}, TypeError, f"input {FLOATING}, got int32"),
            Bad({"weight": zeros(6, 2, 3, 2)}, TypeError, "weight must have the dtype of input (float64), got float32"),
            Bad(
                {"weight": zeros(6, 2, 3, 2, device="meta").double()},
                ValueError,
                "weight must be on the device of input (cpu), got meta",
            ),
            Bad(
                {"weight": zeros(6, 2, 3).double()},
                ValueError,
                "weight must have shape (O, C / groups, kH, kW), 4 axes, got (6, 2, 3)",
            ),
            Bad(
                {"weight": zeros(6, 4, 3, 2).double()},
                ValueError,
                "weight must have the channels of one group of input (2), got shape (6, 4, 3, 2)",
            ),
            Bad(
                {"weight": zeros(6, 2, 0, 2).double()},
                ValueError,
                "weight must have a kernel of 1 to 2^31 - 1 elements along each axis, got (0, 2)",
            ),
            Bad({"bias": zeros(3).double()}, ValueError, "bias must have shape (O,) = (6), got (3,)"),
            Bad({"bias": zeros(6)}, TypeError, "bias must have the dtype of input (float64), got float32"),
            Bad(
                {"bias": zeros(6, device="meta").double()},
                ValueError,
                "bias must be on the device of input (cpu), got meta",
            ),
            Bad(
                {"residual": zeros(2, 6, 3, 3).double()},
                ValueError,
                "residual must have shape (N, O, H', W') = (2, 6, 3, 4), got (2, 6, 3, 3)",
            ),
            Bad(
                {"residual": zeros(2, 6, 3, 4)},
                TypeError,
                "residual must have the dtype of input (float64), got float32",
            ),
            *(
                Bad(
                    {"groups": groups},
                    ValueError,
                    f"groups must be positive and divide the 4 channels of input and the 6 of weight, got {groups}",
                )
                for groups in (0, 3, 4)
            ),
            Bad({"stride": 0}, ValueError, "stride must be positive, got 0"),
            Bad({"stride": (1, 2, 3)}, TypeError, "stride must be an int or two ints, got (1, 2, 3)"),
            Bad(
                {"stride": 2**40}, ValueError, f"stride must be from 1 to 2^31 - 1 along each axis, got {(2**40,) * 2}"
            ),
            Bad({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
            Bad(
                {"padding": "same"},
                ValueError,
                "padding must be numbers where stride is not 1, got 'same' and stride (2, 2)",
            ),
            Bad(
                {"padding": "full"},
                ValueError,
                "padding must be 'same', 'valid', an int or two ints, got 'full'",
            ),
            Bad({"dilation": 0}, ValueError, "dilation must be positive, got 0"),
            Bad(
                {"dilation": 9},
                ValueError,
                "input and padding must leave an output of at least one pixel along each axis, got an input of size "
                "(5, 6), padding (1, 1, 1, 1), dilation (9, 9) and a kernel of size (3, 2)",
            ),
            Bad(
                {"activation": "gelu"},
                ValueError,
                "activation must be None, 'relu', 'leaky_relu' or 'silu', got 'gelu'",
            ),
            Bad({"activation": 3}, TypeError, "activation must be None or a str, got int"),
        ),
        empty=(
            Empty({"input": zeros(0, 4, 5, 6).double(), "residual": None}, (0, 6, 3, 4)),
            Empty({"weight": zeros(0, 2, 3, 2).double(), "bias": zeros(0).double(), "residual": None}, (2, 0, 3, 4)),
        ),
    )
]
