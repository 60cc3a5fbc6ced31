"""``fastcv shapes``: a small Mask R-CNN learns to find drawn shapes, and shows what it has learnt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import torch
import typer
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from fastcv.cli.detect import draw
from fastcv.cli.progress import training_bar
from fastcv.cli.rows import draw_rows
from fastcv.data import synthetic_instances
from fastcv.engine import evaluate_detection, train_detection
from fastcv.models.detection import create

MODEL = "maskrcnn_tiny_fpn"
TRAINING_IMAGES, HELD_OUT_IMAGES, SHOWN_IMAGES = 1200, 64, 5
MAGNIFICATION = 2
console = Console(highlight=False)


def shapes(
    output: Annotated[Path, typer.Option(help="Where the picture of truth and findings goes.")] = Path("shapes.png"),
    weights: Annotated[Path, typer.Option(help="Where the checkpoint goes.")] = Path("shapes.safetensors"),
    steps: Annotated[int, typer.Option(min=1, help="Batches of 4 images to train on.")] = 1000,
    size: Annotated[int, typer.Option(min=64, max=512, help="Side of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Draws other images and begins with other weights.")] = 0,
) -> None:
    """Train a small Mask R-CNN on drawn shapes, write its checkpoint, and show what it finds in unseen images."""
    for path, suffix, option in ((output, ".png", "--output"), (weights, ".safetensors", "--weights")):
        if path.suffix.lower() != suffix:
            fail(f"{option} {path} has to end in {suffix}")
    images, targets = synthetic_instances(TRAINING_IMAGES, size, seed)
    unseen, truth = synthetic_instances(HELD_OUT_IMAGES, size, seed + 1_000_003)
    torch.manual_seed(seed)
    model = create(
        MODEL, num_classes=2, min_size=size, max_size=size,
        box_batch_size_per_image=64, rpn_batch_size_per_image=64, box_nms_thresh=0.3,
    )  # fmt: skip
    start = time.perf_counter()
    with training_bar(console, steps) as on_step:
        train_detection(model, images, targets, steps=steps, learning_rate=3e-3, seed=seed, on_step=on_step)
    seconds = time.perf_counter() - start
    score, found = evaluate_detection(model, unseen, truth)
    what = (
        f"{steps} steps of 4 images {size}x{size}: {score.recall:.0%} of the shapes in {HELD_OUT_IMAGES} unseen images "
        f"found, {score.precision:.0%} of the findings right"
    )
    sheet = draw_rows(
        {"truth": [picture(*pair) for pair in zip(unseen[:SHOWN_IMAGES], truth[:SHOWN_IMAGES], strict=True)],
         "found": [picture(*pair) for pair in zip(unseen[:SHOWN_IMAGES], found[:SHOWN_IMAGES], strict=True)]},
        size * MAGNIFICATION,
        what,
    )  # fmt: skip
    try:
        save_file(model.state_dict(), weights)
        sheet.save(output, format="PNG")
    except OSError as error:
        fail(f"cannot write {error.filename or weights}: {error.strerror or error}")
    console.print(f"{output}, {weights}: {what}; trained in {seconds:.0f} s", soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    typer.echo(f"fastcv shapes: {message}", err=True)
    raise typer.Exit(2)


def picture(image: Tensor, found: dict[str, Any]) -> Image.Image:
    """Return the image, enlarged, with findings or targets drawn into it."""
    side = image.shape[-1] * MAGNIFICATION
    photo = Image.fromarray(image.mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    masks = found["masks"].float().reshape(-1, 1, *image.shape[1:])
    enlarged = {
        "boxes": found["boxes"] * MAGNIFICATION,
        "labels": torch.arange(len(found["labels"])),  # each in its own colour
        "masks": masks.repeat_interleave(MAGNIFICATION, -1).repeat_interleave(MAGNIFICATION, -2),
    }
    scores = found["scores"].tolist() if "scores" in found else []
    captions = [f"{score:.2f}" for score in scores] or ["shape"] * len(found["labels"])
    return draw(photo.resize((side, side), Image.Resampling.BICUBIC), enlarged, captions)
