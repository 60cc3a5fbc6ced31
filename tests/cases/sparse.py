"""Sparse convolution and pooling."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import (
    sparse_avg_pool,
    sparse_conv,
    sparse_kernel_map,
    sparse_max_pool,
    sparse_reverse_map,
    sparse_row_order,
)

INT = torch.int32
FLOATING = "must be float16, bfloat16, float32 or float64"
TRIPLE = "must be an int or three ints (z, y, x)"
SHAPE = (4, 5, 6)


def sites(seed: int, count: int = 12, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Distinct sites (count, 4) of two grids, in any order."""
    cells = torch.randperm(2 * shape[0] * shape[1] * shape[2], generator=torch.Generator().manual_seed(seed))[:count]
    parts = []
    for size in reversed(shape):
        parts.append(cells % size)
        cells = cells // size
    return torch.stack([cells, *reversed(parts)], 1).int()


def links(seed: int, volume: int, rows: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A map (K, M) and its reverse (K, N); no two sites are linked twice if there are K outputs or more."""
    neighbours = torch.full((volume, outputs), -1, dtype=INT)
    reverse = torch.full((volume, rows), -1, dtype=INT)
    row = torch.arange(min(rows, outputs), dtype=INT)
    for k in range(volume):
        output = (row + k + seed) % outputs
        linked = (row + k) % 3 != 0
        neighbours[k, output.long()] = torch.where(linked, row, -1)
        reverse[k, : len(row)] = torch.where(linked, output, -1)
    return neighbours, reverse


# ---- the kernel map --------------------------------------------------------------------------------------------------

BAD_SITES = [
    Bad({"indices": [[0, 0, 0, 0]]}, TypeError, "indices must be a torch.Tensor, got list"),
    Bad({"indices": sites(0).long()}, TypeError, "indices must be int32, got int64"),
    Bad({"indices": sites(0)[:, :3]}, ValueError, "indices must have shape (N, 4), got (12, 3)"),
    Bad({"indices": sites(0)[0]}, ValueError, "indices must have shape (N, 4), got (4,)"),
    *(
        Bad(
            {"indices": torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], site], dtype=INT)},
            ValueError,
            f"indices must be at least 0 and below (2, 4, 5, 6), got {tuple(site)} in row 2",
            in_traces=False,
        )
        for site in (
            [2, 0, 0, 0],
            [-1, 0, 0, 0],
            [0, 4, 0, 0],
            [0, 0, -3, 0],
            [0, 0, 5, 0],
            [0, 0, 0, 6],
            [0, 0, 0, -(2**31)],
        )
    ),
    Bad(
        {"indices": torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [0, 1, 1, 1], [1, 2, 3, 4]], dtype=INT)},
        ValueError,
        "indices must have each site once, got (1, 2, 3, 4) in rows 1 and 3",
        in_traces=False,
    ),
    Bad({"batch_size": -1}, ValueError, "batch_size must be in [0, 2^31), got -1"),
    Bad({"batch_size": 2**31}, ValueError, "batch_size must be in [0, 2^31), got 2147483648"),
    Bad({"spatial_shape": (4, 5)}, TypeError, f"spatial_shape {TRIPLE}, got (4, 5)"),
    Bad({"spatial_shape": (4, 5, -6)}, ValueError, "spatial_shape must be at least 0, got (4, 5, -6)"),
    Bad(
        {"spatial_shape": (4, 5, 2**31)}, ValueError, "spatial_shape must be at most 2147483647, got (4, 5, 2147483648)"
    ),
    Bad(
        {"spatial_shape": (2**30, 2**30, 8)},
        ValueError,
        "spatial_shape must have coordinates that fit 62 bits with batch_size 2, got (1073741824, 1073741824, 8)",
    ),
    Bad({"kernel_size": 0}, ValueError, "kernel_size must be positive, got (0, 0, 0)"),
    Bad({"kernel_size": "3"}, TypeError, f"kernel_size {TRIPLE}, got '3'"),
    Bad({"kernel_size": 2.5}, TypeError, f"kernel_size {TRIPLE}, got 2.5"),
    Bad({"kernel_size": 33}, ValueError, "kernel_size must have at most 32768 elements, got (33, 33, 33)"),
    Bad({"stride": 0}, ValueError, "stride must be positive, got (0, 0, 0)"),
    Bad({"stride": (1, 1, 2**40)}, ValueError, "stride must be at most 1073741824, got (1, 1, 1099511627776)"),
    Bad({"padding": -1}, ValueError, "padding must be at least 0, got (-1, -1, -1)"),
    Bad({"dilation": (1, 0, 1)}, ValueError, "dilation must be positive, got (1, 0, 1)"),
    Bad(
        {"dilation": (1, 2**29, 1), "kernel_size": 3},
        ValueError,
        "dilation must be at most 2^30 when multiplied by kernel_size, got (1, 536870912, 1)",
    ),
    Bad({"output_padding": -1}, ValueError, "output_padding must be at least 0, got (-1, -1, -1)"),
    Bad({"subm": True, "transposed": True}, ValueError, "transposed must be False where subm is True, got True"),
]
STRIDED = {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 1, "output_padding": 0, "transposed": False}
NO_SITES = {"indices": torch.zeros(0, 4, dtype=INT)}


def map_case(subm: bool, bad: tuple[Bad, ...], empty: tuple[Empty, ...]) -> OpCase:
    """A case of sparse_kernel_map."""

    def sample(seed: int) -> dict[str, Any]:
        return {"indices": sites(seed), "spatial_shape": SHAPE, "batch_size": 2, **STRIDED, "subm": subm}

    def large() -> dict[str, Any]:
        return {**sample(0), "indices": sites(0, 20000, (8, 60, 200)), "spatial_shape": (8, 60, 200)}

    return OpCase(
        sparse_kernel_map,
        sample,
        bad=(*BAD_SITES, *bad),
        empty=empty,
        large=large,
        size_depends_on_data=not subm,
    )


# ---- convolution -----------------------------------------------------------------------------------------------------


def convolution(seed: int, rows: int = 6, outputs: int = 5, channels: tuple[int, int] = (4, 6)) -> dict[str, Any]:
    """The arguments of sparse_conv, with two groups."""
    neighbours, reverse = links(seed, 6, rows, outputs)
    return {
        "features": uniform(seed, rows, channels[0]),
        "weight": uniform(seed + 1, channels[1], 1, 2, 3, channels[0] // 2, low=-1),
        "bias": uniform(seed + 2, channels[1]),
        "neighbours": neighbours,
        "reverse": reverse,
        "groups": 2,
        "order": torch.arange(outputs, dtype=INT).flip(0),
        "reverse_order": torch.arange(rows, dtype=INT).flip(0),
    }


def large_convolution() -> dict[str, Any]:
    """More rows than one piece has."""
    arguments = convolution(0, 9000, 9100, (8, 12))
    return {name: a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for name, a in arguments.items()}


WEIGHT = "weight must have shape (C_out, kz, ky, kx, C_in / groups)"
BAD_CONVOLUTION = (
    Bad({"features": [1.0]}, TypeError, "features must be a torch.Tensor, got list"),
    Bad({"features": torch.zeros(6).double()}, ValueError, "features must have shape (N, C_in), got (6,)"),
    Bad({"features": torch.zeros(6, 4, dtype=INT)}, TypeError, f"features {FLOATING}, got int32"),
    Bad({"features": torch.zeros(6, 2).double()}, ValueError, f"{WEIGHT} = (*, *, *, *, 1), got (6, 1, 2, 3, 2)"),
    Bad({"features": torch.zeros(5, 4).double()}, ValueError, "reverse must have shape (K, N) = (6, 5), got (6, 6)"),
    Bad({"weight": None}, TypeError, "weight must be a torch.Tensor, got NoneType"),
    Bad(
        {"weight": torch.zeros(6, 1, 2, 3, 2)},
        TypeError,
        "weight must have the dtype of features (float64), got float32",
    ),
    Bad(
        {"weight": torch.zeros(6, 1, 1, 3, 2).double()},
        ValueError,
        "weight must have as many kernel elements as neighbours has rows (6), got 3",
    ),
    Bad({"weight": torch.zeros(1, 2, 3, 2).double()}, ValueError, f"{WEIGHT} = (*, *, *, *, 2), got (1, 2, 3, 2)"),
    Bad(
        {"weight": torch.zeros(5, 1, 2, 3, 2).double()},
        ValueError,
        "groups must divide the output channels of weight (5), got 2",
    ),
    Bad({"bias": torch.zeros(4).double()}, ValueError, "bias must have shape (C_out,) = (6), got (4,)"),
    Bad({"bias": [1.0]}, TypeError, "bias must be a torch.Tensor, got list"),
    Bad({"neighbours": torch.zeros(6, 5).long()}, TypeError, "neighbours must be int32, got int64"),
    Bad({"neighbours": torch.zeros(5, dtype=INT)}, ValueError, "neighbours must have shape (K, M), got (5,)"),
    Bad(
        {"neighbours": torch.zeros(5, 5, dtype=INT)},
        ValueError,
        "reverse must have shape (K, N) = (5, 6), got (6, 6)",
    ),
    Bad(
        {"neighbours": torch.zeros(0, 5, dtype=INT), "reverse": torch.zeros(0, 6, dtype=INT)},
        ValueError,
        "neighbours must have a row for each kernel element, one at least, got (0, 5)",
    ),
    Bad({"reverse": torch.zeros(6, 6).long()}, TypeError, "reverse must be int32, got int64"),
    Bad({"reverse": torch.zeros(6, 5, dtype=INT)}, ValueError, "reverse must have shape (K, N) = (6, 6), got (6, 5)"),
    Bad(
        {"reverse": None},
        TypeError,
        "reverse must be a torch.Tensor where neighbours cannot be its own mirror image, got None",
    ),
    Bad({"groups": 3}, ValueError, "groups must be positive and divide the channels of features (4), got 3"),
    Bad({"groups": 0}, ValueError, "groups must be positive and divide the channels of features (4), got 0"),
    Bad({"groups": -2}, ValueError, "groups must be positive and divide the channels of features (4), got -2"),
    Bad({"order": [1]}, TypeError, "order must be a torch.Tensor, got list"),
    Bad({"order": torch.zeros(6, dtype=INT)}, ValueError, "order must have shape (M,) = (5), got (6,)"),
    Bad({"order": torch.zeros(5).long()}, TypeError, "order must be int32, got int64"),
    Bad({"reverse_order": torch.zeros(5, dtype=INT)}, ValueError, "reverse_order must have shape (N,) = (6), got (5,)"),
    Bad({"reverse_order": torch.zeros(6).long()}, TypeError, "reverse_order must be int32, got int64"),
    Bad(
        {"weight": torch.zeros(6, 1, 2, 3, 2, device="meta").double()},
        ValueError,
        "weight must be on the device of features (cpu), got meta",
    ),
)


def no_rows(rows: int, outputs: int, channels: tuple[int, int] = (4, 6)) -> Empty:
    """A convolution from ``rows`` to ``outputs`` sites, none of them linked."""
    return Empty(
        {
            "features": torch.zeros(rows, channels[0]).double(),
            "weight": torch.zeros(channels[1], 1, 2, 3, channels[0] // 2).double(),
            "bias": torch.zeros(channels[1]).double(),
            "neighbours": torch.full((6, outputs), -1, dtype=INT),
            "reverse": torch.full((6, rows), -1, dtype=INT),
            "order": None,
            "reverse_order": None,
        },
        (outputs, channels[1]),
    )


# ---- pooling ---------------------------------------------------------------------------------------------------------


def pooling(function: Any, **options: Any) -> OpCase:
    """A case of a function (features, neighbours, reverse, ...)."""

    def sample(seed: int, rows: int = 7, outputs: int = 6) -> dict[str, Any]:
        neighbours, reverse = links(seed, 5, rows, outputs)
        return {"features": uniform(seed, rows, 3), "neighbours": neighbours, "reverse": reverse, **options}

    def no_pairs(volume: int, rows: int, outputs: int, channels: int) -> Empty:
        maps = (torch.full((volume, count), -1, dtype=INT) for count in (outputs, rows))
        features = torch.zeros(rows, channels).double()
        return Empty(
            dict(zip(("features", "neighbours", "reverse"), (features, *maps), strict=True)), (outputs, channels)
        )

    return OpCase(
        function,
        sample,
        large=lambda: sample(0, 900, 700),
        differentiable=("features",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"features": [1.0]}, TypeError, "features must be a torch.Tensor, got list"),
            Bad({"neighbours": None}, TypeError, "neighbours must be a torch.Tensor, got NoneType"),
            Bad({"features": torch.zeros(7).double()}, ValueError, "features must have shape (N, C), got (7,)"),
            Bad({"features": torch.zeros(7, 3, dtype=INT)}, TypeError, f"features {FLOATING}, got int32"),
            Bad({"neighbours": torch.zeros(6, dtype=INT)}, ValueError, "neighbours must have shape (K, M), got (6,)"),
            Bad({"neighbours": torch.zeros(5, 6)}, TypeError, "neighbours must be int32, got float32"),
            Bad(
                {"reverse": torch.zeros(5, 6, dtype=INT)},
                ValueError,
                "reverse must have shape (K, N) = (*, 7), got (5, 6)",
            ),
            Bad({"reverse": torch.zeros(5, 7)}, TypeError, "reverse must be int32, got float32"),
            Bad(
                {"neighbours": torch.full((5, 6), 7, dtype=INT)},
                ValueError,
                "the kernel map must name rows below 7, but names one beyond",
                in_traces=False,
            ),
        ),
        empty=(no_pairs(5, 0, 6, 3), no_pairs(5, 7, 0, 3), no_pairs(5, 7, 6, 0), no_pairs(0, 7, 6, 3)),
    )


TOO_SMALL = Bad(
    {"kernel_size": (9, 3, 3)},
    ValueError,
    "spatial_shape must leave an output, got (4, 5, 6), whose output would be (0, 3, 3)",
)
CASES = [
    map_case(True, (), (Empty(NO_SITES, [(0, 4), (27, 0), (27, 0)]),)),
    map_case(
        False,
        (TOO_SMALL,),
        (
            Empty(NO_SITES, [(0, 4), (27, 0), (27, 0)]),
            Empty({**NO_SITES, "transposed": True}, [(0, 4), (27, 0), (27, 0)]),
            Empty(  # sites that a stride larger than the kernel passes over
                {
                    "indices": torch.tensor([[0, 1, 1, 1], [0, 3, 3, 3]], dtype=INT),
                    "kernel_size": 1,
                    "padding": 0,
                },
                [(0, 4), (1, 0), (1, 2)],
            ),
        ),
    ),
    OpCase(
        sparse_conv,
        convolution,
        bad=BAD_CONVOLUTION,
        empty=(
            no_rows(0, 0),
            no_rows(0, 5),
            no_rows(6, 0),
            no_rows(6, 5, (0, 6)),
            no_rows(6, 5, (4, 0)),
        ),
        large=large_convolution,
        differentiable=("features", "weight", "bias"),
        order=2,
        forward_mode=True,
    ),
    OpCase(
        sparse_reverse_map,
        lambda seed: {"neighbours": links(seed, 6, 20, 15)[0], "inputs": 20},
        large=lambda: {"neighbours": links(0, 30, 9000, 8000)[0], "inputs": 9000},
        bad=(
            Bad({"neighbours": [1]}, TypeError, "neighbours must be a torch.Tensor, got list"),
            Bad({"neighbours": torch.zeros(3, dtype=INT)}, ValueError, "neighbours must have shape (K, M), got (3,)"),
            Bad({"neighbours": torch.zeros(3, 3)}, TypeError, "neighbours must be int32, got float32"),
            Bad({"inputs": -1}, ValueError, "inputs must be in [0, 2^31), got -1"),
            Bad({"inputs": 2**31}, ValueError, "inputs must be in [0, 2^31), got 2147483648"),
            Bad({"inputs": "3"}, TypeError, "inputs must be an int, got '3'"),
            Bad({"inputs": 5}, ValueError, "neighbours must be below inputs, 5", in_traces=False),
        ),
        empty=(
            Empty({"neighbours": torch.zeros(6, 0, dtype=INT)}, (6, 20)),
            Empty({"neighbours": torch.zeros(0, 5, dtype=INT)}, (0, 20)),
            Empty({"neighbours": torch.full((6, 5), -1, dtype=INT), "inputs": 0}, (6, 0)),
        ),
    ),
    OpCase(
        sparse_row_order,
        lambda seed: {"neighbours": links(seed, 6, 20, 20)[0]},
        bad=(
            Bad({"neighbours": [1]}, TypeError, "neighbours must be a torch.Tensor, got list"),
            Bad({"neighbours": torch.zeros(3, dtype=INT)}, ValueError, "neighbours must have shape (K, M), got (3,)"),
        ),
        empty=(Empty({"neighbours": torch.zeros(6, 0, dtype=INT)}, (0,)),),
    ),
    pooling(sparse_max_pool),
    pooling(sparse_avg_pool, count_include_missing=False),
]
