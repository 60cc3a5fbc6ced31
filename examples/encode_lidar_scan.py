"""Voxelizes a LiDAR scan, runs a sparse encoder on it, and draws points, voxels and feature map from above.

python examples/encode_lidar_scan.py             # a generated street
python examples/encode_lidar_scan.py scan.bin    # or a scan of KITTI or nuScenes
python examples/encode_lidar_scan.py --short     # a small one, in seconds
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from fastcv.data import read_points, street_scan
from fastcv.models.pointcloud import SparseEncoder
from fastcv.ops import voxel_grid_size, voxelize
from fastcv.sparse import SparseConvTensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RANGE = (-51.2, -25.6, -3.0, 51.2, 25.6, 3.4)  # metres: x forward, y left, z up
VOXEL = (0.1, 0.1, 0.2)
CELLS = voxel_grid_size(RANGE, VOXEL)[::-1]  # z, y, x


def main(words: list[str] | None = None) -> None:
    """Encode a scan, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path, nargs="?", help="file; default: a generated street")
    parser.add_argument("--output", type=Path, default=Path("lidar.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="a scan of few points")
    chosen = parser.parse_args(words)
    sizes = (24, 240) if chosen.short else (64, 1920)
    points = street_scan(0, *sizes) if chosen.scan is None else read_points(chosen.scan)[:, :4]
    if bool((points[:, 3] > 1).any()):  # intensities of 8 bits, as nuScenes has them
        points[:, 3] /= 255
    coords, levels, features = encode(points)
    print(f"{len(points):,} points, {len(coords):,} voxels")
    for level in levels:
        print(f"level of {' x '.join(map(str, level.spatial_shape))} cells: {len(level.features):,} occupied")
    draw(points, coords, features, chosen.output)
    print(f"{chosen.output}: points, voxels and the map from above")


@torch.inference_mode()
def encode(points: Tensor) -> tuple[Tensor, list[SparseConvTensor], Tensor]:
    """Return the places of the voxels (V, 3), the encoder's levels, and its map (C, Y, X); weights are random."""
    torch.manual_seed(0)
    encoder = SparseEncoder().eval()
    voxels, coords, counts = voxelize(points, VOXEL, RANGE, 5, 60_000)  # at most 5 points in each of 60 000 voxels
    features = voxels.sum(1) / counts[:, None]
    features[:, :3] /= torch.tensor(RANGE[3:])  # to about -1 to 1
    sites = torch.nn.functional.pad(coords, (1, 0))  # b, z, y, x
    levels = encoder(SparseConvTensor(features, sites, CELLS, batch_size=1))
    return coords, levels, encoder.to_map(levels[-1])[0]


def draw(points: Tensor, coords: Tensor, features: Tensor, path: Path) -> None:
    """Draw three views from above."""
    figure, axes = plt.subplots(3, 1, figsize=(11, 16.5), layout="constrained", sharex=True, sharey=True)
    x, y, z = points[points[:, 2].argsort(), :3].T  # the highest on top
    axes[0].scatter(x, y, c=z, s=0.6, linewidths=0, cmap="turbo", vmin=-2, vmax=2)
    height, row, column = coords[coords[:, 0].argsort()].T
    ends = RANGE[0] + (column + 0.5) * VOXEL[0], RANGE[1] + (row + 0.5) * VOXEL[1]
    axes[1].scatter(*ends, c=RANGE[2] + (height + 0.5) * VOXEL[2], s=1, linewidths=0, cmap="turbo", vmin=-2, vmax=2)
    extent = (RANGE[0], RANGE[3], RANGE[1], RANGE[4])
    axes[2].imshow(features.norm(dim=0).log1p(), extent=extent, origin="lower", cmap="magma")
    for one, title in zip(axes, (f"{len(x):,} points", f"{len(coords):,} voxels", "feature map"), strict=True):
        one.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", ylabel="left in m", title=title)
    axes[2].set_xlabel("ahead in m")
    figure.savefig(path, dpi=110, bbox_inches="tight")  # labels of axes of equal scales stand at the edge


if __name__ == "__main__":
    main()
