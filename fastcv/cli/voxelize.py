"""``fastcv voxelize``: a point cloud in, a grid out, and a picture of both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from torch import Tensor

from fastcv.cli.clouds import INK, as_array, describe, draw_points, draw_voxels, read_cloud, view_of
from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_output, seed_option
from fastcv.data.files import replaced_file
from fastcv.ops import voxel_grid_size, voxel_ids, voxel_occupancy

MOST_CELLS = 512**3
console = Console(highlight=False)


def voxelize(
    cloud: Annotated[Path, typer.Argument(help="File: .off .ply .pcd .bin .npy .npz .txt .xyz; or a shape, as cone.")],
    output: Annotated[Path, typer.Option(help="File for the grid, .npz.")] = Path("voxels.npz"),
    picture: Annotated[Path, typer.Option(help="PNG file for cloud and grid.")] = Path("voxels.png"),
    cells: Annotated[int, typer.Option(min=1, max=512, help="Voxels along the longest side.")] = 32,
    voxel_size: Annotated[float | None, typer.Option(help="Side of a voxel; in place of --cells.")] = None,
    mode: Annotated[str, typer.Option(help="What a voxel holds: binary, count or density.")] = "binary",
    columns: Annotated[int | None, typer.Option(min=3, help="Values per point in a .bin file.")] = None,
    points: Annotated[int, typer.Option(min=1, help="Points to take from a surface or a shape.")] = 4096,
    seed: Annotated[int, seed_option("Random seed for these points.", least=0)] = 0,
    drop_invalid: Annotated[bool, typer.Option(help="Leave out points that are not finite.")] = False,
) -> None:
    """Turn a point cloud into a grid of voxels, and draw both."""
    check_output(output, "--output", ".npz")
    check_output(picture, "--picture", ".png")
    if mode not in ("binary", "count", "density"):
        fail(f"--mode {mode} must be binary, count or density")
    if voxel_size is not None and not 0 < voxel_size < float("inf"):
        fail(f"--voxel-size {voxel_size:g} must be positive")
    xyz = read_cloud(cloud, columns, points, seed, drop_invalid)
    size, span = grid_around(xyz, cells, voxel_size)
    grid = voxel_occupancy(xyz, size, span, mode)
    occupied = int((grid > 0).sum())
    try:
        with replaced_file(output) as file, file.open("wb") as stream:
            np.savez_compressed(
                stream,
                grid=grid.numpy(),
                coords=np.unique(voxel_ids(xyz, size, span)[:, 1:].numpy(), axis=0),
                voxel_size=np.float64(size),
                point_cloud_range=np.array(span),
            )
    except OSError as error:
        fail(f"cannot write {output}: {reason(error)}")
    try:
        with replaced_file(picture) as file:
            draw(xyz, grid, size, span, cloud.name, file)
    except OSError as error:
        fail(f"cannot write {picture}: {reason(error)}")
    shape = " x ".join(str(side) for side in reversed(grid.shape))
    console.print(f"{cloud}: {describe(xyz)}", soft_wrap=True)
    console.print(f"{output}: grid of {shape} voxels of {size:.4g}, {occupied:,} occupied (z, y, x)", soft_wrap=True)
    console.print(f"{picture}: the points and the voxels", soft_wrap=True)


def grid_around(points: Tensor, cells: int, voxel_size: float | None) -> tuple[float, list[float]]:
    """Return the size of a voxel, and a range around all points that is a whole number of voxels on each axis."""
    xyz = as_array(points)
    low, high = xyz.min(0), xyz.max(0)
    longest = float((high - low).max())
    size = voxel_size or (longest / cells if longest > 0 else 1.0) * (1 + 1e-6)
    sides = np.floor((high - low) / size) + 1  # the last point lies inside, not on the end
    if sides.prod() > MOST_CELLS:
        fail(f"voxels of {size:g} make a grid of {' x '.join(f'{s:.0f}' for s in sides)}, more than 512 x 512 x 512")
    start = (low + high) / 2 - sides * size / 2
    span = [*start.tolist(), *(start + sides * size).tolist()]
    assert voxel_grid_size(span, size) == tuple(int(side) for side in sides)
    return size, span


def draw(points: Tensor, grid: Tensor, size: float, span: list[float], name: str, output: Path) -> None:
    """Draw the points on the left and the voxels on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    xyz = as_array(points)
    view = view_of(xyz)
    flat = view.half[1] < 0.65 * view.half[0]  # then one below the other shows more
    if flat:
        figure, (left, right) = plt.subplots(2, 1, figsize=(12, 1.2 + 24 * view.half[1] / view.half[0]))
    else:
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6.3))
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.94, 0.02, 0.1)
    draw_points(left, xyz, view)
    occupied = (grid > 0).permute(2, 1, 0).numpy()
    draw_voxels(right, occupied, np.array(span[:3]), size, view)
    left.set_title(f"{name}: {len(points):,} points", color=INK, fontsize=13)
    shape = " × ".join(str(side) for side in occupied.shape)
    right.set_title(f"{int(occupied.sum()):,} of {shape} voxels", color=INK, fontsize=13)
    figure.savefig(output, dpi=110, format="png")
    plt.close(figure)
