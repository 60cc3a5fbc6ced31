"""PointNet: shared MLPs on each point, and the largest of all points."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models.pointcloud.pointwise import (
    FullyConnected,
    check_at_least_one,
    check_clouds,
    largest_of_layer,
    norms_of,
    pointwise,
)

__all__ = ["PointNet", "PointNetSegmentation", "orthogonality_loss"]


class TransformNet(nn.Module):
    """A T-Net: predicts a square matrix from a cloud, near the identity at first.

    Parameters
    ----------
    channels : int
        Features per point.
    size : int
        Rows and columns of the matrix.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(channels, 64, 1), nn.Conv1d(64, 128, 1), nn.Conv1d(128, 1024, 1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 512), nn.Linear(512, 256), nn.Linear(256, size * size)
        self.bn1, self.bn2, self.bn3, self.bn4, self.bn5 = norms_of((64, 128, 1024, 512, 256))

    def forward(self, x: Tensor) -> Tensor:
        """Return the matrices (B, size, size) of features (B, N, C)."""
        x = pointwise(x, self.conv1, self.bn1)
        x = pointwise(x, self.conv2, self.bn2)
        x = largest_of_layer(x, self.conv3, self.bn3).relu()  # the same as the largest of ReLUs, for fewer numbers
        x = pointwise(x, self.fc1, self.bn4)
        x = pointwise(x, self.fc2, self.bn5)
        x = pointwise(x, self.fc3, relu=False).view(-1, self.size, self.size)
        return x + torch.eye(self.size, dtype=x.dtype, device=x.device)


class PointNetEncoder(nn.Module):
    """From points to features: both transforms, and the shared MLP 64, 128, 1024.

    Parameters
    ----------
    channels : int
        Columns of the points, at least x, y and z; only these are turned by the input transform.
    feature_transform : bool
        Whether there is a second transform, of the features behind the first layer.
    """

    def __init__(self, channels: int, feature_transform: bool = True) -> None:
        super().__init__()
        if channels < 3:
            raise ValueError(f"in_channels must be at least 3, for x, y and z, got {channels}")
        self.channels = channels
        self.stn = TransformNet(channels, 3)
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(channels, 64, 1), nn.Conv1d(64, 128, 1), nn.Conv1d(128, 1024, 1)
        self.bn1, self.bn2, self.bn3 = norms_of((64, 128, 1024))
        self.fstn = TransformNet(64, 64) if feature_transform else None

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the features of the cloud (B, 1024), those of each point (B, N, 64), and the transform of these."""
        check_clouds(points, self.channels)
        xyz = points[:, :, :3] @ self.stn(points)
        x = xyz if self.channels == 3 else torch.cat([xyz, points[:, :, 3:]], 2)
        x = pointwise(x, self.conv1, self.bn1)
        transform = None if self.fstn is None else self.fstn(x)
        local = x if transform is None else x @ transform
        x = pointwise(local, self.conv2, self.bn2)
        return largest_of_layer(x, self.conv3, self.bn3), local, transform


def orthogonality_loss(transform: Tensor) -> Tensor:
    """Return how far feature transforms are from orthogonal: the mean norm of ``T T' - I``.

    Parameters
    ----------
    transform : Tensor (B, K, K)
        As ``logits_and_transform`` of :class:`PointNet` gives it.

    Returns
    -------
    Tensor ()
        To be added to the loss with weight 0.001.

    References
    ----------
    Qi, Su, Mo, Guibas: PointNet (2017), equation 2; yanx27/Pointnet_Pointnet2_pytorch, whose norm is not squared.

    Examples
    --------
    >>> orthogonality_loss(torch.eye(64)[None])
    tensor(0.)
    """
    if transform.dim() != 3 or transform.shape[1] != transform.shape[2]:
        raise ValueError(f"transform must have shape (B, K, K), got {tuple(transform.shape)}")
    unit = torch.eye(transform.shape[1], dtype=transform.dtype, device=transform.device)
    distance: Tensor = torch.linalg.matrix_norm(transform @ transform.mT - unit).mean()
    return distance


class _Regularised(nn.Module):
    """Models that keep the feature transform of their last training pass, for the loss."""

    feat: PointNetEncoder
    _transform: Tensor | None = None

    def forward(self, points: Tensor) -> Tensor:
        """Return the logits of clouds (B, N, in_channels): (B, num_classes), or (B, N, num_classes) of each point."""
        logits, transform = self.logits_and_transform(points)
        self._transform = transform if self.training else None
        return logits

    def logits_and_transform(self, points: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and the feature transform (B, 64, 64), if any, for :func:`orthogonality_loss`."""
        raise NotImplementedError

    def regulariser(self) -> Tensor:
        """Return what is added to the loss of the last training pass: 0.001 times :func:`orthogonality_loss`."""
        if self.feat.fstn is None:
            return torch.zeros((), device=self.feat.conv1.weight.device)
        if self._transform is None:
            raise RuntimeError("regulariser() needs a pass in training before it")
        transform, self._transform = self._transform, None
        return 0.001 * orthogonality_loss(transform)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_transform": None}  # copies and files are of the weights alone


class PointNet(_Regularised, FullyConnected):
    """Classify clouds of points, in whatever order these come.

    Parameters
    ----------
    num_classes : int
        Number of logits.
    in_channels : int
        Columns of the points: x, y, z, and others such as a normal.
    dropout : float
        Probability of dropout before the last layer.
    feature_transform : bool
        Whether features are transformed as well as points; without, it has half of the parameters.

    Notes
    -----
    Checkpoints of yanx27/Pointnet_Pointnet2_pytorch load. 3 471 473 parameters for three columns and 40 classes.
    Clouds should lie around the origin, in the unit ball (:func:`fastcv.data.to_unit_ball`).

    References
    ----------
    Qi, Su, Mo, Guibas: PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation (2017).

    Examples
    --------
    >>> model = PointNet(num_classes=10).eval()
    >>> model(torch.rand(2, 256, 3)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, num_classes: int = 40, in_channels: int = 3, dropout: float = 0.4, feature_transform: bool = True
    ) -> None:
        super().__init__(num_classes)
        self.feat = PointNetEncoder(in_channels, feature_transform)
        self.dropout = nn.Dropout(dropout)

    def logits_and_transform(self, points: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and the feature transform (B, 64, 64), if any, for :func:`orthogonality_loss`."""
        x, _, transform = self.feat(points)
        x = pointwise(x, self.fc1, self.bn1)
        x = self.bn2(self.dropout(self.fc2(x))).relu() if self.training else pointwise(x, self.fc2, self.bn2)
        logits: Tensor = self.fc3(x)
        return logits, transform


class PointNetSegmentation(_Regularised):
    """Classify each point of a cloud, by its own features and those of the whole cloud.

    Parameters
    ----------
    num_classes : int
        Number of logits per point.
    in_channels : int
        Columns of the points; 9 in the checkpoints for S3DIS (x, y, z, colour, place in the room).

    Notes
    -----
    Checkpoints of yanx27/Pointnet_Pointnet2_pytorch (``pointnet_sem_seg``) load.

    References
    ----------
    Qi, Su, Mo, Guibas: PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation (2017).

    Examples
    --------
    >>> model = PointNetSegmentation(num_classes=5).eval()
    >>> model(torch.rand(2, 256, 3)).shape
    torch.Size([2, 256, 5])
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        check_at_least_one(num_classes, "num_classes")
        self.num_classes = num_classes
        self.feat = PointNetEncoder(in_channels)
        self.conv1, self.conv2 = nn.Conv1d(1088, 512, 1), nn.Conv1d(512, 256, 1)
        self.conv3, self.conv4 = nn.Conv1d(256, 128, 1), nn.Conv1d(128, num_classes, 1)
        self.bn1, self.bn2, self.bn3 = norms_of((512, 256, 128))

    def logits_and_transform(self, points: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and the feature transform (B, 64, 64), if any, for :func:`orthogonality_loss`."""
        cloud, local, transform = self.feat(points)
        # The first layer is linear: the part of the cloud's features is the same for all of its points.
        weight = self.conv1.weight.flatten(1)
        whole = cloud @ weight[:, :1024].T
        x = nn.functional.linear(local, weight[:, 1024:], self.conv1.bias) + whole[:, None]
        x = self.bn1(x.flatten(0, 1)).view(x.shape).relu()
        x = pointwise(x, self.conv2, self.bn2)
        x = pointwise(x, self.conv3, self.bn3)
        return pointwise(x, self.conv4, relu=False), transform
