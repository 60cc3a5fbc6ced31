"""Point-set operators of PointNet++: farthest_point_sample, knn, ball_query, group_points, three_interpolate.

The peers are what one writes in torch: a loop over the choices, ``cdist`` and ``topk``, ``gather``. Of the searches in
one cloud (L1) it is pykdtree, where it is installed; OMP_NUM_THREADS=1 keeps it to one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.harness import run_case
from bench.workloads import Problem, Target, Variant, Workload

Op = Callable[..., Any]


def surface(batch: int, count: int, seed: int = 0) -> Tensor:
    """(batch, count, 3): points on a sphere, as on the surface of an object."""
    points = torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed))
    lengths: Tensor = points.norm(dim=2, keepdim=True)
    return points / lengths


def sampling_problem(variant: Variant, batch: int, count: int, k: int) -> Problem:
    points = variant.place(surface(batch * variant.scale, count))
    return Problem((points, k), bytes=points.nbytes, flops=9 * batch * variant.scale * count * k)


def search_problem(variant: Variant, batch: int, queries: int, count: int, k: int) -> Problem:
    points = variant.place(surface(batch * variant.scale, count))
    query = variant.place(surface(batch * variant.scale, queries, 1))
    return Problem((query, points, k), bytes=query.nbytes + points.nbytes + 12 * k * query[..., 0].numel())


def street(count: int, seed: int = 0) -> Tensor:
    """(1, count, 3) in metres: a scan of ground and boxes whose density falls with the distance."""
    generator = torch.Generator().manual_seed(seed)
    distance = 2 * 40 ** torch.rand(count, generator=generator)
    angle = torch.rand(count, generator=generator) * 2 * torch.pi
    ground = torch.randn(count, generator=generator) * 0.03 - 1.7
    points = torch.stack([distance * angle.cos(), distance * angle.sin(), ground], 1)
    centres = torch.rand(60, 2, generator=generator) * 100 - 50
    sizes = torch.rand(60, 3, generator=generator) * 7 + 1
    third = count // 3
    box = torch.multinomial((centres.norm(dim=1) + 3) ** -1.5, third, True, generator=generator)
    places = torch.rand(third, 3, generator=generator) - 0.5
    side = torch.randint(0, 2, (third,), generator=generator)
    places[torch.arange(third), side] = places[torch.arange(third), side].sign() / 2
    points[:third, :2] = centres[box] + places[:, :2] * sizes[box, :2]
    points[:third, 2] = (places[:, 2] + 0.5) * sizes[box, 2] - 1.7
    return points[torch.randperm(count, generator=generator)][None]


def clusters(count: int, seed: int = 0) -> Tensor:
    """(1, count, 3): clusters of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(50, 3, generator=generator) * 200 - 100
    sizes = 10 ** (torch.rand(50, generator=generator) * 3 - 2)
    which = torch.randint(0, 50, (count,), generator=generator)
    return (centres[which] + torch.randn(count, 3, generator=generator) * sizes[which, None])[None]


def even(count: int, seed: int = 0) -> Tensor:
    return torch.rand(1, count, 3, generator=torch.Generator().manual_seed(seed))


def cloud_problem(variant: Variant, cloud: Callable[[int], Tensor], queries: int, count: int, k: int) -> Problem:
    """Queries beside some of the points."""
    points = cloud(count)
    generator = torch.Generator().manual_seed(1)
    query = points[:, torch.randint(0, count, (queries,), generator=generator)]
    query = variant.place(query + torch.randn(query.shape, generator=generator) * 0.01)
    points = variant.place(points)
    return Problem((query, points, k), bytes=query.nbytes + points.nbytes + 12 * k * queries)


def group_problem(variant: Variant, batch: int, count: int, groups: int, k: int, channels: int) -> Problem:
    """Features (B, N, C) that need a gradient, the k nearest of every group, and weights."""
    points, places = surface(batch * variant.scale, count), surface(batch * variant.scale, groups, 1)
    distances, indices = torch.cdist(places, points).topk(k, largest=False)
    weights = 1 / (distances + 1e-3)
    weights = (weights / weights.sum(2, keepdim=True)).to(variant.device)
    features = variant.place(torch.randn(batch * variant.scale, count, channels)).requires_grad_()
    return Problem((features, indices.to(variant.device), weights))


def sample_in_torch(points: Tensor, k: int) -> Tensor:
    """The usual loop: one pass over the clouds per choice."""
    rows = torch.arange(len(points), device=points.device)
    chosen = points.new_zeros(len(points), k, dtype=torch.int64)
    nearest_squared = points.new_full(points.shape[:2], torch.inf)
    for step in range(1, k):
        latest = points[rows, chosen[:, step - 1]][:, None]
        nearest_squared = torch.minimum(nearest_squared, (points - latest).square().sum(2))
        chosen[:, step] = nearest_squared.argmax(1)
    return chosen


def knn_in_torch(query: Tensor, points: Tensor, k: int) -> Any:
    distances, indices = torch.cdist(query, points).topk(k, largest=False)
    return distances.square(), indices


def tree_of_pykdtree() -> Op:
    """The peer of clouds in space, its tree built in each call; `pip install pykdtree`."""
    from pykdtree.kdtree import KDTree

    def knn_in_pykdtree(query: Tensor, points: Tensor, k: int) -> Any:
        distances, indices = KDTree(points[0].cpu().numpy()).query(query[0].cpu().numpy(), k, sqr_dists=True)
        return torch.from_numpy(distances)[None], torch.from_numpy(indices.astype("int64"))[None]

    return knn_in_pykdtree


def ball_in_torch(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """As in PointNet++: indices outside of the ball become N, the k least are kept."""
    count = points.shape[1]
    indices = torch.arange(count, device=points.device).expand(*query.shape[:2], count)
    indices = torch.where(torch.cdist(query, points) < radius, indices, count)
    indices = indices.topk(k, largest=False).values
    return torch.where(indices == count, -1, indices)


def group_in_torch(features: Tensor, indices: Tensor) -> Tensor:
    rows = torch.arange(len(features), device=features.device)[:, None, None]
    return features[rows, indices]


def interpolate_in_torch(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    return (group_in_torch(features, indices) * weights[..., None]).sum(2)


def sample(op: Op, points: Tensor, k: int) -> Tensor:
    return op(points, k)  # type: ignore[no-any-return]


def search(op: Op, query: Tensor, points: Tensor, k: int) -> Tensor:
    """Squared distances: indices of points at nearly the same distance may come in either order."""
    return op(query, points, k)[0]  # type: ignore[no-any-return]


def search_ball(op: Op, query: Tensor, points: Tensor, k: int, radius: float) -> Tensor:
    return op(query, points, radius, k)  # type: ignore[no-any-return]


def group(op: Op, features: Tensor, indices: Tensor, weights: Tensor, gradient: bool = False) -> Tensor:
    if not gradient:
        return op(features.detach(), indices)  # type: ignore[no-any-return]
    output = op(features, indices)
    return torch.autograd.grad(output, features, output.detach())[0]


def interpolate(op: Op, features: Tensor, indices: Tensor, weights: Tensor, gradient: bool = False) -> Tensor:
    if not gradient:
        return op(features.detach(), indices, weights)  # type: ignore[no-any-return]
    output = op(features, indices, weights)
    return torch.autograd.grad(output, features, output.detach())[0]


def against(name: str, peer: Op) -> dict[str, Any]:
    return {"fastcv": f"fastcv.ops:{name}", "torch": lambda: peer}


def workload(id: str, title: str, problem: Any, call: Any, name: str, peer: Op, **options: Any) -> Workload:
    return Workload(id, title, problem, call, against(name, peer), peer="torch", **options)


WORKLOADS = [
    workload(
        "P1",
        "farthest_point_sample, 8×4096 points on a sphere, k 1024",
        partial(sampling_problem, batch=8, count=4096, k=1024),
        sample,
        "farthest_point_sample",
        sample_in_torch,
        tolerance=None,  # torch sums in another order
    ),
    workload(
        "P1-large",
        "farthest_point_sample, 1×65536 points, k 512",
        partial(sampling_problem, batch=1, count=65536, k=512),
        sample,
        "farthest_point_sample",
        sample_in_torch,
        tolerance=None,
    ),
    workload(
        "P2",
        "knn, 8×2048 queries in 8192 points, k 16",
        partial(search_problem, batch=8, queries=2048, count=8192, k=16),
        search,
        "knn",
        knn_in_torch,
    ),
    workload(
        "P2-three",
        "knn, 8×8192 queries in 2048 points, k 3",
        partial(search_problem, batch=8, queries=8192, count=2048, k=3),
        search,
        "knn",
        knn_in_torch,
    ),
    workload(
        "P2-large",
        "knn, 2000 queries in 100 000 points, k 16",
        partial(search_problem, batch=1, queries=2000, count=100_000, k=16),
        search,
        "knn",
        knn_in_torch,
    ),
    *(
        Workload(
            f"L1-{shape.__name__}-{count}",
            f"knn, {queries} queries in {count} points, {shape.__name__}, k 16",
            partial(cloud_problem, cloud=shape, queries=queries, count=count, k=16),
            search,
            {"fastcv": "fastcv.ops:knn", "pykdtree": tree_of_pykdtree},
            peer="pykdtree",
            targets={"one thread": Target(ratio=1.2)},
        )
        for shape in (even, clusters, street)
        for queries, count in ((2048, 8192), (10_000, 100_000))
    ),
    workload(
        "P3",
        "ball_query, 8×1024 queries in 4096 points, radius 0.1, k 32",
        partial(search_problem, batch=8, queries=1024, count=4096, k=32),
        partial(search_ball, radius=0.1),
        "ball_query",
        ball_in_torch,
        tolerance=None,  # a point at the radius
    ),
    workload(
        "P4",
        "group_points, 8×1024 groups of 32 in 4096 points, 64 channels",
        partial(group_problem, batch=8, count=4096, groups=1024, k=32, channels=64),
        group,
        "group_points",
        group_in_torch,
    ),
    workload(
        "P4-gradient",
        "the same, forward and backward",
        partial(group_problem, batch=8, count=4096, groups=1024, k=32, channels=64),
        partial(group, gradient=True),
        "group_points",
        group_in_torch,
    ),
    workload(
        "P5",
        "three_interpolate, 8×4096 places from 1024 points, 256 channels",
        partial(group_problem, batch=8, count=1024, groups=4096, k=3, channels=256),
        interpolate,
        "three_interpolate",
        interpolate_in_torch,
    ),
    workload(
        "P5-gradient",
        "the same, forward and backward",
        partial(group_problem, batch=8, count=1024, groups=4096, k=3, channels=256),
        partial(interpolate, gradient=True),
        "three_interpolate",
        interpolate_in_torch,
    ),
]

test_points = run_case
