"""Transposed convolution."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform

from fastcv.ops import conv_transpose1d, conv_transpose2d, conv_transpose3d, conv_transpose_matrix

FLOATING = "must be float16, bfloat16, float32 or float64"
zeros = torch.zeros


def centred(seed: int, *shape: int) -> torch.Tensor:
    """Of both signs, so that a ReLU has something to do."""
    return uniform(seed, *shape, low=-1)


def convolution(function: Any, dims: int, large: dict[str, Any]) -> OpCase:
    """A case of one of the three; its sample has 4 channels in 2 groups."""
    axes = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}[dims]
    sizes, kernel = (3, 4, 2)[:dims], (2, 3, 2)[:dims]
    tuples = {1: "an int", 2: "an int or two ints", 3: "an int or three ints"}[dims]

    def many(value: int) -> tuple[int, ...]:
        return (value,) * dims

    def sample(seed: int) -> dict[str, Any]:
        return {
            "input": centred(seed, 2, 4, *sizes),
            "weight": centred(seed + 1, 4, 1, *kernel),
            "bias": centred(seed + 2, 2),
            "stride": 2,
            "padding": 1,
            "output_padding": 1,
            "groups": 2,
            "dilation": 1,
            "activation": "relu",
        }

    output = tuple((n - 1) * 2 - 2 + k + 1 for n, k in zip(sizes, kernel, strict=True))
    wrong_shapes = tuple(
        Bad({"input": zeros(shape)}, ValueError, f"input must have shape {axes}, with or without N, got {shape}")
        for shape in ((1,) * dims, (1,) * (dims + 3))
    )
    stretched = (2, *((n - 1) * 2 + (k - 1) * 2 + 2 for n, k in zip(sizes[1:], kernel[1:], strict=True)))
    one_less = (4, 1, *kernel[1:])
    return OpCase(
        function,
        sample,
        large=lambda: large,
        differentiable=("input", "weight", "bias"),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"input": [1.0]}, TypeError, "input must be a torch.Tensor, got list"),
            Bad({"weight": None}, TypeError, "weight must be a torch.Tensor, got NoneType"),
            Bad({"bias": 1.0}, TypeError, "bias must be a torch.Tensor, got float"),
            *wrong_shapes,
            Bad({"input": zeros(2, 4, *sizes, dtype=torch.int32)}, TypeError, f"input {FLOATING}, got int32"),
            Bad({"input": zeros(2, 4, *sizes, dtype=torch.cfloat)}, TypeError, f"input {FLOATING}, got complex64"),
            Bad(
                {"weight": zeros(4, 1, *kernel)},
                TypeError,
                "weight must have the dtype of input (float64), got float32",
            ),
            Bad(
                {"weight": zeros(one_less).double()},
                ValueError,
                f"weight must have shape (C, O / groups, *kernel size), {dims + 2} axes, got {one_less}",
            ),
            Bad(
                {"weight": zeros(5, 1, *kernel).double()},
                ValueError,
                f"weight must have one row per channel of input (4), got shape {(5, 1, *kernel)}",
            ),
            Bad(
                {"weight": zeros(4, 1, *many(0)).double()},
                ValueError,
                f"weight must have a kernel of 1 to 2^31 - 1 elements along each axis, got {many(0)}",
            ),
            Bad(
                {"weight": zeros(4, 1, *kernel, device="meta").double()},
                ValueError,
                "weight must be on the device of input (cpu), got meta",
            ),
            Bad({"bias": zeros(3).double()}, ValueError, "bias must have shape (O,) = (2), got (3,)"),
            Bad({"bias": zeros(2)}, TypeError, "bias must have the dtype of input (float64), got float32"),
            Bad(
                {"bias": zeros(2, device="meta").double()},
                ValueError,
                "bias must be on the device of input (cpu), got meta",
            ),
            Bad({"groups": 3}, ValueError, "groups must be positive and divide the 4 channels of input, got 3"),
            Bad({"groups": 0}, ValueError, "groups must be positive and divide the 4 channels of input, got 0"),
            Bad({"stride": 0}, ValueError, "stride must be positive, got 0"),
            Bad({"stride": (1, 2, 3, 4)}, TypeError, f"stride must be {tuples}, got (1, 2, 3, 4)"),
            Bad({"stride": 2**40}, ValueError, f"stride must be from 1 to 2^31 - 1 along each axis, got {many(2**40)}"),
            Bad({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
            Bad({"padding": "same"}, TypeError, f"padding must be {tuples}, got 'same'"),
            Bad(
                {"padding": 9},
                ValueError,
                f"padding must leave an output of at least one element along each axis, got {many(9)}: an output of "
                f"size {tuple(n - 16 for n in output)}",
            ),
            Bad({"dilation": 0}, ValueError, "dilation must be positive, got 0"),
            Bad(
                {"output_padding": 2},
                ValueError,
                f"output_padding must be smaller than stride {many(2)} or dilation {many(1)} along each axis, got "
                f"{many(2)}",
            ),
            Bad({"output_padding": -1}, ValueError, "output_padding must be at least 0, got -1"),
            Bad(
                {"stride": 2**31 - 1},
                ValueError,
                "stride and dilation must give an output of at most 2^31 - 1 elements along each axis, got "
                f"{tuple((n - 1) * (2**31 - 1) + k - 1 for n, k in zip(sizes, kernel, strict=True))}",
            ),
            Bad({"activation": "tanh"}, ValueError, "activation must be None or 'relu', got 'tanh'"),
        ),
        empty=(
            Empty({"input": zeros(0, 4, *sizes).double()}, (0, 2, *output)),
            Empty({"input": zeros(2, 4, 0, *sizes[1:]).double(), "padding": 0, "dilation": 2}, (2, 2, *stretched)),
            Empty(
                {"input": zeros(2, 0, *sizes).double(), "weight": zeros(0, 1, *kernel).double()},
                (2, 2, *output),
            ),
            Empty({"weight": zeros(4, 0, *kernel).double(), "bias": None}, (2, 0, *output)),
        ),
    )


def large(*shapes: tuple[int, ...], **options: Any) -> dict[str, Any]:
    """Input, weight and bias in float32."""
    tensors = (centred(seed, *shape).float() for seed, shape in enumerate(shapes))
    return {**dict(zip(("input", "weight", "bias"), tensors, strict=True)), **options}


CASES = [
    convolution(conv_transpose1d, 1, large((3, 40, 300), (40, 24, 3), (24,), stride=2, activation="relu")),
    convolution(conv_transpose2d, 2, large((4, 3, 120, 120), (3, 1, 2, 2), (1,), stride=2)),
    convolution(conv_transpose3d, 3, large((2, 8, 6, 7, 9), (8, 5, 2, 3, 3), (5,), stride=2, padding=1)),
    OpCase(
        conv_transpose_matrix,
        lambda seed: {"weight": centred(seed, 4), "stride": 2, "padding": 1, "n": 3},
        large=lambda: {"weight": centred(0, 70).float(), "stride": 3, "padding": 2, "n": 500},
        differentiable=("weight",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"weight": [1.0]}, TypeError, "weight must be a torch.Tensor, got list"),
            Bad({"weight": zeros(2, 2)}, ValueError, "weight must have shape (k,), got (2, 2)"),
            Bad({"weight": zeros(0)}, ValueError, "weight must have shape (k,), got (0,)"),
            Bad({"weight": zeros(2, dtype=torch.cfloat)}, TypeError, "weight must be of a real dtype, got complex64"),
            Bad({"n": 2**31}, ValueError, "n and stride must give fewer than 2^31 rows, got 2147483648 and 2"),
            Bad(
                {"padding": 5},
                ValueError,
                "padding must leave an output of at least one element, got 5: -2 rows",
            ),
            Bad({"stride": 0}, ValueError, "stride must be positive, got 0"),
            Bad({"n": 0}, ValueError, "n must be positive, got 0"),
        ),
    ),
]
