"""``fastcv demo``: regions of an image, cropped by ``roi_align`` and shown on a contact sheet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.errors import fail
from fastcv.cli.options import check_output, seed_option
from fastcv.cli.photo import open_photo, save_png, to_image, to_tensor
from fastcv.cli.regions import choose_regions, cut_out
from fastcv.cli.sheet import draw_sheet
from fastcv.cli.speed import compare, compare_detector, load_torchvision

LEAST_SIDE = 32
console = Console(highlight=False)


def demo(
    image: Annotated[Path | None, typer.Argument(help="An image. Default: a portrait.")] = None,
    output: Annotated[Path, typer.Option(help="PNG file for the contact sheet.")] = Path("demo.png"),
    regions: Annotated[int, typer.Option(min=1, max=64, help="Number of regions to crop.")] = 12,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Height and width of the crops in pixels.")] = 160,
    seed: Annotated[int, seed_option("Random seed for the regions.")] = 0,
    speed: Annotated[bool, typer.Option(help="Compare the speed with torchvision.")] = True,
) -> None:
    """Crop regions of an image with roi_align and show them on a contact sheet."""
    check_output(output, "--output", ".png")
    photo = open_photo(image or portrait())
    if min(photo.size) < LEAST_SIDE:
        fail(f"{image} is too small: {photo.width}x{photo.height}, at least {LEAST_SIDE}x{LEAST_SIDE} is needed")
    pixels = to_tensor(photo)
    boxes = choose_regions(pixels, regions, seed)
    cut_out(pixels, boxes, size)  # a first call pays for loading and for memory
    start = time.perf_counter()
    cut = cut_out(pixels, boxes, size)
    seconds = time.perf_counter() - start
    name = image.name if image is not None else "portrait"
    what = f"{regions} region{'s' if regions > 1 else ''} of {name} ({photo.width}x{photo.height}) to {size}x{size}"
    sheet = draw_sheet(photo, boxes.tolist(), [to_image(one) for one in cut], f"fastcv.ops.roi_align: {what}, one call")
    save_png(sheet, output)
    console.print(f"{output}: {what}, cut out in {1e3 * seconds:.2f} ms", soft_wrap=True)
    if speed:
        print_speed(pixels, boxes, size)


def portrait() -> Path:
    """Return the path of the portrait that matplotlib ships."""
    from matplotlib.cbook import get_sample_data  # imported here: it takes its time, and only the portrait needs it

    return Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


def print_speed(photo: Tensor, boxes: Tensor, size: int) -> None:
    """Print a table of times next to torchvision's, or the reason why there is none."""
    theirs = load_torchvision()
    if isinstance(theirs, str):
        console.print(f"No comparison of speed: {theirs}.", soft_wrap=True)
        return
    table = Table(title="against torchvision: medians, taking turns", title_justify="left", box=None, pad_edge=False)
    table.add_column("task")
    for heading in ("threads", "fastcv", "torchvision", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in [*compare(photo, boxes, size, theirs), compare_detector(photo)]:
        ours, peer = (f"{1e3 * seconds:.2f} ms" for seconds in (result.ours, result.theirs))
        table.add_row(result.workload, str(result.threads), ours, peer, f"[bold]{result.ratio:.1f}x[/bold]")
    console.print()
    console.print(table)
