"""``fastcv segment``: trains a U-Net to segment synthetic shapes, and draws its predictions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from rich.console import Console
from torch import Tensor

from fastcv.cli.errors import fail
from fastcv.cli.options import check_output, seed_option
from fastcv.cli.photo import save_png
from fastcv.cli.rows import draw_rows
from fastcv.data import synthetic_shapes
from fastcv.engine import Progress, SegmentationTask, Trainer, TrainOptions, confusion_matrix, mean_iou
from fastcv.models.segmentation import UNet

TARGET = 0.95
TRAINING_IMAGES, HELD_OUT_IMAGES, SHOWN_IMAGES = 256, 64, 6
MAGNIFIED = 160
SHAPE, REST, WRONG = (46, 110, 180), (228, 230, 233), (214, 64, 48)
console = Console(highlight=False)


def segment(
    output: Annotated[Path, typer.Option(help="PNG file for images, truth and predictions.")] = Path("segment.png"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps, of 8 images each.")] = 300,
    size: Annotated[int, typer.Option(min=16, max=512, help="Height and width of the images, a multiple of 8.")] = 64,
    base_channels: Annotated[int, typer.Option(min=1, max=256, help="Channels of the U-Net at full resolution.")] = 8,
    seed: Annotated[int, seed_option("Random seed for the images and the initial weights.")] = 0,
) -> None:
    """Train a U-Net on synthetic shapes, and draw its predictions for images that it was not trained on."""
    check_output(output, "--output", ".png")
    if size % 8:
        fail(f"--size must be a multiple of 8, got {size}")
    images, masks = synthetic_shapes(TRAINING_IMAGES, size, seed)
    unseen, truth = synthetic_shapes(HELD_OUT_IMAGES, size, seed + 1_000_003)
    torch.manual_seed(seed)
    model = UNet(3, 2, base_channels=base_channels, depth=3).to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    start = time.perf_counter()
    options = TrainOptions(
        steps=steps, batch=8, learning_rate=1e-2, schedule="one-cycle", clip=0, seed=max(seed, 0), device="cpu"
    )
    data = list(zip(images, masks, strict=True))
    Trainer(SegmentationTask(), model, data, options=options, callbacks=[Progress(lines=False)], transform=turn).train()
    seconds = time.perf_counter() - start
    predicted = predict(model, unseen)
    score = mean_iou(confusion_matrix(predicted, truth, 2))
    what = f"U-Net, {steps} steps of 8 images {size}x{size}: mean IoU {score:.3f} on {HELD_OUT_IMAGES} unseen images"
    sheet = draw_sheet(unseen[:SHOWN_IMAGES], truth[:SHOWN_IMAGES], predicted[:SHOWN_IMAGES], what)
    save_png(sheet, output)
    verdict = "reached" if score >= TARGET else "missed"
    console.print(f"{output}: {what}, trained in {seconds:.0f} s; {TARGET} {verdict}", soft_wrap=True)


def turn(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate an image by 0, 90, 180 or 270 degrees, and flip half of them."""
    turns, flip = int(torch.randint(4, (), generator=generator)), int(torch.randint(2, (), generator=generator))
    image, mask = image.rot90(turns, (-2, -1)), mask.rot90(turns, (-2, -1))
    return (image.flip(-1), mask.flip(-1)) if flip else (image, mask)


@torch.no_grad()
def predict(model: UNet, images: Tensor) -> Tensor:
    """Return the class of each pixel, int64 (N, H, W)."""
    model.eval()
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in images.split(32)]
    return torch.cat([model(batch).argmax(1) for batch in batches])


def draw_sheet(images: Tensor, truth: Tensor, predicted: Tensor, note: str) -> Image.Image:
    """Compose one column per image: the image, the truth, and the prediction with wrong pixels in red."""
    wrong = paint(predicted)
    wrong[predicted != truth] = torch.tensor(WRONG, dtype=torch.uint8)
    photos = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    rows = {"image": photos, "truth": paint(truth), "prediction (wrong pixels red)": wrong}
    return draw_rows(
        {caption: [Image.fromarray(tile.numpy()) for tile in tiles] for caption, tiles in rows.items()}, MAGNIFIED, note
    )


def paint(classes: Tensor) -> Tensor:
    """Return the colours, uint8 (N, H, W, 3), of classes (N, H, W)."""
    return torch.tensor([REST, SHAPE], dtype=torch.uint8)[classes]
