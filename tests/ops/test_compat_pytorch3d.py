"""fastcv.compat.pytorch3d against references of PyTorch3D's documentation, on every backend."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcv.compat.pytorch3d import ball_query, knn_gather, knn_points, sample_farthest_points
from fastcv.reference import pytorch3d as reference

LENGTHS = (None, None), (torch.tensor([9, 4]), torch.tensor([3, 25], dtype=torch.int32)), (None, torch.tensor([0, 7]))


def clouds(seed: int, count: int, dims: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, count, dims, generator=generator, dtype=torch.float64)


def on(backend: Any, *values: Any) -> list[Any]:
    return [value.to(backend.device) if isinstance(value, Tensor) else value for value in values]


def close(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3, 5, 17])
def test_nearest_points(backend: Any, dims: int, norm: int) -> None:
    p1, p2 = clouds(0, 9, dims), clouds(1, 25, dims)
    for (lengths1, lengths2), k in itertools.product(LENGTHS, (1, 4, 30)):
        there = on(backend, p1, p2, lengths1, lengths2)
        expected = reference.knn_points(p1, p2, lengths1, lengths2, norm, k)
        close(knn_points(*there, norm=norm, K=k, return_nn=True), expected)
        assert knn_points(*there, norm=norm, K=k).knn is None


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("dims", [2, 3, 6])
def test_gradients_of_distances(backend: Any, dims: int, norm: int) -> None:
    for lengths1, lengths2 in LENGTHS:
        leaves = [clouds(2, 9, dims).requires_grad_(), clouds(3, 25, dims).requires_grad_()]
        moved = [leaf.detach().to(backend.device).requires_grad_() for leaf in leaves]
        expected = reference.knn_points(*leaves, lengths1, lengths2, norm, 5)
        actual = knn_points(*moved, *on(backend, lengths1, lengths2), norm=norm, K=5, return_nn=True)
        weights = clouds(4, 9, 5), clouds(5, 9 * 5, dims).view(2, 9, 5, dims)
        losses = (expected[0] * weights[0]).sum() + (expected[2] * weights[1]).sum()
        there = on(backend, *weights)
        close(
            torch.autograd.grad((actual.dists * there[0]).sum() + (actual.knn * there[1]).sum(), moved),
            torch.autograd.grad(losses, leaves),
        )


def test_second_derivatives(backend: Any) -> None:
    p1, p2 = (clouds(seed, 4, 3, 1).to(backend.device).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda a, b: knn_points(a, b, K=2).dists, (p1, p2))
    assert torch.autograd.gradgradcheck(lambda a, b: knn_points(a, b, K=2).dists, (p1, p2))
    assert torch.autograd.gradcheck(lambda a, b: ball_query(a, b, K=3, radius=0.8).dists, (p1, p2))


def test_ties_and_bits(backend: Any) -> None:
    """The same distances with a gradient and without, in float32; of equals the lower index."""
    points = torch.randint(0, 3, (2, 60, 3), generator=torch.Generator().manual_seed(0)).float() * 0.1
    for dims in (3, 4):
        cloud = torch.cat([points, points[..., :1]], 2)[..., :dims].contiguous()
        found = knn_points(*on(backend, cloud, cloud), K=9)
        squared = (cloud[:, :, None] - cloud[:, None]).square().sum(3)
        if dims == 3:
            x, y, z = (cloud[:, :, None] - cloud[:, None]).unbind(3)
            squared = x * x + y * y + z * z
        nearest = squared.sort(dim=2, stable=True)
        assert torch.equal(found.idx.cpu(), nearest.indices[..., :9])
        assert torch.equal(found.dists.cpu(), nearest.values[..., :9])


def test_no_number_is_nobodys_neighbour(backend: Any) -> None:
    p1, p2 = clouds(0, 4, 3), clouds(1, 6, 3)
    p2[:, 2, 1] = float("nan")
    p1[0, 1] = float("inf")
    for pair in ((p1, p2), (p1.repeat(1, 1, 2), p2.repeat(1, 1, 2))):
        leaves = [tensor.to(backend.device).requires_grad_() for tensor in pair]
        found = knn_points(*leaves, K=6)
        assert found.dists.isfinite().all()
        assert not (found.idx[..., :5] == 2).any()
        assert (found.dists[0, 1] == 0).all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found.dists.sum(), leaves))


def test_work_in_parts(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p1, p2 = on(backend, clouds(0, 9, 5), clouds(1, 25, 5))
    lengths = torch.tensor([9, 4]).to(backend.device), torch.tensor([3, 25]).to(backend.device)
    whole = knn_points(p1, p2, *lengths, K=4), ball_query(p1, p2, *lengths, K=4, radius=0.6)
    monkeypatch.setattr("fastcv.compat.pytorch3d._MOST_DIFFERENCES", 600)
    parts = knn_points(p1, p2, *lengths, K=4), ball_query(p1, p2, *lengths, K=4, radius=0.6)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.idx, other.idx)
        assert torch.equal(one.dists, other.dists)


def test_gather(backend: Any) -> None:
    features, idx = clouds(0, 8, 5), torch.randint(0, 8, (2, 7, 3), generator=torch.Generator().manual_seed(0))
    for kind in (torch.float64, torch.float16, torch.int64):
        x = (features * 50).to(kind)
        for lengths in (None, torch.tensor([8, 2]), torch.tensor([0, 1])):
            actual = knn_gather(*on(backend, x, idx, lengths))
            assert torch.equal(actual.cpu(), reference.knn_gather(x, idx, lengths))


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 9])
def test_balls(backend: Any, dims: int) -> None:
    p1, p2 = clouds(0, 9, dims), clouds(1, 25, dims)
    for (lengths1, lengths2), k in itertools.product(LENGTHS, (1, 4, 30)):
        there = on(backend, p1, p2, lengths1, lengths2)
        radius = 0.25 * dims**0.5
        expected = reference.ball_query(p1, p2, lengths1, lengths2, k, radius)
        close(ball_query(*there, K=k, radius=radius), expected)
        assert ball_query(*there, K=k, radius=radius, return_nn=False).knn is None
    leaves = [p1.to(backend.device).requires_grad_(), p2.to(backend.device).requires_grad_()]
    wide = [p1.clone().requires_grad_(), p2.clone().requires_grad_()]
    close(
        torch.autograd.grad(ball_query(*leaves, K=4, radius=radius).dists.sum(), leaves),
        torch.autograd.grad(reference.ball_query(*wide, None, None, 4, radius)[0].sum(), wide),
    )


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_samples(backend: Any, dims: int) -> None:
    points = clouds(0, 30, dims, 3)
    for lengths in (None, torch.tensor([30, 4, 11]), torch.tensor([1, 0, 30])):
        for k in (1, 12, [3, 12, 0], torch.tensor([40, 2, 5])):
            counts = [k] * 3 if isinstance(k, int) else list(map(int, k))
            expected = reference.sample_farthest_points(points, lengths, counts, [0, 0, 0])
            actual = sample_farthest_points(*on(backend, points, lengths), k)
            close(actual, expected)
    leaf = points.to(backend.device).requires_grad_()
    chosen, idx = sample_farthest_points(leaf, K=4)
    (gradient,) = torch.autograd.grad(chosen.sum(), leaf)
    assert torch.equal(gradient.sum(2).cpu() > 0, torch.zeros(3, 30).scatter_(1, idx.cpu(), 1) > 0)


@pytest.mark.parametrize("dims", [3, 5])
def test_random_first_choices(backend: Any, dims: int) -> None:
    points, lengths = clouds(0, 30, dims, 3), torch.tensor([30, 4, 11])
    torch.manual_seed(7)
    _, idx = sample_farthest_points(*on(backend, points, lengths), 5, random_start_point=True)
    torch.manual_seed(7)
    start = [int(torch.randint(length, (1,))) for length in lengths.tolist()]
    assert idx[:, 0].tolist() == start
    assert torch.equal(idx.cpu(), reference.sample_farthest_points(points, lengths, [5] * 3, start)[1])


@pytest.mark.parametrize("dims", [3, 4])
def test_empty(backend: Any, dims: int) -> None:
    some, none = clouds(0, 5, dims).to(backend.device), clouds(0, 0, dims).to(backend.device)
    assert knn_points(none, some, K=2).dists.shape == (2, 0, 2)
    assert (knn_points(some, none, K=2, return_nn=True).knn == 0).all()
    assert knn_points(some, some, K=0).idx.shape == (2, 5, 0)
    assert (ball_query(some, none, K=3).idx == -1).all()
    assert sample_farthest_points(none, K=2)[1].tolist() == [[-1, -1], [-1, -1]]
    assert sample_farthest_points(some[:0], K=2)[0].shape == (0, 0, dims)


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda p: knn_points(p, p, norm=3), ValueError, "norm must be 1 or 2, got 3"),
    (lambda p: knn_points(p, p[0]), ValueError, "p2 must have shape (N, P, D), got (5, 3)"),
    (lambda p: knn_points(p, p[:1]), ValueError, "as many clouds and dimensions as p1 (2, 5, 3), got (1, 5, 3)"),
    (lambda p: knn_points(p, p.float()), TypeError, "p2 must have the dtype and device of p1"),
    (lambda p: knn_points(p, p, K=-1), ValueError, "K must be at least 0, got -1"),
    (lambda p: knn_points(p, p, K=1.5), TypeError, "K must be an int, got 1.5"),
    (lambda p: knn_points(p, p, torch.tensor([1])), ValueError, "lengths1 must have shape (N,) = (2), got (1,)"),
    (lambda p: knn_points(p, p, None, torch.tensor([1, 6])), ValueError, "lengths2 must be between 0 and 5, got 6"),
    (lambda p: knn_points(p, p, None, torch.ones(2)), TypeError, "lengths2 must be int64 or int32, got float32"),
    (lambda p: knn_points(p.int(), p), TypeError, "p1 must be floating, got int32"),
    (lambda p: knn_points([1.0], p), TypeError, "p1 must be a torch.Tensor, got list"),
    (lambda p: knn_gather(p, p[0].long()), ValueError, "idx must have shape (N, L, K) with N = 2 as in x, got (5, 3)"),
    (lambda p: ball_query(p, p, radius=-1.0), ValueError, "radius must not be negative, got -1.0"),
    (lambda p: sample_farthest_points(p[0]), ValueError, "points must have shape (N, P, D), got (5, 3)"),
    (lambda p: sample_farthest_points(p, K=[1]), ValueError, "K must have one value per cloud, 2, got 1"),
    (lambda p: sample_farthest_points(p, torch.tensor([7, 1])), ValueError, "lengths must be between 0 and 5, got 7"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text[:30] for _, _, text in BAD])
def test_bad_arguments(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call(clouds(0, 5, 3))
    assert text in str(caught.value)
