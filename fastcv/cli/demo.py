"""``fastcv demo``: regions of a photograph, cut out by ``roi_align`` and laid out on a contact sheet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import torch
import typer
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.regions import choose_regions, cut_out
from fastcv.cli.sheet import draw_sheet
from fastcv.cli.speed import compare, compare_detector, load_torchvision

LEAST_SIDE = 32
console = Console(highlight=False)


def demo(
    image: Annotated[Path | None, typer.Argument(help="A photograph; without one, a portrait.")] = None,
    output: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("demo.png"),
    regions: Annotated[int, typer.Option(min=1, max=64, help="How many regions to cut out.")] = 12,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side of the cut-outs in pixels.")] = 160,
    seed: Annotated[int, typer.Option(help="Chooses other regions.")] = 0,
    speed: Annotated[bool, typer.Option(help="Compare the speed with torchvision's.")] = True,
) -> None:
    """Cut regions out of a photograph with roi_align and lay them out on a contact sheet."""
    if output.suffix.lower() != ".png":
        fail(f"the contact sheet is a PNG: --output {output} has to end in .png")
    photo = open_photo(image)
    pixels = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1).float().div(255).contiguous()
    boxes = choose_regions(pixels, regions, seed)
    cut_out(pixels, boxes, size)  # a first call pays for loading and for memory
    start = time.perf_counter()
    cut = cut_out(pixels, boxes, size)
    seconds = time.perf_counter() - start
    name = image.name if image is not None else "portrait"
    what = f"{regions} region{'s' if regions > 1 else ''} of {name} ({photo.width}x{photo.height}) to {size}x{size}"
    sheet = draw_sheet(photo, boxes.tolist(), [to_image(one) for one in cut], f"fastcv.ops.roi_align: {what}, one call")
    try:
        sheet.save(output, format="PNG")
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror or error}")
    console.print(f"{output}: {what}, cut out in {1e3 * seconds:.2f} ms", soft_wrap=True)
    if speed:
        print_speed(pixels, boxes, size)


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    typer.echo(f"fastcv demo: {message}", err=True)
    raise typer.Exit(2)


def open_photo(path: Path | None) -> Image.Image:
    """Load a photograph upright and in RGB; without a path, the portrait that matplotlib ships."""
    try:
        if path is None:
            # imported here: matplotlib takes its time, and only the portrait needs it
            from matplotlib.cbook import get_sample_data

            path = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
        with Image.open(path) as opened:
            photo = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError:
        fail(f"there is no file {path}")
    except UnidentifiedImageError:
        fail(f"{path} is not an image that Pillow can read")
    except Image.DecompressionBombError:
        fail(f"{path} has too many pixels")
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways of saying that a file is damaged
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        fail(f"cannot read {path}: {reason}")
    if min(photo.size) < LEAST_SIDE:
        fail(f"{path} is too small: {photo.width}x{photo.height}, at least {LEAST_SIDE}x{LEAST_SIDE} is needed")
    return photo


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W), values 0 to 1, as an image."""
    levels = pixels.mul(255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def print_speed(photo: Tensor, boxes: Tensor, size: int) -> None:
    """A table of times beside torchvision's, or one line that says why there is none."""
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
