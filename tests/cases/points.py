"""Point sets, and features brought back to points."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform

from fastcv.ops import (
    ball_query,
    devoxelize,
    farthest_point_sample,
    gather_points,
    group_points,
    knn,
    three_interpolate,
    three_nn,
)

NAN = float("nan")
FLOATING = "must be float16, bfloat16, float32 or float64"
K = (
    Bad({"k": -1}, ValueError, "k must be at least 0, got -1"),
    Bad({"k": 2.0}, TypeError, "k must be an int, got 2.0"),
    Bad({"k": 2**62}, ValueError, f"k must be at most 2147483647, got {2**62}"),
)
MANY = torch.zeros(1, 1, 3).expand(2, 2**31, 3)


def bad_cloud(name: str, shape: str) -> tuple[Bad, ...]:
    """What is refused of points of two clouds."""
    return (
        Bad({name: [1.0]}, TypeError, f"{name} must be a torch.Tensor, got list"),
        Bad({name: None}, TypeError, f"{name} must be a torch.Tensor, got NoneType"),
        Bad({name: torch.zeros(5, 3)}, ValueError, f"{name} must have shape {shape}, got (5, 3)"),
        Bad({name: torch.zeros(2, 5, 4)}, ValueError, f"{name} must have shape {shape}, got (2, 5, 4)"),
        Bad({name: torch.zeros(2, 5, 3, dtype=torch.int32)}, TypeError, f"{name} {FLOATING}, got int32"),
        Bad({name: MANY}, ValueError, f"{name} must have at most 2147482623 points per cloud, got 2147483648"),
    )


def bad_lengths(name: str, cloud: str, places: int, clouds: int = 2) -> tuple[Bad, ...]:
    """What is refused of the lengths of clouds."""
    good = torch.zeros(clouds, dtype=torch.int64)
    shape = f"{name} must have shape (B,) = ({clouds}), got"
    between = f"{name} must be between 0 and the {places} places of {cloud}, got"
    device = f"{name} must be on the device of {cloud} (cpu), got meta"
    last = torch.arange(clouds) == clouds - 1
    return (
        Bad({name: [1, 2]}, TypeError, f"{name} must be a torch.Tensor, got list"),
        Bad({name: good[1:]}, ValueError, f"{shape} ({clouds - 1},)"),
        Bad({name: good[None]}, ValueError, f"{shape} (1, {clouds})"),
        Bad({name: good.float()}, TypeError, f"{name} must be int64 or int32, got float32"),
        Bad({name: good.to("meta")}, ValueError, device),
        Bad({name: last * (places + 1)}, ValueError, f"{between} {places + 1} for cloud {clouds - 1}", in_traces=False),
        Bad({name: good.int() - 1}, ValueError, f"{between} -1 for cloud 0", in_traces=False),
    )


def search(seed: int, queries: int = 40, count: int = 30, k: int = 3) -> dict[str, Any]:
    """The arguments of knn."""
    return {
        "query": uniform(seed, 2, queries, 3, high=4),
        "points": uniform(seed + 1, 2, count, 3, high=4),
        "k": k,
        "query_lengths": torch.tensor([queries, 7 + seed]),
        "lengths": torch.tensor([count - seed, 12], dtype=torch.int32),
    }


BAD_SEARCH = (
    *K,
    *bad_cloud("query", "(B, Q, 3)"),
    *bad_cloud("points", "(B, N, 3)"),
    *bad_lengths("query_lengths", "query", 40),
    *bad_lengths("lengths", "points", 30),
    Bad({"query": torch.zeros(3, 5, 3).double()}, ValueError, "query must have as many clouds as points (2), got 3"),
    Bad({"query": torch.zeros(2, 40, 3)}, TypeError, "query must have the dtype of points (float64), got float32"),
    Bad(
        {"query": torch.zeros(2, 40, 3, device="meta").double()},
        ValueError,
        "query must be on the device of points (cpu), got meta",
    ),
)


def empty_search(results: int) -> tuple[Empty, ...]:
    """Searches without clouds, queries, points or results."""

    def shapes(*shape: int) -> Any:
        return shape if results == 1 else [shape] * results

    all_of_them = {"query_lengths": None, "lengths": None}
    none = torch.zeros(2, 0, 3).double()
    return (
        Empty({"query": none[:0], "points": none[:0], **all_of_them}, shapes(0, 0, 3)),
        Empty({"query": none, **all_of_them}, shapes(2, 0, 3)),
        Empty({"points": none, **all_of_them}, shapes(2, 40, 3)),
        Empty({"k": 0}, shapes(2, 40, 0)),
    )


def sampling(seed: int, batch: int = 64, count: int = 12, k: int = 5) -> dict[str, Any]:
    """The arguments of farthest_point_sample; so many clouds that no memory holds the greatest k of all."""
    lengths = torch.full((batch,), count - 2 - seed)
    start = torch.arange(batch) % (count + 1) if seed == 1 else 1
    return {"points": uniform(seed, batch, count, 3), "k": k, "start": start, "lengths": lengths}


def grouping(seed: int, groups: int = 4, count: int = 5, channels: int = 8) -> dict[str, Any]:
    """The arguments of group_points; some indices are -1."""
    indices = torch.randint(-1, count, (2, groups, 3), generator=torch.Generator().manual_seed(seed))
    return {"features": uniform(seed, 2, count, channels), "indices": indices}


def interpolation(seed: int, **sizes: int) -> dict[str, Any]:
    """The arguments of three_interpolate."""
    arguments = grouping(seed, **sizes)
    return {**arguments, "weights": uniform(seed + 1, *arguments["indices"].shape)}


def bad_grouping(meaning: str) -> tuple[Bad, ...]:
    """What is refused of features (2, 5, 8) and indices (2, 4, 3)."""
    indices = torch.zeros(2, 4, 3, dtype=torch.int64)
    range_ = "indices must be between -1 and 4, the number of points less one, got"
    with_two = "indices must have shape (B, ...) with B = 2 as in features, got (1, 4, 3)"
    return (
        Bad({"features": [1.0]}, TypeError, "features must be a torch.Tensor, got list"),
        Bad({"features": torch.zeros(5, 4)}, ValueError, "features must have shape (B, N, C), got (5, 4)"),
        Bad({"features": torch.zeros(2, 5, 3, dtype=torch.int32)}, TypeError, f"features {FLOATING}, got int32"),
        Bad({"indices": None}, TypeError, "indices must be a torch.Tensor, got NoneType"),
        Bad({"indices": indices.float()}, TypeError, "indices must be int64 or int32, got float32"),
        Bad({"indices": indices[:1]}, ValueError, with_two),
        Bad({"indices": indices[0, 0]}, ValueError, f"indices must have shape {meaning}, got (3,)"),
        Bad({"indices": indices.to("meta")}, ValueError, "indices must be on the device of features (cpu), got meta"),
        Bad({"indices": indices + 5}, ValueError, f"{range_} 5", in_traces=False),
        Bad({"indices": indices.int() - 2}, ValueError, f"{range_} -2", in_traces=False),
    )


NO_INDEX = torch.zeros(2, 0, 3, dtype=torch.int64)
RANGE = [0.0, -2.0, -1.0, 4.0, 2.0, 1.0]


def devoxelization(seed: int, voxels: int = 30, points: int = 12, channels: int = 8) -> dict[str, Any]:
    """The arguments of devoxelize for two clouds, with some voxels and points outside of the grid."""
    generator = torch.Generator().manual_seed(seed)
    coords = torch.stack([torch.randint(-1, n, (voxels,), generator=generator) for n in (2, 6, 9, 5)], dim=1).int()
    low, high = torch.tensor(RANGE[:3]).double() - 0.3, torch.tensor(RANGE[3:]).double() + 0.3
    return {
        "features": uniform(seed, voxels, channels),
        "coords": coords,
        "points": low + (high - low) * uniform(seed + 1, points, 3),
        "voxel_size": [1.0, 0.5, 0.4],
        "point_cloud_range": RANGE,
        "mode": "trilinear",
        "offsets": torch.tensor([0, points // 3 + seed, points]),
    }


def large_devoxelization() -> dict[str, Any]:
    """The same for so many points that threads share them."""
    arguments = devoxelization(6, 150, 20_000, 9)
    return {**arguments, "features": arguments["features"].float()}


CASES = [
    OpCase(
        knn,
        search,
        bad=BAD_SEARCH,
        empty=empty_search(2),
        large=lambda: {**search(3, 400, 400, 20), "query_lengths": None},
    ),
    OpCase(
        three_nn,
        lambda seed: {"target": uniform(seed, 2, 9, 3), "source": uniform(seed + 1, 2, 5, 3)},
        bad=(
            Bad({"target": [1.0]}, TypeError, "query must be a torch.Tensor, got list"),
            Bad({"source": torch.zeros(2, 5, 4)}, ValueError, "points must have shape (B, N, 3), got (2, 5, 4)"),
            Bad(
                {"source": torch.zeros(2, 5, 3)},
                TypeError,
                "query must have the dtype of points (float32), got float64",
            ),
        ),
        empty=(
            Empty({"target": torch.zeros(2, 0, 3).double()}, [(2, 0, 3), (2, 0, 3)]),
            Empty({"source": torch.zeros(2, 0, 3).double()}, [(2, 9, 3), (2, 9, 3)]),
        ),
        large=lambda: {"target": uniform(1, 2, 900, 3), "source": uniform(2, 2, 500, 3)},
    ),
    OpCase(
        gather_points,
        lambda seed: {"features": uniform(seed, 2, 4, 9), "indices": torch.tensor([[seed, 8, -1], [3, 3, 0]])},
        differentiable=("features",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"features": [1.0]}, TypeError, "features must be a torch.Tensor, got list"),
            Bad({"features": torch.zeros(2, 4)}, ValueError, "features must have shape (B, C, N), got (2, 4)"),
            Bad({"indices": None}, TypeError, "indices must be a torch.Tensor, got NoneType"),
            Bad({"indices": torch.zeros(2, 3)}, TypeError, "indices must be int64 or int32, got float32"),
            Bad({"indices": torch.zeros(2).long()}, ValueError, "indices must have shape (B, M), got (2,)"),
        ),
        empty=(
            Empty({"features": torch.zeros(2, 0, 9)}, (2, 0, 3)),
            Empty({"indices": torch.zeros(2, 0).long()}, (2, 4, 0)),
        ),
        large=lambda: {"features": uniform(1, 2, 33, 50), "indices": torch.arange(1000).view(2, 500) % 50},
    ),
    OpCase(
        ball_query,
        lambda seed: {**search(seed), "radius": 1.5, "repeat_first": True, "min_radius": 0.2},
        bad=(
            *BAD_SEARCH,
            Bad({"radius": -1.0}, ValueError, "radius must not be negative, got -1.0"),
            Bad({"radius": NAN}, ValueError, "radius must not be negative, got nan"),
            Bad({"min_radius": -1.0}, ValueError, "min_radius must not be negative, got -1.0"),
            Bad({"min_radius": NAN}, ValueError, "min_radius must not be negative, got nan"),
            Bad({"radius": "wide"}, TypeError, "radius must be a float, got 'wide'"),
        ),
        empty=empty_search(1),
        large=lambda: {**search(3, 400, 2000, 20), "radius": 0.8},
    ),
    OpCase(
        farthest_point_sample,
        sampling,
        bad=(
            *K,
            *bad_cloud("points", "(B, N, 3)"),
            *bad_lengths("lengths", "points", 12, clouds=64),
            Bad({"start": -1}, ValueError, "start must be at least 0, got -1"),
            Bad({"start": "x"}, TypeError, "start must be an int, got 'x'"),
            Bad({"start": torch.zeros(64)}, TypeError, "start must be int64 or int32, got float32"),
            Bad({"start": torch.zeros(63).long()}, ValueError, "start must have shape (B,) = (64), got (63,)"),
            Bad(
                {"start": torch.zeros(64, device="meta").long()},
                ValueError,
                "start must be on the device of points (cpu), got meta",
            ),
            Bad({"start": -torch.arange(64)}, ValueError, "start must be at least 0, got -1", in_traces=False),
        ),
        empty=(
            Empty({"points": torch.zeros(0, 5, 3), "lengths": None}, (0, 5)),
            Empty({"points": torch.zeros(2, 0, 3), "lengths": None}, (2, 5)),
            Empty({"k": 0}, (64, 0)),
        ),
        large=lambda: sampling(1, 5, 400, 50),
    ),
    OpCase(
        group_points,
        grouping,
        differentiable=("features",),
        order=2,
        forward_mode=True,
        bad=(
            *bad_grouping("(B, ...) of 2 to 7 axes"),
            Bad(
                {"indices": torch.zeros(2, 1, 1, 1, 1, 1, 1, 1).long()},
                ValueError,
                "indices must have shape (B, ...) of 2 to 7 axes, got (2, 1, 1, 1, 1, 1, 1, 1)",
            ),
        ),
        empty=(
            Empty({"features": torch.zeros(0, 5, 3), "indices": NO_INDEX[:0]}, (0, 0, 3, 3)),
            Empty({"indices": NO_INDEX}, (2, 0, 3, 8)),
            Empty({"features": torch.zeros(2, 5, 0)}, (2, 4, 3, 0)),
            Empty({"features": torch.zeros(2, 0, 3), "indices": NO_INDEX.new_full((2, 4), -1)}, (2, 4, 3)),
        ),
        large=lambda: grouping(2, 500, 40, 33),
    ),
    OpCase(
        three_interpolate,
        interpolation,
        differentiable=("features",),
        order=2,
        forward_mode=True,
        bad=(
            *bad_grouping("(B, P, K)"),
            Bad({"indices": NO_INDEX[..., 0]}, ValueError, "indices must have shape (B, P, K), got (2, 0)"),
            Bad({"weights": None}, TypeError, "weights must be a torch.Tensor, got NoneType"),
            Bad({"weights": torch.zeros(2, 4, 3).long()}, TypeError, f"weights {FLOATING}, got int64"),
            Bad(
                {"weights": torch.zeros(2, 3, 3)},
                ValueError,
                "weights must have shape (B, P, K) = (2, 4, 3), got (2, 3, 3)",
            ),
            Bad(
                {"weights": torch.zeros(2, 4, 3, device="meta")},
                ValueError,
                "weights must be on the device of features (cpu), got meta",
            ),
        ),
        empty=(
            Empty({"indices": NO_INDEX, "weights": torch.zeros(2, 0, 3)}, (2, 0, 8)),
            Empty({"indices": NO_INDEX.new_zeros(2, 4, 0), "weights": torch.zeros(2, 4, 0)}, (2, 4, 8)),
        ),
        large=lambda: interpolation(2, groups=500, count=40, channels=33),
    ),
    OpCase(
        devoxelize,
        devoxelization,
        differentiable=("features",),
        order=2,
        forward_mode=True,
        bad=(
            Bad({"features": 1}, TypeError, "features must be a torch.Tensor, got int"),
            Bad({"coords": 1}, TypeError, "coords must be a torch.Tensor, got int"),
            Bad({"points": 1}, TypeError, "points must be a torch.Tensor, got int"),
            Bad({"offsets": [0, 12]}, TypeError, "offsets must be a torch.Tensor, got list"),
            Bad({"features": torch.zeros(30)}, ValueError, "features must have shape (V, C), got (30,)"),
            Bad({"features": torch.zeros(30, 2).long()}, TypeError, f"features {FLOATING}, got int64"),
            Bad(
                {"features": torch.zeros(4, 2)},
                ValueError,
                "coords must have as many rows as features, of shape (4, 2), got (30, 4)",
            ),
            Bad(
                {"coords": torch.zeros(()).int()},
                ValueError,
                "coords must have as many rows as features, of shape (30, 8), got ()",
            ),
            Bad(
                {"coords": torch.zeros(30, 3).int()},
                ValueError,
                "coords must have shape (V, 4), rows of b, z, y, x, got (30, 3)",
            ),
            Bad({"coords": torch.zeros(30, 4).long()}, TypeError, "coords must be int32, got int64"),
            Bad(
                {"coords": torch.zeros(30, 4, device="meta").int()},
                ValueError,
                "coords must be on the device of points (cpu), got meta",
            ),
            Bad(
                {"points": torch.zeros(3)},
                ValueError,
                "points must have shape (P, 3 or more), columns x, y, z and features, got (3,)",
            ),
            Bad({"points": torch.zeros(12, 3).long()}, TypeError, f"points {FLOATING}, got int64"),
            Bad(
                {"points": torch.zeros(12, 3, device="meta")},
                ValueError,
                "points must be on the device of features (cpu), got meta",
            ),
            Bad({"mode": "cubic"}, ValueError, "mode must be 'nearest' or 'trilinear', got 'cubic'"),
            Bad(
                {"offsets": torch.tensor([0, 4])},
                ValueError,
                "offsets must ascend from 0 to the number of points (12), got 4 at 1",
                in_traces=False,
            ),
            Bad({"offsets": torch.zeros(2).int()}, TypeError, "offsets must be int64, got int32"),
        ),
        empty=(
            Empty({"points": torch.zeros(0, 3), "offsets": None}, (0, 8)),
            Empty({"features": torch.zeros(0, 3), "coords": torch.zeros(0, 4).int()}, (12, 3)),
            Empty({"features": torch.zeros(30, 0)}, (12, 0)),
        ),
        large=large_devoxelization,
    ),
]
