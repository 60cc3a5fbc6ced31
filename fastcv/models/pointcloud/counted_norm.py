"""Batch norm over rows some of which count for several, as if they were there so many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["counted_norm", "has_counted_form", "is_ordinary"]

_BLOCK = 2**18  # numbers that are worked on at once: they stay in the cache


def is_ordinary(norm: nn.Module, x: Tensor) -> bool:
    """Whether a batch norm is torch's own and in training, and what it gets is on the CPU, in its own dtype."""
    return (
        type(norm) is nn.BatchNorm1d
        and norm.training
        and norm.track_running_stats
        and norm.affine
        and norm.momentum is not None
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def has_counted_form(norms: nn.ModuleList, x: Tensor) -> bool:
    """Whether :func:`counted_norm` can stand for all of these batch norms."""
    return all(is_ordinary(norm, x) for norm in norms)


def counted_norm(
    x: Tensor, counts: Tensor, norm: nn.BatchNorm1d, pool: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Apply a batch norm in training, and ReLU.

    Parameters
    ----------
    x : Tensor (R, C)
        Rows.
    counts : Tensor (R,)
        How many rows each stands for.
    norm : nn.BatchNorm1d
        Its statistics are updated.
    pool : callable, optional
        Takes the largest of rows, before norm and ReLU, which keep the order.
    """
    total = counts.sum()
    if pool is None:
        apply: Any = _NormRelu.apply
        x, mean, variance = apply(x, counts, norm.weight, norm.bias, norm.eps)
    else:
        moments: Any = _Moments.apply
        mean, variance = moments(x, counts)
        sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0).to(x.dtype)
        x = pool(x) if bool((sign > 0).all()) else pool(x * sign) * sign
        x = ((x - mean) * (torch.rsqrt(variance + norm.eps) * norm.weight) + norm.bias).relu()
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked += 1
        for kept, seen in ((norm.running_mean, mean), (norm.running_var, variance * (total / (total - 1)))):
            assert kept is not None
            kept.lerp_(seen, norm.momentum or 0.0)
    return x


def _blocks(x: Tensor) -> Iterator[slice]:
    step = max(1, _BLOCK // max(1, x.shape[1]))
    return (slice(first, first + step) for first in range(0, len(x), step))


def _moments(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    total = counts.sum()
    mean = counts @ x / total
    variance = torch.zeros_like(mean)
    for some in _blocks(x):
        variance += counts[some] @ (x[some] - mean).square_()
    return mean, variance / total


class _Moments(torch.autograd.Function):
    """Mean and variance of rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = _moments(x, counts)
        ctx.save_for_backward(x, counts, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor, None]:
        x, counts, mean = ctx.saved_tensors
        share = counts / counts.sum()
        gradient = torch.empty_like(x)
        for some in _blocks(x):
            part = torch.sub(x[some], mean, out=gradient[some])
            part.mul_(2 * of_variance).add_(of_mean).mul_(share[some, None])
        return gradient, None


class _NormRelu(torch.autograd.Function):
    """Batch norm and ReLU; mean and variance are returned as well, without a gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, counts: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = _moments(x, counts)
        inverse = torch.rsqrt(variance + eps)
        scale = inverse * weight
        shift, y = bias - mean * scale, torch.empty_like(x)
        for some in _blocks(x):
            torch.addcmul(shift, x[some], scale, out=y[some]).clamp_min_(0)
        ctx.save_for_backward(x, counts, y, mean, inverse, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, counts, y, mean, inverse, scale = ctx.saved_tensors
        gradient = torch.empty_like(x)
        of_weight, of_bias = torch.zeros_like(mean), torch.zeros_like(mean)
        for some in _blocks(x):
            passed = torch.mul(of_y[some], y[some] > 0, out=gradient[some])
            of_bias += passed.sum(0)
            of_weight += ((x[some] - mean) * passed).sum(0)
        of_weight *= inverse
        share = counts / counts.sum()
        for some in _blocks(x):
            rest = (x[some] - mean).mul_(inverse * of_weight).add_(of_bias).mul_(share[some, None])
            gradient[some].sub_(rest).mul_(scale)
        return gradient, None, of_weight, of_bias, None
