"""Sparse networks as programs build them, from the tables of their papers, with whatever package is ``spconv`` there.

SECOND (Yan et al. 2018), Voxel R-CNN's residual form of it (Deng et al. 2021), VoxelNeXt (Chen et al. 2023), Point
Transformer V3 (Wu et al. 2024), and a U-Net of submanifold blocks (Choy et al. 2019, in Graham et al.'s convolutions).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


def layer(spconv: Any, before: int, after: int, kernel: Any, key: str, kind: str = "subm", **sizes: Any) -> Any:
    """Convolution, norm and activation."""
    if kind == "subm":
        convolution = spconv.SubMConv3d(before, after, kernel, bias=False, indice_key=key)
    elif kind == "spconv":
        convolution = spconv.SparseConv3d(before, after, kernel, bias=False, indice_key=key, **sizes)
    else:
        convolution = spconv.SparseInverseConv3d(before, after, kernel, indice_key=key, bias=False)
    return spconv.SparseSequential(convolution, Norm(after), nn.ReLU())


def residual_block(spconv: Any) -> Callable[..., nn.Module]:
    """The block of the residual networks; a projection where the channels change."""

    class Block(spconv.SparseModule):  # type: ignore[misc, name-defined]
        expansion = 1

        def __init__(self, before: int, after: int, key: str, bias: bool = True) -> None:
            super().__init__()
            options = {"kernel_size": 3, "stride": 1, "padding": 1, "bias": bias, "indice_key": key}
            self.conv1 = spconv.SubMConv3d(before, after, **options)
            self.bn1 = Norm(after)
            self.conv2 = spconv.SubMConv3d(after, after, **options)
            self.bn2 = Norm(after)
            self.proj = (
                spconv.SparseSequential(nn.Identity())
                if before == after
                else spconv.SparseSequential(spconv.SubMConv3d(before, after, kernel_size=1, bias=False), Norm(after))
            )

        def forward(self, x: Any) -> Any:
            out = self.conv1(x)
            out = out.replace_feature(self.bn1(out.features).relu())
            out = self.conv2(out)
            out = out.replace_feature(self.bn2(out.features))
            return out.replace_feature((out.features + self.proj(x).features).relu())

    return Block


class VoxelBackbone(nn.Module):
    """SECOND's middle layers, eight times smaller; plain, or of residual blocks."""

    def __init__(self, spconv: Any, residual: bool, widths: tuple[int, ...] = (16, 32, 64, 64), out: int = 128) -> None:
        super().__init__()
        block, name = residual_block(spconv), "res" if residual else "subm"
        self.conv_input = layer(spconv, 4, widths[0], 3, f"{name}1")
        stages = []
        for number, (before, after) in enumerate(zip((widths[0], *widths), widths, strict=False), 1):
            key, parts = f"{name}{number}", []
            if number > 1:
                padding = (0, 1, 1) if number == 4 else 1
                parts.append(layer(spconv, before, after, 3, f"spconv{number}", "spconv", stride=2, padding=padding))
            for _ in range(1 if number == 1 and not residual else 2):
                parts.append(block(after, after, key) if residual else layer(spconv, after, after, 3, key))
            stages.append(spconv.SparseSequential(*parts))
        self.stages = nn.ModuleList(stages)
        self.conv_out = layer(spconv, widths[-1], out, (3, 1, 1), "spconv_down2", "spconv", stride=(2, 1, 1), padding=0)

    def forward(self, x: Any) -> Tensor:
        x = self.conv_input(x)
        for stage in self.stages:
            x = stage(x)
        grid: Tensor = self.conv_out(x).dense()
        count, channels, depth, height, width = grid.shape
        return grid.view(count, channels * depth, height, width)


class VoxelNeXt(nn.Module):
    """The stages of VoxelNeXt: the last ones are brought to one scale, and summed over the height."""

    def __init__(self, spconv: Any, width: int = 16) -> None:
        super().__init__()
        self.spconv = spconv
        block = residual_block(spconv)
        self.conv_input = layer(spconv, 4, width, 3, "subm1")
        self.stages = nn.ModuleList(
            spconv.SparseSequential(
                layer(spconv, width, width, 3, f"spconv{n}", "spconv", stride=2, padding=1),
                block(width, width, f"res{n}"),
            )
            for n in (2, 3, 4, 5)
        )
        self.conv_out = spconv.SparseSequential(
            spconv.SparseConv2d(width, width, 3, stride=1, padding=1, bias=False, indice_key="spconv_down2"),
            Norm(width),
            nn.ReLU(),
        )
        self.shared_conv = spconv.SparseSequential(
            spconv.SubMConv2d(width, width, 3, stride=1, padding=1, bias=True), Norm(width), nn.ReLU(True)
        )

    def forward(self, x: Any) -> Any:
        x = self.conv_input(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        base, middle, last = outputs[1:]
        middle.indices[:, 1:] *= 2
        last.indices[:, 1:] *= 4
        base = base.replace_feature(torch.cat([base.features, middle.features, last.features]))
        base.indices = torch.cat([base.indices, middle.indices, last.indices])
        sites, inverse = torch.unique(base.indices[:, [0, 2, 3]], dim=0, return_inverse=True)
        features = base.features.new_zeros((sites.shape[0], base.features.shape[1])).index_add(
            0, inverse, base.features
        )
        flat = self.spconv.SparseConvTensor(
            features=features, indices=sites, spatial_shape=base.spatial_shape[1:], batch_size=base.batch_size
        )
        return self.shared_conv(self.conv_out(flat))


class PointTransformerStem(nn.Module):
    """Point Transformer V3's embedding and positional encoding, its modules told apart as that does it."""

    def __init__(self, spconv: Any, width: int = 32) -> None:
        super().__init__()
        self.spconv = spconv
        self.stem = nn.ModuleList(
            [
                spconv.SubMConv3d(4, width, kernel_size=5, padding=1, bias=False, indice_key="stem"),
                nn.BatchNorm1d(width, eps=1e-3),
                nn.GELU(),
                spconv.SubMConv3d(width, width, kernel_size=3, bias=True, indice_key="stage0"),
                nn.Linear(width, width),
                nn.LayerNorm(width),
            ]
        )

    def forward(self, x: Any) -> Any:
        for module in self.stem:
            if self.spconv.modules.is_spconv_module(module):
                x = module(x)
            elif x.indices.shape[0] != 0:
                x = x.replace_feature(module(x.features))
        return x


class UNet(nn.Module):
    """Down and back up by inverse convolutions, with projections of one kernel element."""

    def __init__(self, spconv: Any, width: int = 16) -> None:
        super().__init__()
        block = residual_block(spconv)
        self.first = layer(spconv, 4, width, 5, "stem")
        self.down = layer(spconv, width, 2 * width, 2, "spconv1", "spconv", stride=2)
        self.middle = block(2 * width, 2 * width, "subm1", bias=False)
        self.up = layer(spconv, 2 * width, width, 2, "spconv1", "inverse")
        self.last = block(2 * width, width, "subm0", bias=False)
        self.final = spconv.SubMConv3d(width, 5, kernel_size=1, padding=1, bias=True)

    def forward(self, x: Any) -> Any:
        skip = self.first(x)
        x = self.up(self.middle(self.down(skip)))
        x = x.replace_feature(torch.cat([x.features, skip.features], 1))
        return self.final(self.last(x))


BACKBONES: dict[str, Callable[[Any], nn.Module]] = {
    "VoxelBackBone8x": partial(VoxelBackbone, residual=False),
    "VoxelResBackBone8x": partial(VoxelBackbone, residual=True),
    "SparseEncoder": partial(VoxelBackbone, residual=False, widths=(16, 32, 48, 48), out=64),
    "VoxelNeXt": VoxelNeXt,
    "PointTransformerStem": PointTransformerStem,
    "UNet": UNet,
}


def example(spconv: Any, shape: tuple[int, ...] = (41, 40, 36), batch: int = 2) -> Any:
    """Voxels of two wavy floors, in any order."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    z = (shape[0] / 2 + 9 * torch.sin(x / 5) * torch.cos(y / 7)).long()
    sites = torch.cat([torch.stack([torch.full_like(z, b), z + b, y, x], -1).reshape(-1, 4) for b in range(batch)])
    sites = sites[torch.randperm(len(sites), generator=generator)].int()
    features = torch.rand(len(sites), 4, generator=generator)
    return spconv.SparseConvTensor(features, sites, list(shape), batch)
