"""PointNet and PointNet++ in plain torch, with the module names and the channel order of the published code.

Written after the papers and yanx27/Pointnet_Pointnet2_pytorch: channels first, a matrix of all distances, a sort for
each ball, a loop for the farthest points. No operator of fastcv.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class STN(nn.Module):
    def __init__(self, channel: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.conv1, self.conv2 = nn.Conv1d(channel, 64, 1), nn.Conv1d(64, 128, 1)
        self.conv3 = nn.Conv1d(128, 1024, 1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 512), nn.Linear(512, 256), nn.Linear(256, k * k)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(64), nn.BatchNorm1d(128), nn.BatchNorm1d(1024)
        self.bn4, self.bn5 = nn.BatchNorm1d(512), nn.BatchNorm1d(256)

    def forward(self, x: Tensor) -> Tensor:
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(bn(conv(x)))
        x = x.max(2)[0]
        x = F.relu(self.bn5(self.fc2(F.relu(self.bn4(self.fc1(x))))))
        return (self.fc3(x) + torch.eye(self.k, dtype=x.dtype).flatten()).view(-1, self.k, self.k)


class PointNetEncoder(nn.Module):
    def __init__(self, channel: int) -> None:
        super().__init__()
        self.stn = STN(channel, 3)
        self.conv1, self.conv2 = nn.Conv1d(channel, 64, 1), nn.Conv1d(64, 128, 1)
        self.conv3 = nn.Conv1d(128, 1024, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(64), nn.BatchNorm1d(128), nn.BatchNorm1d(1024)
        self.fstn = STN(64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matrix = self.stn(x)
        x = torch.cat([torch.bmm(x.transpose(2, 1)[:, :, :3], matrix).transpose(2, 1), x[:, 3:]], 1)
        x = F.relu(self.bn1(self.conv1(x)))
        matrix = self.fstn(x)
        local = torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1)
        x = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(local)))))
        return x.max(2)[0], local, matrix


class PointNetTwin(nn.Module):
    def __init__(self, classes: int, channel: int = 3, dropout: float = 0.4) -> None:
        super().__init__()
        self.feat = PointNetEncoder(channel)
        self.fc1, self.fc2, self.fc3 = nn.Linear(1024, 512), nn.Linear(512, 256), nn.Linear(256, classes)
        self.dropout = nn.Dropout(dropout)
        self.bn1, self.bn2 = nn.BatchNorm1d(512), nn.BatchNorm1d(256)

    def forward(self, points: Tensor) -> Tensor:
        x, _, _ = self.feat(points.transpose(1, 2))
        x = F.relu(self.bn1(self.fc1(x)))
        return self.fc3(F.relu(self.bn2(self.dropout(self.fc2(x)))))


class PointNetSegmentationTwin(nn.Module):
    def __init__(self, classes: int, channel: int = 3) -> None:
        super().__init__()
        self.feat = PointNetEncoder(channel)
        self.conv1, self.conv2 = nn.Conv1d(1088, 512, 1), nn.Conv1d(512, 256, 1)
        self.conv3, self.conv4 = nn.Conv1d(256, 128, 1), nn.Conv1d(128, classes, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(512), nn.BatchNorm1d(256), nn.BatchNorm1d(128)

    def forward(self, points: Tensor) -> Tensor:
        whole, local, _ = self.feat(points.transpose(1, 2))
        x = torch.cat([whole[:, :, None].expand(-1, -1, local.shape[2]), local], 1)
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(bn(conv(x)))
        return self.conv4(x).transpose(1, 2)


def square_distance(a: Tensor, b: Tensor) -> Tensor:
    return ((a[:, :, None] - b[:, None]) ** 2).sum(-1)


def index_points(points: Tensor, index: Tensor) -> Tensor:
    batch = torch.arange(points.shape[0]).view(-1, *[1] * (index.dim() - 1))
    return points[batch, index]


def farthest_point_sample(xyz: Tensor, count: int) -> Tensor:
    batch, number, _ = xyz.shape
    chosen = torch.zeros(batch, count, dtype=torch.long)
    distance = torch.full((batch, number), 1e10, dtype=xyz.dtype)
    farthest = torch.zeros(batch, dtype=torch.long)
    for i in range(count):
        chosen[:, i] = farthest
        centre = index_points(xyz, farthest[:, None])
        distance = torch.minimum(distance, ((xyz - centre) ** 2).sum(-1))
        farthest = distance.max(-1)[1]
    return chosen


def query_ball_point(radius: float, count: int, xyz: Tensor, new_xyz: Tensor) -> Tensor:
    number = xyz.shape[1]
    index = torch.arange(number).expand(*new_xyz.shape[:2], -1).clone()
    index[square_distance(new_xyz, xyz) > radius**2] = number
    index = index.sort(dim=-1)[0][:, :, :count]
    first = index[:, :, :1].expand_as(index)
    return torch.where(index == number, first, index)


class SetAbstraction(nn.Module):
    def __init__(self, count: int | None, radius: float, nsample: int, in_channel: int, mlp: list[int]) -> None:
        super().__init__()
        self.count, self.radius, self.nsample = count, radius, nsample
        widths = [in_channel, *mlp]
        self.mlp_convs = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, mlp, strict=False))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm2d(b) for b in mlp)

    def forward(self, xyz: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.count is None:
            new_xyz = torch.zeros_like(xyz[:, :1])
            grouped = (xyz if points is None else torch.cat([xyz, points], -1))[:, None]
        else:
            new_xyz = index_points(xyz, farthest_point_sample(xyz, self.count))
            index = query_ball_point(self.radius, self.nsample, xyz, new_xyz)
            grouped = index_points(xyz, index) - new_xyz[:, :, None]
            if points is not None:
                grouped = torch.cat([grouped, index_points(points, index)], -1)
        x = grouped.permute(0, 3, 2, 1)
        for conv, bn in zip(self.mlp_convs, self.mlp_bns, strict=True):
            x = F.relu(bn(conv(x)))
        return new_xyz, x.max(2)[0].transpose(1, 2)


class SetAbstractionMsg(nn.Module):
    def __init__(
        self, count: int, radii: list[float], nsamples: list[int], in_channel: int, mlps: list[list[int]]
    ) -> None:
        super().__init__()
        self.count, self.radii, self.nsamples = count, radii, nsamples
        self.conv_blocks, self.bn_blocks = nn.ModuleList(), nn.ModuleList()
        for mlp in mlps:
            widths = [in_channel + 3, *mlp]
            self.conv_blocks.append(nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, mlp, strict=False)))
            self.bn_blocks.append(nn.ModuleList(nn.BatchNorm2d(b) for b in mlp))

    def forward(self, xyz: Tensor, points: Tensor | None) -> tuple[Tensor, Tensor]:
        new_xyz = index_points(xyz, farthest_point_sample(xyz, self.count))
        found = []
        for i, radius in enumerate(self.radii):
            index = query_ball_point(radius, self.nsamples[i], xyz, new_xyz)
            grouped = index_points(xyz, index) - new_xyz[:, :, None]
            if points is not None:
                grouped = torch.cat([index_points(points, index), grouped], -1)
            x = grouped.permute(0, 3, 2, 1)
            for conv, bn in zip(self.conv_blocks[i], self.bn_blocks[i], strict=True):
                x = F.relu(bn(conv(x)))
            found.append(x.max(2)[0])
        return new_xyz, torch.cat(found, 1).transpose(1, 2)


class FeaturePropagation(nn.Module):
    def __init__(self, in_channel: int, mlp: list[int]) -> None:
        super().__init__()
        widths = [in_channel, *mlp]
        self.mlp_convs = nn.ModuleList(nn.Conv1d(a, b, 1) for a, b in zip(widths, mlp, strict=False))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm1d(b) for b in mlp)

    def forward(self, xyz1: Tensor, xyz2: Tensor, points1: Tensor | None, points2: Tensor) -> Tensor:
        if xyz2.shape[1] == 1:
            x = points2.expand(-1, xyz1.shape[1], -1)
        else:
            distance, index = square_distance(xyz1, xyz2).sort(dim=-1, stable=True)
            weight = 1 / (distance[:, :, :3] + 1e-8)
            weight = weight / weight.sum(2, keepdim=True)
            x = (index_points(points2, index[:, :, :3]) * weight[..., None]).sum(2)
        x = (x if points1 is None else torch.cat([points1, x], -1)).transpose(1, 2)
        for conv, bn in zip(self.mlp_convs, self.mlp_bns, strict=True):
            x = F.relu(bn(conv(x)))
        return x.transpose(1, 2)


class PointNet2Twin(nn.Module):
    def __init__(self, classes: int, channel: int = 3, msg: bool = False) -> None:
        super().__init__()
        if msg:
            first, second = (
                [[32, 32, 64], [64, 64, 128], [64, 96, 128]],
                [[64, 64, 128], [128, 128, 256], [128, 128, 256]],
            )
            self.sa1 = SetAbstractionMsg(512, [0.1, 0.2, 0.4], [16, 32, 128], channel - 3, first)
            self.sa2 = SetAbstractionMsg(128, [0.2, 0.4, 0.8], [32, 64, 128], 320, second)
            self.sa3 = SetAbstraction(None, 0, 0, 640 + 3, [256, 512, 1024])
        else:
            self.sa1 = SetAbstraction(512, 0.2, 32, channel, [64, 64, 128])
            self.sa2 = SetAbstraction(128, 0.4, 64, 128 + 3, [128, 128, 256])
            self.sa3 = SetAbstraction(None, 0, 0, 256 + 3, [256, 512, 1024])
        self.fc1, self.bn1, self.drop1 = nn.Linear(1024, 512), nn.BatchNorm1d(512), nn.Dropout(0.4)
        self.fc2, self.bn2, self.drop2 = nn.Linear(512, 256), nn.BatchNorm1d(256), nn.Dropout(0.4)
        self.fc3 = nn.Linear(256, classes)

    def forward(self, points: Tensor) -> Tensor:
        xyz, x = points[:, :, :3], points[:, :, 3:] if points.shape[2] > 3 else None
        for level in (self.sa1, self.sa2, self.sa3):
            xyz, x = level(xyz, x)
        assert x is not None
        x = self.drop1(F.relu(self.bn1(self.fc1(x.flatten(1)))))
        return self.fc3(self.drop2(F.relu(self.bn2(self.fc2(x)))))


class PointNet2SegmentationTwin(nn.Module):
    def __init__(self, classes: int, channel: int = 3, msg: bool = False) -> None:
        super().__init__()
        if msg:
            levels = (
                (1024, [0.05, 0.1], channel, [[16, 16, 32], [32, 32, 64]]),
                (256, [0.1, 0.2], 32 + 64, [[64, 64, 128], [64, 96, 128]]),
                (64, [0.2, 0.4], 128 + 128, [[128, 196, 256], [128, 196, 256]]),
                (16, [0.4, 0.8], 256 + 256, [[256, 256, 512], [256, 384, 512]]),
            )
            self.sa1, self.sa2, self.sa3, self.sa4 = (
                SetAbstractionMsg(n, radii, [16, 32], before, mlps) for n, radii, before, mlps in levels
            )
            a, b, c = 1024 + 512, 128 + 128 + 256, 32 + 64 + 256
        else:
            self.sa1 = SetAbstraction(1024, 0.1, 32, channel + 3, [32, 32, 64])
            self.sa2 = SetAbstraction(256, 0.2, 32, 64 + 3, [64, 64, 128])
            self.sa3 = SetAbstraction(64, 0.4, 32, 128 + 3, [128, 128, 256])
            self.sa4 = SetAbstraction(16, 0.8, 32, 256 + 3, [256, 256, 512])
            a, b, c = 768, 384, 320
        self.fp4, self.fp3 = FeaturePropagation(a, [256, 256]), FeaturePropagation(b, [256, 256])
        self.fp2, self.fp1 = FeaturePropagation(c, [256, 128]), FeaturePropagation(128, [128, 128, 128])
        self.conv1, self.bn1, self.drop1 = nn.Conv1d(128, 128, 1), nn.BatchNorm1d(128), nn.Dropout(0.5)
        self.conv2 = nn.Conv1d(128, classes, 1)

    def forward(self, points: Tensor) -> Tensor:
        xyz0 = points[:, :, :3]
        xyz1, x1 = self.sa1(xyz0, points)
        xyz2, x2 = self.sa2(xyz1, x1)
        xyz3, x3 = self.sa3(xyz2, x2)
        xyz4, x4 = self.sa4(xyz3, x3)
        x3 = self.fp4(xyz3, xyz4, x3, x4)
        x2 = self.fp3(xyz2, xyz3, x2, x3)
        x1 = self.fp2(xyz1, xyz2, x1, x2)
        x = self.fp1(xyz0, xyz1, None, x1).transpose(1, 2)
        return self.conv2(self.drop1(F.relu(self.bn1(self.conv1(x))))).transpose(1, 2)
