"""``fastcv segment``: a U-Net learns to tell shapes from their ground, and shows what it has learnt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer
from PIL import Image
from rich.console import Console
from torch import Tensor

from fastcv.cli.progress import training_bar
from fastcv.cli.rows import draw_rows
from fastcv.data import synthetic_shapes
from fastcv.engine import evaluate_segmentation, train_segmentation
from fastcv.models.segmentation import UNet

TARGET = 0.95
TRAINING_IMAGES, HELD_OUT_IMAGES, SHOWN_IMAGES = 256, 64, 6
MAGNIFIED = 160
SHAPE, REST, WRONG = (46, 110, 180), (228, 230, 233), (214, 64, 48)
console = Console(highlight=False)


def segment(
    output: Annotated[Path, typer.Option(help="Where the picture of images, truth and predictions goes.")] = Path(
        "segment.png"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Batches of 8 images to train on.")] = 300,
    size: Annotated[int, typer.Option(min=16, max=512, help="Side of the images in pixels, a multiple of 8.")] = 64,
    base_channels: Annotated[int, typer.Option(min=1, max=256, help="Channels of the U-Net at full size.")] = 8,
    seed: Annotated[int, typer.Option(help="Draws other images and begins with other weights.")] = 0,
) -> None:
    """Train a U-Net on drawn shapes, and show what it makes of images that it has not seen."""
    if output.suffix.lower() != ".png":
        fail(f"the picture is a PNG: --output {output} has to end in .png")
    if size % 8:
        fail(f"--size has to be a multiple of 8, got {size}")
    images, masks = synthetic_shapes(TRAINING_IMAGES, size, seed)
    unseen, truth = synthetic_shapes(HELD_OUT_IMAGES, size, seed + 1_000_003)
    torch.manual_seed(seed)
    model = UNet(3, 2, base_channels=base_channels, depth=3).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    start = time.perf_counter()
    with training_bar(console, steps) as on_step:
        train_segmentation(model, images, masks, steps=steps, seed=seed, on_step=on_step)
    seconds = time.perf_counter() - start
    score, predicted = evaluate_segmentation(model, unseen, truth)
    what = f"U-Net, {steps} steps of 8 images {size}x{size}: mean IoU {score:.3f} on {HELD_OUT_IMAGES} unseen images"
    sheet = draw_sheet(unseen[:SHOWN_IMAGES], truth[:SHOWN_IMAGES], predicted[:SHOWN_IMAGES], what)
    try:
        sheet.save(output, format="PNG")
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror or error}")
    verdict = "reached" if score >= TARGET else "missed"
    console.print(f"{output}: {what}, trained in {seconds:.0f} s; {TARGET} {verdict}", soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    typer.echo(f"fastcv segment: {message}", err=True)
    raise typer.Exit(2)


def draw_sheet(images: Tensor, truth: Tensor, predicted: Tensor, note: str) -> Image.Image:
    """One column per image: the image, the truth, the prediction with what is wrong in red."""
    wrong = paint(predicted)
    wrong[predicted != truth] = torch.tensor(WRONG, dtype=torch.uint8)
    photos = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    rows = {"image": photos, "truth": paint(truth), "prediction (wrong pixels red)": wrong}
    return draw_rows(
        {caption: [Image.fromarray(tile.numpy()) for tile in tiles] for caption, tiles in rows.items()}, MAGNIFIED, note
    )


def paint(classes: Tensor) -> Tensor:
    """(N, H, W) classes as colours, uint8 (N, H, W, 3)."""
    return torch.tensor([REST, SHAPE], dtype=torch.uint8)[classes]
