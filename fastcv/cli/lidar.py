"""``fastcv lidar``: a LiDAR scan, its voxels, and the feature map of a sparse encoder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_output, seed_option
from fastcv.data import read_velodyne, street_scan, write_velodyne
from fastcv.data.files import replaced_file
from fastcv.ops import voxel_grid_size, voxelize

if TYPE_CHECKING:
    from fastcv.sparse import SparseConvTensor

RANGE = (-51.2, -25.6, -3.0, 51.2, 25.6, 3.4)  # metres: x forward, y left, z up
VOXEL = (0.1, 0.1, 0.2)
CELLS = voxel_grid_size(RANGE, VOXEL)[::-1]  # z, y, x
MAX_POINTS, MAX_VOXELS = 5, 60_000
console = Console(highlight=False)


@dataclass(frozen=True)
class Encoded:
    """The results of the pipeline for a scan."""

    points: Tensor  # (P, 4)
    coords: Tensor  # (V, 3): z, y, x
    levels: list[SparseConvTensor]
    map: Tensor  # (C, Y, X)
    seconds: dict[str, float]


def lidar(
    scan: Annotated[Path | None, typer.Argument(help="Scan of KITTI or nuScenes. Default: a synthetic street.")] = None,
    output: Annotated[Path, typer.Option(help="PNG file for the picture.")] = Path("lidar.png"),
    save: Annotated[Path, typer.Option(help="File for the synthetic scan, in KITTI's format.")] = Path("lidar.bin"),
    columns: Annotated[
        int | None, typer.Option(min=4, help="Values per point in the scan, if not recognised: 4 in KITTI.")
    ] = None,
    seed: Annotated[int, seed_option("Random seed for the street and for the weights.", least=0)] = 0,
) -> None:
    """Voxelize a LiDAR scan, run a sparse 3-D encoder on it, and draw points, voxels and feature map from above."""
    check_output(output, "--output", ".png")
    if scan is None:
        check_output(save, "--save")
        try:
            write_velodyne(save, street_scan(seed))
        except OSError as error:
            fail(f"cannot write {save}: {reason(error)}")
        console.print(f"{save}: scan of a synthetic street, seed {seed}", soft_wrap=True)
    path = save if scan is None else scan
    points = read_points(path, columns if scan is not None else 4)
    encoded = encode(points, seed)
    print_stages(encoded)
    try:
        with replaced_file(output) as file:
            draw(encoded, path.name, file)
    except OSError as error:
        fail(f"cannot write {output}: {reason(error)}")
    console.print(f"{output}: points, voxels and the map from above", soft_wrap=True)


def read_points(path: Path, columns: int | None) -> Tensor:
    """Read a scan with points within the range: (P, 4), reflectance between 0 and 1."""
    try:
        points = read_velodyne(path, columns)[:, :4]
    except FileNotFoundError:
        fail(f"there is no file {path}")
    except OSError as error:
        fail(f"cannot read {path}: {reason(error)}")
    except ValueError as error:
        fail(str(error).replace("columns=", "--columns "))
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    if not bool(((points[:, :3] >= low) & (points[:, :3] < high)).all(1).any()):
        fail(f"{path} has no point within {RANGE[3]:g} m ahead and {RANGE[4]:g} m aside")
    if bool((points[:, 3] > 1).any()):  # intensities of 8 bits
        points[:, 3] /= 255
    return points


def encode(points: Tensor, seed: int) -> Encoded:
    """Voxelize points (P, 4), and run the encoder with random weights on the mean of each voxel."""
    from fastcv.models.pointcloud import SparseEncoder
    from fastcv.sparse import SparseConvTensor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SparseEncoder().eval()
    seconds = {}
    start = time.perf_counter()
    voxels, coords, num_points = voxelize(points, VOXEL, RANGE, MAX_POINTS, MAX_VOXELS)
    seconds["voxelize"] = time.perf_counter() - start
    features = voxels.sum(1) / num_points[:, None]
    features[:, :3] /= torch.tensor(RANGE[3:])  # to a range of about [-1, 1]
    sites = torch.nn.functional.pad(coords, (1, 0))
    x = SparseConvTensor(features, sites, CELLS, batch_size=1)
    with torch.inference_mode():
        start = time.perf_counter()
        levels = encoder(x)
        seconds["encode"] = time.perf_counter() - start
        start = time.perf_counter()
        dense = encoder.to_map(levels[-1])[0]
        seconds["map"] = time.perf_counter() - start
    return Encoded(points, coords, levels, dense, seconds)


def print_stages(encoded: Encoded) -> None:
    """Print a table of the size and the time of each stage."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for heading in ("size", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    times = {name: f"{1e3 * value:.1f} ms" for name, value in encoded.seconds.items()}
    table.add_row("points", f"{len(encoded.points):,}")
    table.add_row("voxels", f"{len(encoded.coords):,}", times["voxelize"])
    for number, level in enumerate(encoded.levels, 1):
        size = f"{len(level.features):,} x {level.features.shape[1]}"
        table.add_row(f"level {number}", size, times["encode"] if number == len(encoded.levels) else "")
    table.add_row("map", "x".join(str(n) for n in encoded.map.shape), times["map"])
    console.print(table)


def draw(encoded: Encoded, name: str, output: Path) -> None:
    """Draw three views from above, one below the other: points, voxels, map."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    x_low, y_low, z_low, x_high, y_high, _ = RANGE
    extent = (x_low, x_high, y_low, y_high)
    low_z, high_z = -2.0, 2.0
    figure, axes = plt.subplots(3, 1, figsize=(11, 16.5), layout="constrained", sharex=True, sharey=True)

    points = encoded.points[encoded.points[:, 2].argsort()].numpy()  # the highest on top
    colours = {"cmap": "turbo", "vmin": low_z, "vmax": high_z}
    drawn = axes[0].scatter(points[:, 0], points[:, 1], c=points[:, 2], s=0.6, linewidths=0, **colours)
    axes[0].set_title(f"{len(points):,} points of {name}", loc="left")
    figure.colorbar(drawn, ax=axes[0], label="height in m", pad=0.01)

    coords = encoded.coords.long()
    top = torch.full((CELLS[1] * CELLS[2],), -1)
    top.scatter_reduce_(0, coords[:, 1] * CELLS[2] + coords[:, 2], coords[:, 0], "amax")
    height = (z_low + (top.float() + 0.5) * VOXEL[2]).masked_fill(top < 0, float("nan")).reshape(CELLS[1:])
    # one pixel for four voxels, so that single voxels are visible
    blocks = torch.nn.functional.max_pool2d(height.nan_to_num(-9.0)[None], 2)[0]
    drawn = axes[1].imshow(
        blocks.masked_fill(blocks < -8, float("nan")), extent=extent, origin="lower", interpolation="nearest", **colours
    )
    size = " x ".join(f"{s:g}" for s in VOXEL)
    axes[1].set_title(f"{len(coords):,} voxels of {size} m: the highest of each column", loc="left")
    figure.colorbar(drawn, ax=axes[1], label="height in m", pad=0.01)

    strength = encoded.map.norm(dim=0)
    strength = strength.masked_fill(strength == 0, float("nan"))
    drawn = axes[2].imshow(strength, extent=extent, origin="lower", interpolation="nearest", cmap="magma")
    channels, rows, columns = encoded.map.shape
    axes[2].set_title(
        f"map of the sparse encoder, {channels} x {rows} x {columns}: length of the feature vector "
        "(weights are random)",
        loc="left",
    )
    figure.colorbar(drawn, ax=axes[2], label="length", pad=0.01)

    for one in axes:
        one.set_xlim(x_low, x_high)
        one.set_ylim(y_low, y_high)
        one.set_aspect("equal")
        one.set_ylabel("left in m")
        one.set_facecolor("#f4f4f1")
    axes[2].set_xlabel("ahead in m")
    figure.savefig(output, dpi=110, format="png")
    plt.close(figure)
