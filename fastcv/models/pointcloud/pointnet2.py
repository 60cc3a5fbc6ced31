"""PointNet++: PointNet on neighbourhoods, level by level; with one radius per level (SSG) or several (MSG)."""

from __future__ import annotations

from torch import Tensor, nn

from fastcv.models.pointcloud.pointwise import FullyConnected, check_at_least_one, check_clouds, pointwise
from fastcv.models.pointcloud.set_abstraction import FeaturePropagation, MultiScaleSetAbstraction, SetAbstraction

__all__ = ["PointNet2", "PointNet2MSG", "PointNet2MSGSegmentation", "PointNet2Segmentation"]


class _Classifier(FullyConnected):
    """Three levels of set abstraction, and fully connected layers."""

    sa1: nn.Module
    sa2: nn.Module
    sa3: nn.Module

    def __init__(self, num_classes: int, in_channels: int, dropout: tuple[float, float]) -> None:
        super().__init__(num_classes)
        _check_columns(in_channels)
        self.in_channels = in_channels
        self.drop1, self.drop2 = nn.Dropout(dropout[0]), nn.Dropout(dropout[1])

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of clouds (B, N, in_channels)."""
        check_clouds(points, self.in_channels)
        xyz, features = points[:, :, :3], points[:, :, 3:] if self.in_channels > 3 else None
        for level in (self.sa1, self.sa2, self.sa3):
            xyz, features = level(xyz, features)
        assert features is not None
        x = self.drop1(pointwise(features[:, 0], self.fc1, self.bn1))
        x = self.drop2(pointwise(x, self.fc2, self.bn2))
        logits: Tensor = self.fc3(x)
        return logits


class PointNet2(_Classifier):
    """Classify clouds of points (PointNet++, single-scale grouping).

    Parameters
    ----------
    num_classes : int
        Number of logits.
    in_channels : int
        Columns of the points: x, y, z, and others such as a normal.

    Notes
    -----
    Clouds should lie around the origin, in the unit ball (:func:`fastcv.data.to_unit_ball`), for which the radii are
    made. Farthest points begin with the first one: the order of the points chooses among many good samples, and moves
    the answer a little. Checkpoints of yanx27/Pointnet_Pointnet2_pytorch load (``pointnet2_cls_ssg``). 1 475 688
    parameters for three columns and 40 classes. Without gradients, the features of all neighbours are never held at
    once.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space (2017).

    Examples
    --------
    >>> model = PointNet2(num_classes=10).eval()
    >>> model(torch.rand(2, 256, 3)).shape
    torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 40, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, (0.4, 0.4))
        self.sa1 = SetAbstraction(512, 0.2, 32, in_channels - 3, (64, 64, 128), repeat=False)
        self.sa2 = SetAbstraction(128, 0.4, 64, 128, (128, 128, 256), repeat=False)
        self.sa3 = SetAbstraction(None, 0.0, 0, 256, (256, 512, 1024))


class PointNet2MSG(_Classifier):
    """Classify clouds of points (PointNet++, multi-scale grouping), also where their density varies.

    Parameters and notes as in :class:`PointNet2`; checkpoints are those of ``pointnet2_cls_msg``, and three columns
    and 40 classes have 1 747 368 parameters.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.3.

    Examples
    --------
    >>> model = PointNet2MSG(num_classes=10).eval()
    >>> model(torch.rand(1, 256, 3)).shape
    torch.Size([1, 10])
    """

    def __init__(self, num_classes: int = 40, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, (0.4, 0.5))
        first, second = ((32, 32, 64), (64, 64, 128), (64, 96, 128)), ((64, 64, 128), (128, 128, 256), (128, 128, 256))
        self.sa1 = MultiScaleSetAbstraction(512, (0.1, 0.2, 0.4), (16, 32, 128), in_channels - 3, first, False)
        self.sa2 = MultiScaleSetAbstraction(128, (0.2, 0.4, 0.8), (32, 64, 128), 320, second, False)
        self.sa3 = SetAbstraction(None, 0.0, 0, 640, (256, 512, 1024))


class _Segmentation(nn.Module):
    """Four levels of set abstraction, and four of feature propagation back."""

    sa1: nn.Module
    sa2: nn.Module
    sa3: nn.Module
    sa4: nn.Module

    def __init__(self, num_classes: int, in_channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        check_at_least_one(num_classes, "num_classes")
        self.num_classes = num_classes
        _check_columns(in_channels)
        self.in_channels = in_channels
        self.fp4 = FeaturePropagation(widths[2] + widths[3], (256, 256))
        self.fp3 = FeaturePropagation(widths[1] + 256, (256, 256))
        self.fp2 = FeaturePropagation(widths[0] + 256, (256, 128))
        self.fp1 = FeaturePropagation(128, (128, 128, 128))
        self.conv1, self.bn1, self.drop1 = nn.Conv1d(128, 128, 1), nn.BatchNorm1d(128), nn.Dropout(0.5)
        self.conv2 = nn.Conv1d(128, num_classes, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits (B, N, num_classes) of clouds (B, N, in_channels)."""
        check_clouds(points, self.in_channels)
        xyz0 = points[:, :, :3]
        xyz1, x1 = self.sa1(xyz0, points)  # all columns are features, the place too
        xyz2, x2 = self.sa2(xyz1, x1)
        xyz3, x3 = self.sa3(xyz2, x2)
        xyz4, x4 = self.sa4(xyz3, x3)
        x3 = self.fp4(xyz3, xyz4, x3, x4)
        x2 = self.fp3(xyz2, xyz3, x2, x3)
        x1 = self.fp2(xyz1, xyz2, x1, x2)
        x = self.fp1(xyz0, xyz1, None, x1)
        x = self.drop1(pointwise(x, self.conv1, self.bn1))
        return pointwise(x, self.conv2, relu=False)


class PointNet2Segmentation(_Segmentation):
    """Classify each point of a cloud (PointNet++, single-scale grouping).

    Parameters
    ----------
    num_classes : int
        Number of logits per point.
    in_channels : int
        Columns of the points; 9 in the checkpoints for S3DIS (x, y, z, colour, place in the room).

    Notes
    -----
    Checkpoints of yanx27/Pointnet_Pointnet2_pytorch (``pointnet2_sem_seg``) load. The smallest radius is 0.1, in the
    unit of the points.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.4.

    Examples
    --------
    >>> model = PointNet2Segmentation(num_classes=5).eval()
    >>> model(torch.rand(2, 256, 3)).shape
    torch.Size([2, 256, 5])
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, (64, 128, 256, 512))
        self.sa1 = SetAbstraction(1024, 0.1, 32, in_channels, (32, 32, 64))
        self.sa2 = SetAbstraction(256, 0.2, 32, 64, (64, 64, 128))
        self.sa3 = SetAbstraction(64, 0.4, 32, 128, (128, 128, 256))
        self.sa4 = SetAbstraction(16, 0.8, 32, 256, (256, 256, 512))


class PointNet2MSGSegmentation(_Segmentation):
    """Classify each point of a cloud (PointNet++, multi-scale grouping).

    Parameters and notes as in :class:`PointNet2Segmentation`; checkpoints are those of ``pointnet2_sem_seg_msg``.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), sections 3.3 and 3.4.

    Examples
    --------
    >>> model = PointNet2MSGSegmentation(num_classes=5).eval()
    >>> model(torch.rand(1, 256, 3)).shape
    torch.Size([1, 256, 5])
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(num_classes, in_channels, (96, 256, 512, 1024))
        scales, ks = MultiScaleSetAbstraction, (16, 32)
        self.sa1 = scales(1024, (0.05, 0.1), ks, in_channels, ((16, 16, 32), (32, 32, 64)))
        self.sa2 = scales(256, (0.1, 0.2), ks, 96, ((64, 64, 128), (64, 96, 128)))
        self.sa3 = scales(64, (0.2, 0.4), ks, 256, ((128, 196, 256), (128, 196, 256)))
        self.sa4 = scales(16, (0.4, 0.8), ks, 512, ((256, 256, 512), (256, 384, 512)))


def _check_columns(in_channels: int) -> None:
    if in_channels < 3:
        raise ValueError(f"in_channels must be at least 3, for x, y and z, got {in_channels}")
