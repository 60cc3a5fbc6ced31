"""PointNet++'s layers: sets of points abstracted to fewer, and features brought back to all points."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.pointcloud.counted_norm import counted_norm, has_counted_form
from fastcv.models.pointcloud.pointwise import convolutions, folded, largest_of_layer, norms_of, pointwise, run_mlp
from fastcv.ops import ball_query, farthest_point_sample, group_points, knn, sparse_max_pool, three_interpolate

__all__ = ["FeaturePropagation", "MultiScaleSetAbstraction", "SetAbstraction"]

_ROWS = 2048  # neighbours whose features are held at once in inference: they stay in the cache


def sample(xyz: Tensor, count: int) -> Tensor:
    """Return the coordinates (B, count, 3) of points that cover the cloud; the first again where it has fewer."""
    chosen = farthest_point_sample(xyz.detach(), count)
    return group_points(xyz, torch.where(chosen < 0, chosen[:, :1], chosen))


def neighbourhood_features(
    xyz: Tensor, features: Tensor | None, centres: Tensor, radius: float, k: int,
    convs: nn.ModuleList, norms: nn.ModuleList, offsets_first: bool,
) -> Tensor:  # fmt: skip
    """Return (B, S, C): the largest, over the neighbours of each centre, of an MLP on their offsets and features."""
    learns = has_counted_form(norms, xyz)
    padded = (norms.training or torch.is_grad_enabled() or torch.compiler.is_compiling()) and not learns
    k = min(k, xyz.shape[1])
    indices = ball_query(centres.detach(), xyz.detach(), radius, k, repeat_first=padded)
    if learns:
        return _learn(xyz, features, centres, indices, convs, norms, offsets_first)
    if not padded:
        return _infer(xyz, features, centres, indices, convs, norms, offsets_first)
    offsets = group_points(xyz, indices) - centres[:, :, None]
    parts = [offsets] if features is None else [offsets, group_points(features, indices)]
    grouped = torch.cat(parts if offsets_first else parts[::-1], 3)
    return run_mlp(grouped, convs, norms).max(2).values


class _Neighbours(NamedTuple):
    """The real neighbours of all centres behind each other, those of a centre in order."""

    rows: Tensor  # of the points of all clouds
    owners: Tensor  # the centre of each
    nth: Tensor  # which of its centre's neighbours each is
    sizes: Tensor  # how many a centre has

    @classmethod
    def of(cls, indices: Tensor, points: int) -> _Neighbours:
        """Make them from a ball query's (B, S, K), -1 where there is none."""
        first = torch.arange(indices.shape[0], device=indices.device)[:, None, None] * points
        valid = (indices >= 0).flatten(0, 1)
        rows = (indices + first).flatten(0, 1)[valid]
        owners, nth = valid.nonzero().unbind(1)
        return cls(rows, owners, nth, valid.sum(1))


def _learn(
    xyz: Tensor, features: Tensor | None, centres: Tensor, indices: Tensor,
    convs: nn.ModuleList, norms: nn.ModuleList, offsets_first: bool,
) -> Tensor:  # fmt: skip
    """The same in training, of real neighbours alone: the first counts for all that it fills a ball up with.

    The first layer is linear in offset and features, so it is applied to points and centres before they meet.
    """
    k, found = indices.shape[2], _Neighbours.of(indices, xyz.shape[1])
    counts = torch.where(found.nth == 0, 1 + k - found.sizes[found.owners], 1).to(xyz.dtype)
    first: nn.Conv2d = convs[0]  # type: ignore[assignment]
    weight, bias = first.weight.flatten(1), first.bias
    offset = weight[:, :3] if offsets_first else weight[:, -3:]
    parts = [xyz] if features is None else [xyz, features] if offsets_first else [features, xyz]
    points = F.linear(torch.cat(parts, 2), weight, bias).flatten(0, 1)
    x = points.index_select(0, found.rows) - (centres @ offset.T).flatten(0, 1).index_select(0, found.owners)
    for conv, norm in zip(list(convs)[1:], norms, strict=False):
        x = pointwise(counted_norm(x, counts, norm), conv, relu=False)  # type: ignore[arg-type]
    places = found.owners.new_full((k, len(found.sizes)), -1, dtype=torch.int32)
    places[found.nth, found.owners] = torch.arange(len(x), dtype=torch.int32, device=x.device)
    reverse = places.new_full((k, len(x)), -1)
    reverse[found.nth, torch.arange(len(x), device=x.device)] = found.owners.int()
    last: nn.BatchNorm1d = norms[-1]  # type: ignore[assignment]
    largest = counted_norm(x, counts, last, lambda y: sparse_max_pool(y, places, reverse))
    return largest.view(*centres.shape[:2], -1)


def _infer(
    xyz: Tensor, features: Tensor | None, centres: Tensor, indices: Tensor,
    convs: nn.ModuleList, norms: nn.ModuleList, offsets_first: bool,
) -> Tensor:  # fmt: skip
    """The same without (B, S, K, C): real neighbours alone, a block of them at a time.

    The first layer is linear in offset and features, so it is applied to points and centres before they meet. A ball
    that is filled up with its first point has no other largest than without.
    """
    layers = [folded(conv, norm) for conv, norm in zip(convs, norms, strict=True)]  # type: ignore[arg-type]
    weight, bias = layers[0]
    of_offset = weight[:, :3] if offsets_first else weight[:, -3:]
    batch, count, _ = xyz.shape
    if features is None:
        points = F.linear(xyz, weight, bias)
    else:
        parts = [xyz, features] if offsets_first else [features, xyz]
        points = F.linear(torch.cat(parts, 2), weight, bias)
    points, middles = points.flatten(0, 1), (centres @ of_offset.T).flatten(0, 1)

    k = indices.shape[2]
    first = torch.arange(batch, device=xyz.device)[:, None, None] * count
    valid = (indices >= 0).view(-1, k)
    rows = (indices + first).view(-1, k)[valid]
    sizes = valid.sum(1)
    ends = sizes.cumsum(0)
    starts = ends - sizes
    owners = torch.repeat_interleave(sizes, output_size=rows.shape[0])
    step = max(1, _ROWS * len(sizes) // max(1, rows.shape[0]))
    bounds = [0, *ends[step - 1 :: step].tolist()]
    if len(sizes) % step:
        bounds.append(rows.shape[0])
    nth = torch.arange(k, device=xyz.device)[:, None]
    last_weight, last_bias = layers[-1]
    output = points.new_empty(len(sizes), last_bias.shape[0])
    for number, (low, high) in enumerate(pairwise(bounds)):
        some = slice(number * step, (number + 1) * step)
        x = points.index_select(0, rows[low:high])
        x -= middles.index_select(0, owners[low:high])
        for weight, bias in layers[1:-1]:
            x = F.linear(x.relu_(), weight, bias)
        if len(layers) > 1:
            x = F.linear(x.relu_(), last_weight)
        neighbours = torch.where(nth < sizes[some], starts[some] - low + nth, -1).int()
        output[some] = sparse_max_pool(x, neighbours, neighbours.new_empty(0, x.shape[0]))
    if len(layers) > 1:
        output += last_bias  # the largest first: adding and ReLU keep the order
    return output.relu_().view(batch, -1, output.shape[1])


class SetAbstraction(nn.Module):
    """Fewer points, each with features of its neighbours.

    Parameters
    ----------
    count : int or None
        Points to keep; None: one for the whole cloud.
    radius : float
        Neighbours are nearer than this.
    k : int
        Neighbours at most, the first by index.
    in_channels : int
        Features of the points, without the offset.
    widths : sequence of int
        Widths of the MLP.
    repeat : bool
        Keep the first point again and again where a cloud has fewer than ``count``, as the published code does. It has
        the same largest neighbours without, but not the same nearest.
    """

    def __init__(
        self, count: int | None, radius: float, k: int, in_channels: int, widths: Sequence[int], repeat: bool = True
    ) -> None:
        super().__init__()
        self.count, self.radius, self.k, self.repeat = count, radius, k, repeat
        self.mlp_convs = convolutions(nn.Conv2d, in_channels + 3, widths)
        self.mlp_bns = nn.ModuleList(norms_of(widths))

    def forward(self, xyz: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return coordinates (B, S, 3) and features (B, S, C) of points (B, N, 3) with features (B, N, F) or None."""
        if self.count is None:
            whole = xyz if features is None else torch.cat([xyz, features], 2)
            x = run_mlp(whole, self.mlp_convs[:-1], self.mlp_bns[:-1])
            x = largest_of_layer(x, self.mlp_convs[-1], self.mlp_bns[-1]).relu()  # type: ignore[arg-type]
            return xyz.new_zeros(xyz.shape[0], 1, 3), x[:, None]
        centres = sample(xyz, self.count if self.repeat else min(self.count, xyz.shape[1]))
        return centres, neighbourhood_features(
            xyz, features, centres, self.radius, self.k, self.mlp_convs, self.mlp_bns, offsets_first=True
        )


class MultiScaleSetAbstraction(nn.Module):
    """Fewer points, each with features of its neighbours within several radii.

    Parameters
    ----------
    count : int
        Points to keep.
    radii, ks, widths : sequences, one entry per scale
        Radius, neighbours at most, and widths of the MLP.
    in_channels : int
        Features of the points, without the offset.
    repeat : bool
        As of :class:`SetAbstraction`.
    """

    def __init__(
        self,
        count: int,
        radii: Sequence[float],
        ks: Sequence[int],
        in_channels: int,
        widths: Sequence[Sequence[int]],
        repeat: bool = True,
    ) -> None:
        super().__init__()
        self.count, self.radii, self.ks, self.repeat = count, tuple(radii), tuple(ks), repeat
        self.conv_blocks = nn.ModuleList(convolutions(nn.Conv2d, in_channels + 3, mlp) for mlp in widths)
        self.bn_blocks = nn.ModuleList(nn.ModuleList(norms_of(mlp)) for mlp in widths)

    def forward(self, xyz: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """As :meth:`SetAbstraction.forward`, the features of all scales behind each other."""
        centres = sample(xyz, self.count if self.repeat else min(self.count, xyz.shape[1]))
        scales = zip(self.radii, self.ks, self.conv_blocks, self.bn_blocks, strict=True)
        found = [
            neighbourhood_features(xyz, features, centres, *scale, offsets_first=False)  # type: ignore[arg-type]
            for scale in scales
        ]
        return centres, torch.cat(found, 2)


class FeaturePropagation(nn.Module):
    """Features of few points brought to many: interpolated between the three nearest, then an MLP.

    Parameters
    ----------
    in_channels : int
        Features of both together.
    widths : sequence of int
        Widths of the MLP.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.mlp_convs = convolutions(nn.Conv1d, in_channels, widths)
        self.mlp_bns = nn.ModuleList(norms_of(widths))

    def forward(self, many: Tensor, few: Tensor, features: Tensor | None, few_features: Tensor) -> Tensor:
        """Return the features (B, N, C) of points (B, N, 3), given (B, S, 3) with features and own ones or None."""
        squared, indices = knn(many.detach(), few.detach(), 3)
        moving = torch.is_grad_enabled() and (many.requires_grad or few.requires_grad)
        if moving:  # the same distances, with a gradient
            offsets = many[:, :, None] - group_points(few, indices)
            squared = torch.where(indices >= 0, offsets.square().sum(3), torch.inf)
        weights = 1 / (squared + 1e-8)  # no weight for no neighbour, whose distance is infinite
        weights = weights / weights.sum(2, keepdim=True)
        if moving:
            x = (group_points(few_features, indices) * weights[..., None]).sum(2)
        else:
            x = three_interpolate(few_features, indices, weights)
        if features is not None:
            x = torch.cat([features, x], 2)
        return run_mlp(x, self.mlp_convs, self.mlp_bns)
