"""Layers that work point by point: the MLPs that PointNet and PointNet++ share among all points.

The modules are those of published checkpoints, convolutions of kernel one and batch norms; the features are rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.pointcloud.counted_norm import is_ordinary
from fastcv.ops import group_points

__all__ = [
    "FullyConnected",
    "check_at_least_one",
    "check_clouds",
    "convolutions",
    "folded",
    "largest",
    "largest_of_layer",
    "norms_of",
    "pointwise",
    "run_mlp",
]

Convolution = nn.Conv1d | nn.Conv2d | nn.Linear


def check_clouds(points: Tensor, columns: int) -> None:
    """Raise an error unless ``points`` are finite clouds (B, N, columns) of at least one point each."""
    if not isinstance(points, Tensor):
        raise TypeError(f"points must be a torch.Tensor, got {type(points).__name__}")
    if not points.is_floating_point():
        raise TypeError(f"points must be of a floating dtype, got {str(points.dtype).removeprefix('torch.')}")
    if points.dim() != 3 or points.shape[2] != columns:
        raise ValueError(f"points must have shape (B, N, {columns}), got {tuple(points.shape)}")
    if torch.compiler.is_compiling() or points.device.type != "cpu":
        return  # looking would break the graph, or cost a synchronisation
    if points.shape[1] == 0:
        raise ValueError(f"points must have at least one point per cloud, got shape {tuple(points.shape)}")
    finite = points.isfinite().all(2)
    if not bool(finite.all()):
        cloud, row = (~finite).nonzero()[0].tolist()
        raise ValueError(f"points must be finite, got {points[cloud, row].tolist()} in cloud {cloud}, point {row}")


def norms_of(widths: Iterable[int]) -> list[nn.BatchNorm1d]:
    """Return a batch norm for each width; rows of features need the one-dimensional form for all of them."""
    return [nn.BatchNorm1d(width) for width in widths]


def folded(conv: Convolution, norm: nn.BatchNorm1d | None) -> tuple[Tensor, Tensor]:
    """Return weight (out, in) and bias of a layer with its batch norm, which is in evaluation, taken into them."""
    weight, bias = conv.weight.flatten(1), conv.bias
    assert bias is not None
    if norm is None:
        return weight, bias
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = torch.rsqrt(variance + norm.eps) * norm.weight
    return weight * scale[:, None], (bias - mean) * scale + norm.bias


def pointwise(x: Tensor, conv: Convolution, norm: nn.BatchNorm1d | None = None, relu: bool = True) -> Tensor:
    """Apply a layer of kernel one, batch norm and ReLU to the last axis of (..., C)."""
    if norm is not None and norm.training:
        x = F.linear(x, conv.weight.flatten(1), conv.bias)
        x = norm(x.reshape(-1, x.shape[-1])).view(x.shape)
    else:
        x = F.linear(x, *folded(conv, norm))
    if not relu:
        return x
    return F.relu(x) if torch.is_grad_enabled() else F.relu_(x)


def run_mlp(x: Tensor, convs: nn.ModuleList, norms: nn.ModuleList) -> Tensor:
    """Apply layers one after the other to the last axis of (..., C), each with batch norm and ReLU."""
    for conv, norm in zip(convs, norms, strict=True):
        x = pointwise(x, conv, norm)  # type: ignore[arg-type]
    return x


def largest(x: Tensor) -> Tensor:
    """Return the largest of all points (B, N, C), whose gradient goes to one point alone."""
    return x.max(1).values if x.requires_grad else x.amax(1)


def largest_of_layer(x: Tensor, conv: Convolution, norm: nn.BatchNorm1d) -> Tensor:
    """Return the largest of all points of a layer with batch norm and without ReLU: from (B, N, in) to (B, out).

    In training the layer's output at all points is needed for its largest alone, and for mean and variance, which
    follow from those of the input: so only the largest are kept, and the gradient needs no product with the rest.
    """
    if not is_ordinary(norm, x) or x.shape[0] * x.shape[1] <= x.shape[2]:
        return largest(pointwise(x, conv, norm, relu=False))
    weight, rows = conv.weight.flatten(1), x.flatten(0, 1)
    mean = rows.mean(0)
    centred = rows - mean
    covariance = centred.T @ centred / len(rows)
    middle, variance = F.linear(mean, weight, conv.bias), ((weight @ covariance) * weight).sum(1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(middle, norm.momentum or 0.0)
        norm.running_var.lerp_(variance * (len(rows) / (len(rows) - 1)), norm.momentum or 0.0)
        chosen = _places_of_largest(x, torch.where(norm.weight[:, None] < 0, -weight, weight))
    found = (group_points(x, chosen[:, :, None])[:, :, 0] * weight).sum(2)
    found = found if conv.bias is None else found + conv.bias
    return (found - middle) * (torch.rsqrt(variance + norm.eps) * norm.weight) + norm.bias


def _places_of_largest(x: Tensor, weight: Tensor) -> Tensor:
    """Return the point (B, out), int32, at which each linear function of (B, N, in) is largest."""
    places = []
    for points in x:
        values = (points @ weight.T)[None, :, None].permute(0, 3, 1, 2)  # channels last: torch's pooling is fast there
        places.append(F.max_pool2d(values, (len(points), 1), return_indices=True)[1].flatten())
    return torch.stack(places).int()


class FullyConnected(nn.Module):
    """The three last layers of the classifiers: 1024 to 512 to 256 to the classes.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        check_at_least_one(num_classes, "num_classes")
        self.num_classes = num_classes
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 512), nn.Linear(512, 256), nn.Linear(256, num_classes)
        self.bn1, self.bn2 = norms_of((512, 256))


def check_at_least_one(value: int, name: str) -> None:
    """Raise ValueError for a number below one."""
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def convolutions(kind: type[nn.Conv1d] | type[nn.Conv2d], before: int, widths: Sequence[int]) -> nn.ModuleList:
    """Return layers of kernel one from ``before`` channels through ``widths``."""
    return nn.ModuleList(kind(a, b, 1) for a, b in zip([before, *widths], widths, strict=False))
