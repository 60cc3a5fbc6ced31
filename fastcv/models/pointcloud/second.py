"""SECOND's backbone: from a scan to its map from above."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fastcv.models.pointcloud.pointwise import check_clouds
from fastcv.ops import voxel_grid_size, voxelize
from fastcv.sparse import SparseConv3d, SparseConvTensor, SparseSequential, SubMConv3d

__all__ = ["SECONDBackbone"]

_Norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


def _layer(before: int, after: int, key: str, stride: int = 1, padding: int | tuple[int, ...] = 1) -> SparseSequential:
    """Convolution, norm and activation; submanifold unless it has a stride."""
    if stride == 1:
        conv: nn.Module = SubMConv3d(before, after, 3, bias=False, indice_key=key)
    else:
        conv = SparseConv3d(before, after, 3, stride=stride, padding=padding, bias=False, indice_key=key)
    return SparseSequential(conv, _Norm(after), nn.ReLU())


class SECONDBackbone(nn.Module):
    """Voxels, sparse convolutions to an eighth of the resolution, and the dense map from above.

    Parameters
    ----------
    in_channels : int
        Columns of the points: x, y, z, reflectance ...
    voxel_size : (float, float, float)
        Sides of a voxel along x, y, z in metres.
    point_cloud_range : six floats
        x, y, z from which and x, y, z to which the grid goes.
    max_points_per_voxel, max_voxels : int
        Points of a voxel that count in its mean, and voxels of a scan, at most.

    Notes
    -----
    Names and shapes of the modules are those of OpenPCDet's ``VoxelBackBone8x``, whose weights load when the prefix
    ``backbone_3d.`` is taken off. As there, the grid has one more layer on top. The defaults are those for KITTI.

    References
    ----------
    Yan, Mao, Li: SECOND: Sparsely Embedded Convolutional Detection (2018), section 3.1.

    Examples
    --------
    >>> model = SECONDBackbone(voxel_size=(0.4, 0.4, 0.1), point_cloud_range=[0, -16, -3, 32, 16, 1]).eval()
    >>> points = torch.rand(1, 500, 4) * torch.tensor([32, 16, 1, 1.0])
    >>> model(points).shape
    torch.Size([1, 256, 10, 10])
    """

    out_channels = 128  # per layer of the map

    def __init__(
        self,
        in_channels: int = 4,
        voxel_size: Sequence[float] = (0.05, 0.05, 0.1),
        point_cloud_range: Sequence[float] = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0),
        max_points_per_voxel: int = 5,
        max_voxels: int = 40_000,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.voxel_size, self.range = tuple(voxel_size), tuple(point_cloud_range)
        self.max_points_per_voxel, self.max_voxels = max_points_per_voxel, max_voxels
        x, y, z = voxel_grid_size(self.range, self.voxel_size)
        self.cells = [z + 1, y, x]
        self.conv_input = SparseSequential(
            SubMConv3d(in_channels, 16, 3, bias=False, indice_key="subm1"), _Norm(16), nn.ReLU()
        )
        self.conv1 = SparseSequential(_layer(16, 16, "subm1"))
        self.conv2 = self._stage(16, 32, 2, 1)
        self.conv3 = self._stage(32, 64, 3, 1)
        self.conv4 = self._stage(64, 64, 4, (0, 1, 1))
        down = SparseConv3d(64, 128, (3, 1, 1), stride=(2, 1, 1), bias=False, indice_key="spconv_down2")
        self.conv_out = SparseSequential(down, _Norm(128), nn.ReLU())

    @staticmethod
    def _stage(before: int, after: int, number: int, padding: int | tuple[int, ...]) -> SparseSequential:
        key = f"subm{number}"
        first = _layer(before, after, f"spconv{number}", stride=2, padding=padding)
        return SparseSequential(first, _layer(after, after, key), _layer(after, after, key))

    def forward(self, points: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return the maps from above (B, 128 * Z, Y, X).

        Parameters
        ----------
        points : Tensor (B, N, in_channels) or (P, in_channels)
            Scans; or one, or with ``offsets`` several of different sizes behind each other.
        offsets : Tensor (B + 1,), optional
            int64: scan b is the rows ``offsets[b]`` to ``offsets[b + 1]``.
        """
        x = self.stages(self.voxels(points, offsets))[-1]
        grid: Tensor = self.conv_out(x).dense()
        return grid.flatten(1, 2)

    def voxels(self, points: Tensor, offsets: Tensor | None = None) -> SparseConvTensor:
        """Return the voxels of scans, with the mean of their points."""
        if points.dim() == 3:
            offsets = torch.arange(len(points) + 1, device=points.device) * points.shape[1]
        check_clouds(points if points.dim() == 3 else points[None], self.in_channels)
        rows = points.reshape(-1, self.in_channels)
        if offsets is None:
            offsets = torch.tensor([0, len(rows)], device=rows.device)
        inside, coords, count = voxelize(
            rows, self.voxel_size, self.range, self.max_points_per_voxel, self.max_voxels, offsets
        )
        mean = inside.sum(1) / count[:, None].to(inside.dtype)
        return SparseConvTensor(mean, coords, self.cells, len(offsets) - 1)

    def stages(self, x: SparseConvTensor) -> list[SparseConvTensor]:
        """Return the sparse tensors of the four stages, finest first."""
        x = self.conv_input(x)
        outputs = []
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = stage(x)
            outputs.append(x)
        return outputs
