"""Pooling that remembers places, and what makes maps larger."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import (
    max_pool2d_with_indices,
    max_unpool2d,
    unpool_bed_of_nails,
    unpool_nearest,
    upsample_bilinear2d,
)

FLOATING = "must be float16, bfloat16, float32 or float64"
NAN, INF = float("nan"), float("inf")
zeros = torch.zeros


def bad_inputs(shape: str) -> tuple[Bad, ...]:
    """What no function of this family takes for its input."""
    return (
        Bad({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
        Bad({"input": zeros(8, 8)}, ValueError, f"input must have shape {shape}, got (8, 8)"),
        Bad({"input": zeros(1, 2, 8, 8, dtype=torch.int32)}, TypeError, f"input {FLOATING}, got int32"),
        Bad({"input": zeros(1, 2, 8, 8, dtype=torch.complex64)}, TypeError, f"input {FLOATING}, got complex64"),
    )


def unpooling(function: Any) -> OpCase:
    """A case of a function (input, scale)."""
    return OpCase(
        function,
        lambda seed: {"input": uniform(seed, 2, 3, 3, 4), "scale": (2, 3)},
        large=lambda: {"input": uniform(0, 4, 7, 60, 90).float(), "scale": 3},
        differentiable=("input",),
        order=2,
        forward_mode=True,
        bad=(
            *bad_inputs("(N, C, H, W)"),
            Bad({"input": zeros(2, 8, 8)}, ValueError, "input must have shape (N, C, H, W), got (2, 8, 8)"),
            Bad({"scale": 0}, ValueError, "scale must be positive, got 0"),
            Bad({"scale": (2, -1)}, ValueError, "scale must be positive, got (2, -1)"),
            Bad({"scale": 1.5}, TypeError, "scale must be an int or two ints (height, width), got 1.5"),
            Bad({"scale": (2, 2, 2)}, TypeError, "scale must be an int or two ints (height, width), got (2, 2, 2)"),
            Bad(
                {"scale": (1, 2**40)},
                ValueError,
                "scale must be positive and less than 2^31, got (1, 1099511627776)",
            ),
            Bad({"scale": 2**70}, ValueError, "scale must be an int of 64 bits, got 1180591620717411303424"),
            Bad({"scale": 2**30}, ValueError, "output must have fewer than 2147483648 rows, got 19327352832"),
            Bad(
                {"scale": (1, 2**30)},
                ValueError,
                "output must have fewer than 2147483648 elements a row, got 4294967296",
            ),
        ),
        empty=tuple(
            Empty({"input": zeros(*shape).double()}, (shape[0], shape[1], 2 * shape[2], 3 * shape[3]))
            for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (1, 3, 0, 4), (1, 3, 4, 0), (0, 0, 0, 0))
        ),
    )


def places(seed: int, *shape: int, pixels: int) -> Tensor:
    """Indices into a plane, none twice."""
    rows = [torch.randperm(pixels, generator=torch.Generator().manual_seed(seed)) for _ in range(shape[0] * shape[1])]
    return torch.stack([row[: shape[2] * shape[3]] for row in rows]).reshape(shape)


def pool_sample(seed: int) -> dict[str, Any]:
    """The arguments of max_pool2d_with_indices; no value twice, so that the largest stays when one changes a little."""
    values = torch.randperm(2 * 3 * 6 * 7, generator=torch.Generator().manual_seed(seed)).double() / 252
    window = {"kernel_size": 3, "stride": (2, 1), "padding": 1, "dilation": (1, 2), "ceil_mode": True}
    return {"input": values.reshape(2, 3, 6, 7), **window}


PADDING = "padding must be at most half of kernel_size (3, 3), got"
WINDOW = "input must be larger than a window of kernel_size"
CASES = [
    unpooling(unpool_nearest),
    unpooling(unpool_bed_of_nails),
    OpCase(
        max_pool2d_with_indices,
        pool_sample,
        large=lambda: {
            "input": uniform(0, 3, 37, 60, 61).float(),
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
        },
        differentiable=("input",),
        order=2,
        forward_mode=True,
        bad=(
            *bad_inputs("(N, C, H, W) or (C, H, W)"),
            Bad(
                {"input": zeros(1, 2, 0, 8)},
                ValueError,
                f"{WINDOW} (3, 3), padding (1, 1) and dilation (1, 2), got shape (1, 2, 0, 8)",
            ),
            Bad(
                {"kernel_size": 9},
                ValueError,
                f"{WINDOW} (9, 9), padding (1, 1) and dilation (1, 2), got shape (2, 3, 6, 7)",
            ),
            Bad({"kernel_size": 0}, ValueError, "kernel_size must be positive, got 0"),
            Bad({"kernel_size": 2.0}, TypeError, "kernel_size must be an int or two ints (height, width), got 2.0"),
            Bad({"stride": (1, 0)}, ValueError, "stride must be positive, got (1, 0)"),
            Bad({"stride": 2**31}, ValueError, "stride must be from 1 to 2^30, got (2147483648, 2147483648)"),
            Bad({"padding": 2}, ValueError, f"{PADDING} (2, 2)"),
            Bad({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
            Bad({"padding": (1, 1, 1)}, TypeError, "padding must be an int or two ints (height, width), got (1, 1, 1)"),
            Bad({"dilation": -1}, ValueError, "dilation must be positive, got -1"),
            Bad(
                {"dilation": 2**30},
                ValueError,
                "kernel_size and dilation must span at most 2^30 pixels, got (3, 3) and (1073741824, 1073741824)",
            ),
        ),
        empty=(
            Empty({"input": zeros(0, 3, 4, 5).double()}, [(0, 3, 3, 3)] * 2),
            Empty({"input": zeros(2, 0, 4, 5).double()}, [(2, 0, 3, 3)] * 2),
        ),
    ),
    OpCase(
        max_unpool2d,
        lambda seed: {
            "values": uniform(seed, 2, 3, 3, 4),
            "indices": places(seed, 2, 3, 3, 4, pixels=48),
            "kernel_size": 2,
            "stride": (2, 2),
            "padding": 0,
        },
        large=lambda: {
            "values": uniform(0, 3, 37, 30, 31).float(),
            "indices": places(0, 3, 37, 30, 31, pixels=60 * 62),
            "kernel_size": 2,
        },
        differentiable=("values",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"values": None}, TypeError, "values must be a torch.Tensor, got NoneType"),
            Bad({"indices": 3}, TypeError, "indices must be a torch.Tensor, got int"),
            Bad({"values": zeros(4, 4)}, ValueError, "values must have shape (N, C, P, Q) or (C, P, Q), got (4, 4)"),
            Bad({"values": zeros(2, 3, 3, 4).int()}, TypeError, f"values {FLOATING}, got int32"),
            Bad(
                {"indices": zeros(2, 3, 3, 3).long()},
                ValueError,
                "indices must have shape (N, C, P, Q) = (2, 3, 3, 4), got (2, 3, 3, 3)",
            ),
            Bad(
                {"indices": zeros(3, 3, 4).long()},
                ValueError,
                "indices must have shape (N, C, P, Q) = (2, 3, 3, 4), got (3, 3, 4)",
            ),
            Bad({"indices": zeros(2, 3, 3, 4).int()}, TypeError, "indices must be int64, got int32"),
            Bad(
                {"indices": zeros(2, 3, 3, 4, dtype=torch.int64, device="meta")},
                ValueError,
                "indices must be on the device of values (cpu), got meta",
            ),
            Bad(
                {"indices": torch.full((2, 3, 3, 4), 48)},
                ValueError,
                "indices must lie in [0, 48), the pixels of a 6 x 8 output, got 48",
                in_traces=False,
            ),
            Bad({"kernel_size": 0}, ValueError, "kernel_size must be positive, got 0"),
            Bad({"padding": 9}, ValueError, "padding must leave a result, got 9: a size of (-12, -10)"),
            Bad({"output_size": (8,)}, ValueError, "output_size must end in a height and a width, got (8,)"),
            Bad({"output_size": 8}, ValueError, "output_size must end in a height and a width, got 8"),
            Bad(
                {"output_size": (6.5, 8)},
                TypeError,
                "output_size must be an int or two ints (height, width), got (6.5, 8)",
            ),
            Bad(
                {"output_size": (6, 10)},
                ValueError,
                "output_size must be less than a stride (2, 2) away from (6, 8), got (6, 10)",
            ),
        ),
        empty=(
            Empty({"values": zeros(0, 3, 3, 4), "indices": zeros(0, 3, 3, 4).long()}, (0, 3, 6, 8)),
            Empty({"values": zeros(2, 0, 3, 4), "indices": zeros(2, 0, 3, 4).long()}, (2, 0, 6, 8)),
            Empty(
                {"values": zeros(1, 2, 0, 3), "indices": zeros(1, 2, 0, 3).long(), "output_size": (1, 6)},
                (1, 2, 1, 6),
            ),
        ),
    ),
    OpCase(
        upsample_bilinear2d,
        lambda seed: {"input": uniform(seed, 2, 3, 3, 4), "output_size": (5, 7), "align_corners": seed % 2 > 0},
        large=lambda: {"input": uniform(0, 3, 17, 30, 45).float(), "output_size": (77, 100)},
        differentiable=("input",),
        order=2,
        forward_mode=True,
        bad=(
            *bad_inputs("(N, C, H, W)"),
            Bad({"input": zeros(1, 2, 0, 8)}, ValueError, "input must have pixels, got (1, 2, 0, 8)"),
            Bad({"output_size": 0}, ValueError, "output_size must be positive, got 0"),
            Bad({"output_size": 2.5}, TypeError, "output_size must be an int or two ints (height, width), got 2.5"),
            Bad({"output_size": 2**40}, ValueError, "output must have fewer than 2147483648 rows, got 6597069766656"),
            Bad(
                {"output_size": None},
                ValueError,
                "one of output_size and scale_factor must be given, got output_size None and scale_factor None",
            ),
            Bad(
                {"scale_factor": 2},
                ValueError,
                "one of output_size and scale_factor must be given, got output_size (5, 7) and scale_factor 2",
            ),
            *(
                Bad(
                    {"output_size": None, "scale_factor": factor},
                    ValueError,
                    f"scale_factor must be positive and finite, got {factor!r}",
                )
                for factor in (0.0, NAN, INF, -1, (2.0, 0.0))
            ),
            *(
                Bad(
                    {"output_size": None, "scale_factor": factor},
                    TypeError,
                    f"scale_factor must be a number or two numbers (height, width), got {factor!r}",
                )
                for factor in ("2", (1, 2, 3), (2.0, None))
            ),
            *(
                Bad(
                    {"output_size": None, "scale_factor": factor},
                    ValueError,
                    f"scale_factor must leave a size from 1 to 2^63 of an input of shape (2, 3, 3, 4), got {factor!r}",
                )
                for factor in (0.1, 1e300)
            ),
            Bad(
                {"input": zeros(8, 8), "output_size": None, "scale_factor": 2},
                ValueError,
                "input must have shape (N, C, H, W), got (8, 8)",
            ),
        ),
        empty=(
            Empty({"input": zeros(0, 3, 4, 4)}, (0, 3, 5, 7)),
            Empty({"input": zeros(2, 0, 4, 4)}, (2, 0, 5, 7)),
        ),
    ),
]
