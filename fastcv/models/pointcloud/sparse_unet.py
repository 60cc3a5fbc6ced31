"""A residual U-Net on sparse voxels: a label for each point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastcv._hooks import is_untouched
from fastcv.models.pointcloud.pointwise import check_at_least_one, check_clouds
from fastcv.models.pointcloud.voxel_input import flattened, mean_voxels
from fastcv.ops import devoxelize, voxel_grid_size
from fastcv.sparse import (
    SparseBatchNorm,
    SparseConv3d,
    SparseConvTensor,
    SparseInverseConv3d,
    SparseModule,
    SparseReLU,
    SparseSequential,
    SubMConv3d,
)
from fastcv.sparse.inference import JoinedTensor, follow, is_optimized, make_ready

__all__ = ["ResidualBlock", "SparseUNet"]


class ResidualBlock(SparseModule):
    """Two submanifold convolutions, each with batch norm, around which the input is added.

    Parameters
    ----------
    before, after : int
        Channels; where they differ, the input is projected.
    key : str
        Name of the kernel map that all blocks of a level share.
    """

    def __init__(self, before: int, after: int, key: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = SubMConv3d(before, after, 3, bias=False, indice_key=key), SparseBatchNorm(after)
        self.conv2, self.bn2 = SubMConv3d(after, after, 3, bias=False, indice_key=key), SparseBatchNorm(after)
        self.project = nn.Identity() if before == after else nn.Linear(before, after, bias=False)

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Return features of ``after`` channels at the same sites."""
        y = follow(self.conv1, self.bn1, "relu", x)
        if y is None:
            y = self.bn1(self.conv1(x))
            y = y.replace_feature(y.features.relu_())
        same = _projected(self.project, x)
        z = follow(self.conv2, self.bn2, "relu", y, same)
        if z is None:
            z = self.bn2(self.conv2(y))
            z = z.replace_feature((z.features + same).relu_())
        return z  # and with it the map

    def make_ready(self) -> list[tuple[str, str]]:
        """Make the convolutions ready for inference; see :func:`fastcv.optimize`."""
        made = []
        for name, norm, what in (("conv1", self.bn1, "relu"), ("conv2", self.bn2, "addition, relu")):
            if type(self).forward is ResidualBlock.forward and make_ready(getattr(self, name), norm):
                made.append((name, f"batch normalisation, {what}"))
        return made


def _projected(project: nn.Module, x: SparseConvTensor) -> Tensor:
    """Return ``project(x.features)``, without a copy of features that lie in two tensors."""
    if not isinstance(x, JoinedTensor) or type(project) is not nn.Linear or not is_untouched(project):
        output: Tensor = project(x.features)
        return output
    first, second = x.parts
    weight = project.weight.t()
    return torch.addmm(first @ weight[: first.shape[1]], second, weight[first.shape[1] :])


class SparseUNet(nn.Module):
    """Classify each point of a cloud by a U-Net on the voxels that hold points.

    Parameters
    ----------
    num_classes : int
        Number of logits per point.
    voxel_size : float or (float, float, float)
        Sides of a voxel along x, y, z, in the unit of the points.
    point_cloud_range : six floats
        x, y, z from which and x, y, z to which the grid goes. Points outside get logits of zero.
    in_channels : int
        Columns of the points: x, y, z, and others such as the reflectance.
    channels : sequence of int
        Channels of the levels, finest first; each has voxels twice as large as the one before.
    blocks : int
        Residual blocks per level, on either side.
    height : float, optional
        What z is divided by to become a feature; None: z is none. Where the ground is level, height tells much.

    Notes
    -----
    Time and memory grow with the occupied voxels, not with the grid.

    References
    ----------
    Graham, Engelcke, van der Maaten: 3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (2018);
    Choy, Gwak, Savarese: 4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks (2019), figure 4.

    Examples
    --------
    >>> model = SparseUNet(5, voxel_size=0.1, point_cloud_range=[-1, -1, -1, 1, 1, 1], channels=(8, 16)).eval()
    >>> model(2 * torch.rand(2, 300, 3) - 1).shape
    torch.Size([2, 300, 5])
    """

    def __init__(
        self,
        num_classes: int,
        voxel_size: float | Sequence[float],
        point_cloud_range: Sequence[float],
        in_channels: int = 3,
        channels: Sequence[int] = (16, 32, 48, 64),
        blocks: int = 1,
        height: float | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes, "num_classes")
        self.num_classes = num_classes
        check_at_least_one(len(channels), "the number of channels")
        check_at_least_one(blocks, "blocks")
        if in_channels < 3:
            raise ValueError(f"in_channels must be at least 3, for x, y and z, got {in_channels}")
        if height is not None and not height > 0:
            raise ValueError(f"height must be positive, got {height}")
        cells = voxel_grid_size(point_cloud_range, voxel_size)
        factor = 2 ** (len(channels) - 1)  # the grid is filled up, so that each level halves it
        self.cells = [-(-size // factor) * factor for size in reversed(cells)]
        self.voxel_size, self.range = voxel_size, list(point_cloud_range)
        self.in_channels, self.height = in_channels, height
        first = in_channels + (height is not None)
        self.stem = SparseSequential(
            SubMConv3d(first, channels[0], 3, bias=False, indice_key="level0"),
            SparseBatchNorm(channels[0]),
            SparseReLU(inplace=True),
        )
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            key = f"level{level}"
            self.encoder.append(SparseSequential(*(ResidualBlock(width, width, key) for _ in range(blocks))))
            if level + 1 == len(channels):
                break
            below, link = channels[level + 1], f"down{level}"
            down = SparseConv3d(width, below, 2, stride=2, bias=False, indice_key=link)
            self.down.append(SparseSequential(down, SparseBatchNorm(below), SparseReLU(inplace=True)))
            up = SparseInverseConv3d(below, width, 2, indice_key=link, bias=False)
            self.up.append(SparseSequential(up, SparseBatchNorm(width), SparseReLU(inplace=True)))
            widths = [2 * width] + [width] * blocks
            self.decoder.append(
                SparseSequential(*(ResidualBlock(a, width, key) for a, _ in zip(widths, range(blocks), strict=False)))
            )
        self.head = nn.Linear(channels[0], num_classes)

    def forward(self, points: Tensor | list[Tensor], offsets: Tensor | None = None) -> Any:
        """Return logits for each point.

        Parameters
        ----------
        points : Tensor (B, N, in_channels) or (P, in_channels), or list of Tensor (N, in_channels)
            Clouds; or one, or with ``offsets`` several of different sizes behind each other; or a list of such.
        offsets : Tensor (B + 1,), optional
            int64: cloud b is the rows ``offsets[b]`` to ``offsets[b + 1]``.

        Returns
        -------
        Tensor (B, N, num_classes) or (P, num_classes), or list of Tensor (N, num_classes)
        """
        if isinstance(points, list | tuple):
            sizes = [len(cloud) for cloud in points]
            starts = torch.tensor([0, *sizes], device=points[0].device).cumsum(0)
            return list(self.forward(torch.cat(points), starts).split(sizes))
        batched = isinstance(points, Tensor) and points.dim() == 3
        check_clouds(points if batched or not isinstance(points, Tensor) else points[None], self.in_channels)
        if batched:
            rows, offsets = flattened(points)
        else:
            rows = points
            offsets = torch.tensor([0, len(points)], device=points.device) if offsets is None else offsets
        inputs = rows if self.height is None else torch.cat([rows, rows[:, 2:3] / self.height], 1)
        features, sites = mean_voxels(inputs, self.voxel_size, self.range, offsets)
        x = self.classify_voxels(SparseConvTensor(features, sites, self.cells, len(offsets) - 1))
        logits = devoxelize(
            x.features, sites, rows.detach(), self.voxel_size, self.range, mode="nearest", offsets=offsets
        )
        return logits.view(*points.shape[:-1], -1)

    def classify_voxels(self, x: SparseConvTensor) -> SparseConvTensor:
        """Return the logits of voxels."""
        x = self.stem(x)
        skipped = []
        for level, blocks in enumerate(self.encoder):
            x = blocks(x)
            if level < len(self.down):
                skipped.append(x)
                x = self.down[level](x)
        for level in reversed(range(len(self.up))):
            x, skip = self.up[level](x), skipped[level].features
            first = next(self.decoder[level].children(), None)
            if is_optimized(getattr(first, "conv1", None)):
                x = JoinedTensor(x, skip)
            else:
                x = x.replace_feature(torch.cat([x.features, skip], 1))
            x = self.decoder[level](x)
        return x.replace_feature(self.head(x.features))
