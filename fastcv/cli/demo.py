"""``fastcv demo``: what a detector finds in a photograph, drawn, and cut out by ``roi_align``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fastcv.cli.detector import load_detector, set_score
from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_output, seed_option
from fastcv.cli.photo import open_photo, save_png, to_image, to_tensor
from fastcv.cli.predict import table_of
from fastcv.cli.regions import cut_out, squares_around
from fastcv.cli.results import check_apart
from fastcv.cli.sheet import Tile, draw_sheet, plan
from fastcv.cli.speed import compare, compare_detector, load_torchvision
from fastcv.detections import Detections

LEAST_SIDE = 32
FREE_FACE = 115  # a seed with which the shapes leave the face of the portrait free
SHIPPED = Path("maskrcnn_scenes")  # finds generated figures
PUBLISHED = "FASTCV_YOLOV3_TINY"  # of the environment: a folder with yolov3-tiny.weights
console = Console(highlight=False)


def demo(
    image: Annotated[Path | None, typer.Argument(help="An image. Default: a portrait.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights of a detector. Default: those that find shapes, set into the image for it."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model, for weights that do not say which they belong to.")] = None,
    output: Annotated[Path, typer.Option(help="PNG file for the picture.")] = Path("demo.png"),
    crops: Annotated[
        int, typer.Option("--crops", "--regions", min=1, max=64, help="Most objects to cut out, the best.")
    ] = 12,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Height and width of the crops in pixels.")] = 160,
    seed: Annotated[int, seed_option("Random seed of the shapes that are set into the image.", least=0)] = FREE_FACE,
    speed: Annotated[bool, typer.Option(help="Compare the speed with torchvision.")] = True,
) -> None:
    """Show what a detector finds in a photograph, and compare the speed with torchvision."""
    check_output(output, "--output", ".png")
    weights = _default_weights() if weights is None else weights
    check_apart(output, "--output", [str(path) for path in (image, weights) if path is not None])
    photo = open_photo(image or portrait())
    if min(photo.size) < LEAST_SIDE:
        fail(f"{image} is too small: {photo.width}x{photo.height}, at least {LEAST_SIDE}x{LEAST_SIDE} is needed")
    detector = load_detector(model, weights, None, torch.device("cpu"))
    score = set_score(detector, None)
    pixels, shapes = to_tensor(photo), 0
    target: dict[str, Any] = {}
    classes = _figures_for(detector)
    if classes:
        from fastcv.data.scenes import figures_on_photograph

        pixels, target = figures_on_photograph(pixels, classes, seed, min(detector.card.names))
        shapes = len(target["labels"])
    found, seconds = _detect(detector, pixels, score)
    name = image.name if image is not None else "the portrait"
    regions = squares_around(found.boxes, *pixels.shape[1:])[:crops]
    what = f"{found.summary() or 'nothing'} in {name} ({photo.width}x{photo.height})"
    save_png(_sheet(found, pixels, regions, size, f"fastcv found {what}"), output)
    if shapes:
        what += f", into which {shapes} shape{'' if shapes == 1 else 's'} had been set: {_matched(found, target)} right"
    console.print(f"{output}: found {what}, in {seconds:.2f} s", soft_wrap=True)
    if len(found):
        console.print(table_of(found))
    if speed:
        print_speed(pixels, regions, size)


def _default_weights() -> Path:
    """Return published weights if the environment says where they are, else those that come with the package."""
    folder = os.environ.get(PUBLISHED)
    return SHIPPED if not folder else Path(folder, "yolov3-tiny.weights")


def portrait() -> Path:
    """Return the path of the portrait that matplotlib ships."""
    from matplotlib.cbook import get_sample_data  # imported here: it takes its time, and only the portrait needs it

    return Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))


def _figures_for(detector: Any) -> list[str]:
    """Return the classes of a detector that was trained on generated scenes; none for others."""
    options = detector.card.facts.get("options", {})
    return list(detector.card.names.values()) if options.get("data") in ("scenes", "people") else []


def _detect(detector: Any, pixels: Tensor, score: float) -> tuple[Detections, float]:
    """Return what is found, the best first, and the seconds that it took."""
    with torch.inference_mode():
        try:
            detector([pixels])  # a first call pays for loading and for memory
            start = time.perf_counter()
            (found,) = detector([pixels])
        except ValueError as error:
            fail(reason(error))
        seconds = time.perf_counter() - start
    return Detections.from_model(found, detector, score=score, image=to_image(pixels)), seconds


def _matched(found: Detections, target: dict[str, Any]) -> int:
    """Return how many of the shapes are found: as what they are, with an IoU of at least 0.5."""
    from fastcv.ops import box_iou

    overlap = box_iou(target["boxes"], found.boxes) >= 0.5
    return int((overlap & (target["labels"][:, None] == found.labels[None])).any(1).sum())


def _sheet(found: Detections, pixels: Tensor, regions: Tensor, size: int, note: str) -> Image.Image:
    """Return the picture with the objects drawn into it, and a crop of each beside it."""
    from fastcv.drawing import colour_of

    crops = cut_out(pixels, regions, size)
    tiles = [
        Tile(to_image(crop), caption, colour_of(label))
        for crop, caption, label in zip(crops, found.captions(), found.labels.tolist(), strict=False)
    ]
    width, height = pixels.shape[2], pixels.shape[1]
    left, _, right, _ = plan((width, height), len(tiles), size).photo
    return draw_sheet(found.plot(scale=(right - left) / width), tiles, size, note)


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
