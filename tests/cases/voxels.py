"""Points and voxels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import voxel_ids, voxel_occupancy, voxel_scatter, voxelize, voxelize_padded

NAN, INF = float("nan"), float("inf")
SIZE, RANGE = [0.5, 0.25, 0.4], [0.0, -4.0, -1.0, 8.0, 4.0, 1.0]
CELLS = (5, 32, 16)
ALL_AXES = "(0.0, -4.0, -1.0, 8.0, 4.0, 1.0)"
FLOATING = "must be float16, bfloat16, float32 or float64"
SHAPE = "points must have shape (P, 3 or more), columns x, y, z and features"
SIZES = "voxel_size must be a float or 3 floats (x, y, z)"
LIMITS = "point_cloud_range must be 6 floats (x, y, z from; x, y, z to)"
SPAN = "point_cloud_range must span 1 to 2^31 - 1 voxels along each axis"
NO_POINTS, NO_CLOUDS = torch.zeros(0, 4), torch.zeros(1, dtype=torch.int64)


def points(seed: int, count: int = 12) -> Tensor:
    """Rows of x, y, z and a feature, most of them inside RANGE."""
    low, high = torch.tensor(RANGE[:3]) - 0.2, torch.tensor(RANGE[3:]) + 0.2
    return torch.cat([low + (high - low) * uniform(seed, count, 3) ** 2, uniform(seed + 5, count, 1)], 1)


def on_grid(seed: int, **options: Any) -> dict[str, Any]:
    """Points and their grid."""
    return {"points": points(seed), "voxel_size": SIZE, "point_cloud_range": RANGE, **options}


def large(options: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """As many points as make the threads share the work, in small voxels."""
    return lambda: {**on_grid(0, **options), "points": points(0, 200_000).float(), "voxel_size": 0.05}


def bad_offsets(values: list[int], text: str) -> Bad:
    """Offsets that are refused where they can be read."""
    error = f"offsets must ascend from 0 to the number of points (12), got {text}"
    return Bad({"offsets": torch.tensor(values)}, ValueError, error, in_traces=False)


BAD = (
    Bad({"points": [1.0]}, TypeError, "points must be a torch.Tensor, got list"),
    Bad({"points": torch.zeros(3)}, ValueError, f"{SHAPE}, got (3,)"),
    Bad({"points": torch.zeros(3, 2)}, ValueError, f"{SHAPE}, got (3, 2)"),
    Bad({"points": torch.zeros(3, 4, dtype=torch.int32)}, TypeError, f"points {FLOATING}, got int32"),
    Bad({"voxel_size": [1.0, 2.0]}, TypeError, f"{SIZES}, got [1.0, 2.0]"),
    Bad({"voxel_size": [1.0, "a", 1.0]}, TypeError, f"{SIZES}, got [1.0, 'a', 1.0]"),
    Bad({"voxel_size": None}, TypeError, f"{SIZES}, got None"),
    Bad({"point_cloud_range": None}, TypeError, f"{LIMITS}, got None"),
    Bad({"point_cloud_range": 4.0}, TypeError, f"{LIMITS}, got 4.0"),
    Bad({"point_cloud_range": [0, 0, 0, 1]}, TypeError, f"{LIMITS}, got [0, 0, 0, 1]"),
    Bad(
        {"voxel_size": [1, 2, 0]},
        ValueError,
        "voxel_size must be positive and finite in float64, got (1.0, 2.0, 0.0)",
    ),
    Bad({"voxel_size": NAN}, ValueError, "voxel_size must be positive and finite in float64, got (nan, nan, nan)"),
    Bad(
        {"points": torch.zeros(12, 4), "voxel_size": 1e-60, "point_cloud_range": [0, 0, 0, 1e-60, 1e-60, 1e-60]},
        ValueError,
        "voxel_size must be positive and finite in float32, got (1e-60, 1e-60, 1e-60)",
    ),
    Bad({"voxel_size": 1e-12}, ValueError, f"{SPAN}, got {ALL_AXES} with voxel_size (1e-12, 1e-12, 1e-12)"),
    Bad({"voxel_size": 99}, ValueError, f"{SPAN}, got {ALL_AXES} with voxel_size (99.0, 99.0, 99.0)"),
    Bad(
        {"voxel_size": 1.0, "point_cloud_range": [0, 0, 0, -1, 1, 1]},
        ValueError,
        f"{SPAN}, got (0.0, 0.0, 0.0, -1.0, 1.0, 1.0) with voxel_size (1.0, 1.0, 1.0)",
    ),
    Bad(
        {"voxel_size": 1e-8},
        ValueError,
        f"point_cloud_range must span fewer than 2^62 voxels in all clouds together, got {ALL_AXES} with voxel_size "
        "(1e-08, 1e-08, 1e-08)",
    ),
    Bad(
        {"point_cloud_range": [0, 0, 0, INF, 1, 1]},
        ValueError,
        "point_cloud_range must be finite, got (0.0, 0.0, 0.0, inf, 1.0, 1.0)",
    ),
    Bad({"offsets": [0, 12]}, TypeError, "offsets must be a torch.Tensor, got list"),
    Bad({"offsets": torch.tensor([0.0, 12.0])}, TypeError, "offsets must be int64, got float32"),
    Bad(
        {"offsets": torch.zeros(2, 2, dtype=torch.int64)},
        ValueError,
        "offsets must have shape (B + 1,), got (2, 2)",
    ),
    Bad(
        {"offsets": torch.zeros(0, dtype=torch.int64)},
        ValueError,
        "offsets must have at least one element, got none",
    ),
    Bad(
        {"offsets": torch.zeros(2, dtype=torch.int64, device="meta")},
        ValueError,
        "offsets must be on the device of points (cpu), got meta",
    ),
    bad_offsets([0, 2], "2 at 1"),
    bad_offsets([1, 12], "1 at 0"),
    bad_offsets([0, 13], "13 at 1"),
    bad_offsets([0, 8, 4, 12], "4 at 2"),
    bad_offsets([-1, 12], "-1 at 0"),
    bad_offsets([2**62, 12], f"{2**62} at 0"),
    bad_offsets([0, -(2**62), 12], f"{-(2**62)} at 1"),
)
BAD_LIMITS = (
    Bad({"max_points_per_voxel": 0}, ValueError, "max_points_per_voxel must be positive, got 0"),
    Bad(
        {"max_points_per_voxel": 2**62},
        ValueError,
        f"max_points_per_voxel must give voxels of fewer than 2^31 elements, got {2**62} points of 4",
    ),
    Bad({"max_voxels": -1}, ValueError, "max_voxels must be in [0, 2^31], got -1"),
    Bad({"max_voxels": 2**40}, ValueError, f"max_voxels must be in [0, 2^31], got {2**40}"),
)
LIMITED = {"max_points_per_voxel": 9, "max_voxels": 5, "offsets": None}


def scattered(seed: int, count: int = 14, channels: int = 2) -> dict[str, Any]:
    """Features and coordinates, some of them negative, few of them distinct."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.randint(-1, 3, (count, 4), generator=generator, dtype=torch.int32)
    coords[:, :2] = coords[:, :2].clamp(min=0)
    return {"features": uniform(seed, count, channels, low=-1.0), "coords": coords, "reduce": "mean"}


def scatter(reduce: str, bad: tuple[Bad, ...] = ()) -> OpCase:
    """voxel_scatter with one of its reductions."""
    return OpCase(
        voxel_scatter,
        lambda seed: {**scattered(seed), "reduce": reduce},
        bad=bad,
        empty=(
            Empty(
                {"features": torch.zeros(0, 3), "coords": torch.zeros(0, 4, dtype=torch.int32)},
                [(0, 3), (0, 4), (0,)],
            ),
            Empty({"coords": torch.full((14, 4), -1, dtype=torch.int32)}, [(0, 2), (0, 4), (14,)]),
            Empty({"features": torch.zeros(14, 0), "coords": torch.zeros(14, 4).int()}, [(1, 0), (1, 4), (14,)]),
        ),
        large=lambda: {**scattered(0, 50_000, 7), "reduce": reduce},
        differentiable=("features",),
        order=2,
        forward_mode=True,
        size_depends_on_data=True,
    )


# Features are checked against the voxels, whose number a trace does not know.
BAD_SCATTER = (
    Bad({"features": [1.0]}, TypeError, "features must be a torch.Tensor, got list"),
    Bad({"coords": 3}, TypeError, "coords must be a torch.Tensor, got int"),
    Bad(
        {"features": torch.zeros(14)},
        ValueError,
        "features must have shape (P, C) = (14, *), got (14,)",
        in_traces=False,
    ),
    Bad(
        {"features": torch.zeros(4, 2)},
        ValueError,
        "features must have shape (P, C) = (14, *), got (4, 2)",
        in_traces=False,
    ),
    Bad(
        {"features": torch.zeros(14, 2, dtype=torch.int32)},
        TypeError,
        f"features {FLOATING}, got int32",
        in_traces=False,
    ),
    Bad(
        {"coords": torch.zeros(14, 3, dtype=torch.int32)},
        ValueError,
        "coords must have shape (P, 4), rows of b, z, y, x, got (14, 3)",
    ),
    Bad({"coords": torch.zeros(14, 4)}, TypeError, "coords must be int32, got float32"),
    Bad(
        {"coords": torch.zeros(14, 4, dtype=torch.int32, device="meta")},
        ValueError,
        "coords must be on the device of features (cpu), got meta",
    ),
    Bad({"reduce": "median"}, ValueError, "reduce must be 'mean', 'sum', 'max' or 'min', got 'median'"),
    Bad({"reduce": None}, ValueError, "reduce must be 'mean', 'sum', 'max' or 'min', got None"),
)
BATCH = torch.zeros(12, dtype=torch.int64)
CASES = [
    OpCase(
        voxelize,
        lambda seed: on_grid(seed, **LIMITED),
        bad=(*BAD, *BAD_LIMITS, Bad({"max_voxels": "all"}, TypeError, "max_voxels must be an int, got 'all'")),
        empty=(
            Empty({"points": NO_POINTS}, [(0, 9, 4), (0, 3), (0,)]),
            Empty({"points": NO_POINTS, "offsets": NO_CLOUDS}, [(0, 9, 4), (0, 4), (0,)]),
            Empty({"points": torch.full((9, 3), 100.0)}, [(0, 9, 3), (0, 3), (0,)]),
            Empty({"max_voxels": 0}, [(0, 9, 4), (0, 3), (0,)]),
        ),
        large=large({**LIMITED, "max_voxels": None}),
        size_depends_on_data=True,
    ),
    OpCase(
        voxelize_padded,
        lambda seed: on_grid(seed, **{**LIMITED, "offsets": torch.tensor([0, 4, 4, 12])}),
        bad=(*BAD, *BAD_LIMITS),
        empty=(
            Empty({"points": NO_POINTS, "offsets": None}, [(5, 9, 4), (5, 3), (5,), ()]),
            Empty({"points": NO_POINTS, "offsets": NO_CLOUDS}, [(0, 5, 9, 4), (0, 5, 4), (0, 5), (0,)]),
            Empty({"max_voxels": 0}, [(3, 0, 9, 4), (3, 0, 4), (3, 0), (3,)]),
        ),
        large=large({**LIMITED, "max_voxels": 500}),
    ),
    OpCase(
        voxel_ids,
        lambda seed: on_grid(seed, voxel_size=0.5, offsets=torch.tensor([0, 4, 12])),
        bad=(
            *BAD,
            Bad({"batch": [0] * 12}, TypeError, "batch must be a torch.Tensor, got list"),
            Bad({"batch": BATCH}, ValueError, "batch must be None where offsets are given, got both"),
            Bad(
                {"batch": torch.zeros(12), "offsets": None},
                TypeError,
                "batch must be int64 or int32, got float32",
            ),
            Bad(
                {"batch": BATCH[:, None], "offsets": None},
                ValueError,
                "batch must have shape (P,) = (12), got (12, 1)",
            ),
            Bad({"batch": BATCH[:4], "offsets": None}, ValueError, "batch must have shape (P,) = (12), got (4,)"),
            Bad(
                {"batch": BATCH.to("meta"), "offsets": None},
                ValueError,
                "batch must be on the device of points (cpu), got meta",
            ),
        ),
        empty=(
            Empty({"points": NO_POINTS, "offsets": None}, (0, 4)),
            Empty({"points": NO_POINTS, "offsets": NO_CLOUDS}, (0, 4)),
            Empty({"points": NO_POINTS, "offsets": None, "batch": torch.zeros(0, dtype=torch.int32)}, (0, 4)),
        ),
        large=large({}),
    ),
    OpCase(
        voxel_ids,
        lambda seed: on_grid(seed, batch=torch.arange(12, dtype=torch.int32) % 3 - 1),
        large=lambda: {**large({})(), "batch": torch.arange(200_000) % 3 - 1},
    ),
    OpCase(
        voxel_occupancy,
        lambda seed: on_grid(seed, mode="density", offsets=torch.tensor([0, 4, 12])),
        bad=(
            *BAD,
            Bad({"mode": "half"}, ValueError, "mode must be 'binary', 'count' or 'density', got 'half'"),
            Bad(
                {"points": NO_POINTS, "offsets": torch.zeros(70_000, dtype=torch.int64)},
                ValueError,
                "offsets must be of at most 65535 clouds, got 69999",
            ),
        ),
        empty=(
            Empty({"points": NO_POINTS, "offsets": None}, CELLS),
            Empty({"points": NO_POINTS, "offsets": NO_CLOUDS}, (0, *CELLS)),
        ),
        large=large({"mode": "density"}),
    ),
    OpCase(voxel_occupancy, lambda seed: on_grid(seed, mode="count"), large=large({"mode": "count"})),
    OpCase(voxel_occupancy, lambda seed: on_grid(seed), large=large({})),
    scatter("mean", BAD_SCATTER),
    *(scatter(reduce) for reduce in ("sum", "max", "min")),
]
