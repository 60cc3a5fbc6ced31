"""VoxNet: a 3-D convolutional network on the occupancy of a grid; dense, and on the occupied part alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.pointcloud.pointwise import check_at_least_one, check_clouds
from fastcv.models.pointcloud.voxel_input import cube, flattened
from fastcv.ops import sparse_conv, sparse_max_pool, voxel_ids, voxel_occupancy, voxel_scatter
from fastcv.ops.sparse_kernel_map import KernelMap, layer_geometry
from fastcv.sparse import SparseConvTensor
from fastcv.sparse.inference import Kept, prepared

__all__ = ["SparseVoxNet", "VoxNet"]

_SLOPE = 0.1


class VoxNet(nn.Module):
    """Classify clouds by a grid of the places where there are points.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    grid : int
        Voxels along each side; 32 in the paper.
    extent : float
        The grid goes from -extent to extent along each axis, in the unit of the points; those outside are not seen.
    dropout : three floats
        Probabilities behind the first convolution, the pooling and the first fully connected layer.

    Notes
    -----
    921 736 parameters for 40 classes and 32 voxels. Clouds should lie around the origin, in the unit ball
    (:func:`fastcv.data.to_unit_ball`).

    References
    ----------
    Maturana, Scherer: VoxNet: A 3D Convolutional Neural Network for Real-Time Object Recognition (2015), section III.

    Examples
    --------
    >>> model = VoxNet(num_classes=10).eval()
    >>> model(torch.rand(2, 500, 3)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 40,
        grid: int = 32,
        extent: float = 1.1,
        dropout: tuple[float, float, float] = (0.2, 0.3, 0.4),
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes, "num_classes")
        self.num_classes = num_classes
        if grid < 11:
            raise ValueError(f"grid must be at least 11, so that pooling leaves a voxel, got {grid}")
        self.grid, self.range = grid, cube(extent)
        self.voxel_size = (self.range[3] - self.range[0]) / grid
        self.side = ((grid - 5) // 2 + 1 - 2) // 2
        self.conv1, self.conv2 = nn.Conv3d(1, 32, 5, stride=2), nn.Conv3d(32, 32, 3)
        self.fc1, self.fc2 = nn.Linear(32 * self.side**3, 128), nn.Linear(128, num_classes)
        self.drop1, self.drop2, self.drop3 = (nn.Dropout(p) for p in dropout)

    def occupancy(self, points: Tensor) -> Tensor:
        """Return the grids (B, Z, Y, X) of clouds (B, N, 3 or more): 1 where there is a point, else 0."""
        rows, offsets = self._rows(points)
        return voxel_occupancy(rows, self.voxel_size, self.range, offsets=offsets).to(points.dtype)

    def _rows(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return clouds behind each other, and where each begins."""
        check_clouds(points, max(3, points.shape[-1]) if isinstance(points, Tensor) and points.dim() else 3)
        return flattened(points.detach())

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of clouds (B, N, 3 or more)."""
        return self.classify_grid(self.occupancy(points))

    def classify_grid(self, grid: Tensor) -> Tensor:
        """Return the logits of grids (B, Z, Y, X) as :meth:`occupancy` gives them."""
        self._check_grid(grid)
        x = self.drop1(F.leaky_relu(self.conv1(grid[:, None]), _SLOPE))
        x = F.max_pool3d(F.leaky_relu(self.conv2(x), _SLOPE), 2)
        return self._classify(x)

    def _check_grid(self, grid: Tensor) -> None:
        side = self.grid
        if grid.dim() != 4 or grid.shape[1:] != (side, side, side):
            raise ValueError(f"grid must have shape (B, {side}, {side}, {side}), got {tuple(grid.shape)}")

    def _classify(self, x: Tensor) -> Tensor:
        x = self.drop3(F.relu(self.fc1(self.drop2(x).flatten(1))))
        logits: Tensor = self.fc2(x)
        return logits


class SparseVoxNet(VoxNet):
    """:class:`VoxNet` that computes only where points are near: the same weights, and the same answers.

    A convolution's bias makes what is empty different from zero, but all of it alike. So features are kept as
    differences from what empty space has, which are zero away from the points.

    Parameters as of :class:`VoxNet`. In training, dropout behind the first convolution drops differences.

    Examples
    --------
    >>> dense, sparse = VoxNet(10).eval(), SparseVoxNet(10).eval()
    >>> _ = sparse.load_state_dict(dense.state_dict())
    >>> points = torch.rand(2, 500, 3)
    >>> torch.allclose(dense(points), sparse(points), atol=1e-5)
    True
    """

    _kept: tuple[Kept, Kept] | None = None

    def make_ready(self) -> list[tuple[str, str]]:
        """Make the convolutions ready for inference; see :func:`fastcv.optimize`."""
        convs = (self.conv1, self.conv2)
        if type(self).classify_sites is not SparseVoxNet.classify_sites or {type(c) for c in convs} != {nn.Conv3d}:
            return []
        self._kept = (Kept(), Kept())
        return [("conv1", "leaky_relu"), ("conv2", "")]

    def train(self, mode: bool = True) -> Any:
        """Set training or evaluation mode; an optimized network cannot train."""
        if mode and self._kept is not None:
            raise RuntimeError("an optimized network cannot be trained: it keeps its packed weights")
        return super().train(mode)

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of clouds (B, N, 3 or more)."""
        rows, offsets = self._rows(points)
        ids = voxel_ids(rows, self.voxel_size, self.range, offsets)
        occupied, sites, _ = voxel_scatter(rows.new_ones(len(rows), 1), ids, "max")
        return self.classify_sites(SparseConvTensor(occupied, sites, [self.grid] * 3, points.shape[0]))

    def classify_grid(self, grid: Tensor) -> Tensor:
        """Return the logits of grids (B, Z, Y, X) as :meth:`occupancy` gives them."""
        self._check_grid(grid)
        return self.classify_sites(SparseConvTensor.from_dense(grid[..., None]))

    def classify_sites(self, x: SparseConvTensor) -> Tensor:
        """Return the logits of the occupied sites of grids."""
        return self._classify(self._pooled(x))

    def _pooled(self, x: SparseConvTensor) -> Tensor:
        """Return what comes out of the pooling (B, 32, Z, Y, X)."""
        bias1, bias2 = self.conv1.bias, self.conv2.bias
        assert bias1 is not None
        assert bias2 is not None
        empty = F.leaky_relu(bias1, _SLOPE)
        kept1, kept2 = self._kept or (None, None)
        x = _convolve(x, self.conv1, bias1, "leaky_relu", kept1)
        y = x.features
        in_place = kept1 is not None and y.dtype is empty.dtype and not (y.requires_grad or empty.requires_grad)
        x = x.replace_feature(self.drop1(y.sub_(empty) if in_place else y - empty))
        before = self.conv2.weight.sum((2, 3, 4)) @ empty + bias2
        x = _convolve(x, self.conv2, None, None, kept2)
        links, wanted = _links(x, (2, 2, 2), (2, 2, 2))
        largest = sparse_max_pool(x.features, links.neighbours, _reverse(links, wanted))
        filled = (links.neighbours >= 0).all(0)[:, None]  # no empty voxel among the eight
        largest = torch.where(filled, largest, largest.relu())
        empty = F.leaky_relu(before, _SLOPE)  # leaky ReLU keeps the order, so the largest come first
        x = x._output(F.leaky_relu(largest + before, _SLOPE) - empty, links, None)
        return x.dense() + empty[:, None, None, None]


def _links(x: SparseConvTensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> tuple[KernelMap, bool]:
    """Return the kernel map of a layer without padding, and whether its reverse will be wanted."""
    wanted = x._wants_gradient()
    return x._map_for(layer_geometry(3, kernel, stride, 0, 1), None, wanted), wanted


def _reverse(links: KernelMap, wanted: bool) -> Tensor:
    return links.reverse if wanted else links.neighbours.new_empty((0, links.indices.shape[0]))


def _convolve(
    x: SparseConvTensor, conv: nn.Conv3d, bias: Tensor | None, activation: str | None, kept: Kept | None
) -> SparseConvTensor:
    """Apply a dense layer's weight to a sparse tensor, and a bias and leaky ReLU to what comes out."""
    links, wanted = _links(x, conv.kernel_size, conv.stride)
    run = None if kept is None else prepared(conv, kept, x.features, None, None, activation, _SLOPE, bias is not None)
    if run is not None:
        output = run(links.neighbours, links.order)
    else:
        weight = conv.weight.permute(0, 2, 3, 4, 1)
        output = sparse_conv(x.features, weight, bias, links.neighbours, _reverse(links, wanted))
        output = output if activation is None else F.leaky_relu(output, _SLOPE)
    return x._output(output, links, None)
