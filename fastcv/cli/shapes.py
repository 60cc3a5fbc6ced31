"""``fastcv shapes``: trains a small Mask R-CNN on synthetic shapes, and draws its detections."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_output, seed_option
from fastcv.cli.photo import save_png, to_image
from fastcv.cli.rows import draw_rows
from fastcv.data import synthetic_instances
from fastcv.data.files import replaced_file
from fastcv.detections import Detections
from fastcv.drawing import draw_detections
from fastcv.engine import DetectionTask, Progress, Trainer, TrainOptions, evaluate_detection
from fastcv.models.detection import create

MODEL = "maskrcnn_tiny_fpn"
TRAINING_IMAGES, HELD_OUT_IMAGES, SHOWN_IMAGES = 1200, 64, 5
MAGNIFICATION = 2
console = Console(highlight=False)


def shapes(
    output: Annotated[Path, typer.Option(help="PNG file for truth and detections.")] = Path("shapes.png"),
    weights: Annotated[Path, typer.Option(help="File for the checkpoint, .safetensors.")] = Path("shapes.safetensors"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps, of 4 images each.")] = 1000,
    size: Annotated[int, typer.Option(min=64, max=512, help="Height and width of the images.")] = 128,
    seed: Annotated[int, seed_option("Random seed for the images and the initial weights.")] = 0,
) -> None:
    """Train a small Mask R-CNN on synthetic shapes, write its checkpoint, and draw its detections in unseen images."""
    check_output(output, "--output", ".png")
    check_output(weights, "--weights", ".safetensors")
    images, targets = synthetic_instances(TRAINING_IMAGES, size, seed)
    unseen, truth = synthetic_instances(HELD_OUT_IMAGES, size, seed + 1_000_003)
    torch.manual_seed(seed)
    model = create(
        MODEL, num_classes=2, min_size=size, max_size=size,
        box_batch_size_per_image=64, rpn_batch_size_per_image=64, box_nms_thresh=0.3,
    )  # fmt: skip
    start = time.perf_counter()
    options = TrainOptions(
        steps=steps, batch=4, learning_rate=3e-3, schedule="one-cycle", seed=max(seed, 0), device="cpu"
    )
    data = list(zip(images, targets, strict=True))
    Trainer(DetectionTask(), model, data, options=options, callbacks=[Progress(lines=False)], transform=mirror).train()
    seconds = time.perf_counter() - start
    try:
        with replaced_file(weights) as file:
            file.write_bytes(save(model.state_dict()))
    except OSError as error:
        fail(f"cannot write {weights}: {reason(error)}")
    score, found = evaluate_detection(model, unseen, truth)
    what = (
        f"{steps} steps of 4 images {size}x{size}: {score.recall:.0%} of the shapes in {HELD_OUT_IMAGES} unseen images "
        f"found, {score.precision:.0%} of the detections correct"
    )
    sheet = draw_rows(
        {"truth": [picture(*pair) for pair in zip(unseen[:SHOWN_IMAGES], truth[:SHOWN_IMAGES], strict=True)],
         "found": [picture(*pair) for pair in zip(unseen[:SHOWN_IMAGES], found[:SHOWN_IMAGES], strict=True)]},
        size * MAGNIFICATION,
        what,
    )  # fmt: skip
    save_png(sheet, output)
    console.print(f"{output}, {weights}: {what}; trained in {seconds:.0f} s", soft_wrap=True)


def mirror(image: Tensor, target: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Flip half of the images horizontally."""
    if float(torch.rand((), generator=generator)) < 0.5:
        return image, target
    x1, y1, x2, y2 = target["boxes"].unbind(1)
    width = image.shape[-1]
    boxes = torch.stack([width - x2, y1, width - x1, y2], 1)
    return image.flip(-1), {**target, "boxes": boxes, "masks": target["masks"].flip(-1)}


def picture(image: Tensor, found: dict[str, Any]) -> Image.Image:
    """Return the image, enlarged, with detections or targets drawn into it."""
    objects = Detections.from_model(found, {1: "shape"})
    captions = [f"{score:.2f}" for score in objects.scores.tolist()] if objects.scores is not None else True
    return draw_detections(to_image(image), objects, captions=captions, by_object=True, scale=MAGNIFICATION)
