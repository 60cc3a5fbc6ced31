"""A network on an octree: occupied octants of several sizes, small ones merged level by level."""

from __future__ import annotations

from torch import Tensor, nn

from fastcv.models.pointcloud.pointwise import check_at_least_one, check_clouds
from fastcv.models.pointcloud.voxel_input import cube, flattened, mean_voxels
from fastcv.sparse import SparseBatchNorm, SparseConvTensor, SparseMaxPool3d, SparseReLU, SparseSequential, SubMConv3d

__all__ = ["OctNet"]

_COARSEST = 2  # depth at which the octants become a dense grid of four along each side


class OctNet(nn.Module):
    """Classify clouds by convolutions on the octants that hold points, from the finest to a grid of 4 along each side.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    depth : int
        The finest octants are ``2 ** depth`` along each side, at least 3; 5 compares with VoxNet's grid.
    in_channels : int
        Columns of the points: x, y, z, and others such as a normal.
    extent : float
        The root goes from -extent to extent along each axis; points outside are not seen.
    dropout : float
        Probability of dropout before the last layer.

    Notes
    -----
    Channels double from level to level, ``2 ** (9 - depth)`` at each but at least 4, as in O-CNN. Empty octants cost
    nothing, so time grows with the surface of a shape, 4 times per level, where a dense grid grows 8 times.

    References
    ----------
    Riegler, Ulusoy, Geiger: OctNet: Learning Deep 3D Representations at High Resolutions (2017); Wang et al.: O-CNN:
    Octree-based Convolutional Neural Networks for 3D Shape Analysis (2017), section 5.

    Examples
    --------
    >>> model = OctNet(num_classes=10, depth=5).eval()
    >>> model(torch.rand(2, 500, 3)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, num_classes: int = 40, depth: int = 5, in_channels: int = 3, extent: float = 1.1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes, "num_classes")
        self.num_classes = num_classes
        if not _COARSEST < depth <= 10:
            raise ValueError(f"depth must be 3 to 10, got {depth}")
        if in_channels < 3:
            raise ValueError(f"in_channels must be at least 3, for x, y and z, got {in_channels}")
        self.depth, self.in_channels, self.range = depth, in_channels, cube(extent)
        widths = [max(4, 2 ** (9 - level)) for level in range(depth, _COARSEST, -1)]
        levels = []
        for before, width, level in zip([in_channels + 1, *widths], widths, range(depth, 0, -1), strict=False):
            conv = SubMConv3d(before, width, 3, bias=False, indice_key=f"depth{level}")
            levels.append(SparseSequential(conv, SparseBatchNorm(width), SparseReLU(), SparseMaxPool3d(2)))
        self.levels = nn.ModuleList(levels)
        cells = (2**_COARSEST) ** 3
        self.fc1, self.bn1 = nn.Linear(widths[-1] * cells, 128, bias=False), nn.BatchNorm1d(128)
        self.drop, self.fc2 = nn.Dropout(dropout), nn.Linear(128, num_classes)

    def octants(self, points: Tensor) -> SparseConvTensor:
        """Return the finest occupied octants of clouds (B, N, in_channels): offset, further columns, and a one."""
        check_clouds(points, self.in_channels)
        rows, offsets = flattened(nn.functional.pad(points, (0, 1), value=1.0))
        side = 2**self.depth
        features, sites = mean_voxels(rows, (self.range[3] - self.range[0]) / side, self.range, offsets)
        return SparseConvTensor(features, sites, [side] * 3, points.shape[0])

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of clouds (B, N, in_channels)."""
        x = self.octants(points)
        for level in self.levels:
            x = level(x)
        y = self.bn1(self.fc1(x.dense().flatten(1))).relu()
        logits: Tensor = self.fc2(self.drop(y))
        return logits
