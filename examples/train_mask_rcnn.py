"""Trains a small Mask R-CNN on generated scenes, and draws the truth and what it finds in images that are new to it.

python examples/train_mask_rcnn.py            # a few minutes on two cores
python examples/train_mask_rcnn.py --short    # seconds, to see that it runs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import fastcv
from fastcv.data import synthetic_scenes
from fastcv.data.transforms import HorizontalFlip
from fastcv.drawing import draw_detections
from fastcv.engine import DetectionTask, Progress, Trainer, TrainOptions
from fastcv.models import create_model

MODEL, SIZE, HELD_OUT_SEED = "maskrcnn_tiny_fpn", 128, 1_000_003


def main(words: list[str] | None = None) -> None:
    """Train, and draw five images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/shapes"), help="folder for weights and picture")
    parser.add_argument("--short", action="store_true", help="two steps only")
    chosen = parser.parse_args(words)
    data = synthetic_scenes(8 if chosen.short else 1200, SIZE)
    unseen = synthetic_scenes(8 if chosen.short else 64, SIZE, seed=HELD_OUT_SEED)
    torch.manual_seed(0)
    model = create_model(
        MODEL, names=data.names, min_size=SIZE, max_size=SIZE, box_nms_thresh=0.3,
        box_batch_size_per_image=64, rpn_batch_size_per_image=64,
    )  # fmt: skip
    options = TrainOptions(
        steps=2 if chosen.short else 1000, batch=4, learning_rate=3e-3, schedule="one-cycle", plots=not chosen.short
    )
    trainer = Trainer(
        DetectionTask(), model, data, unseen, options, chosen.output, [Progress()], transform=HorizontalFlip()
    )
    trainer.train()
    print(f"{chosen.output / 'best.safetensors'}: for fastcv predict, fastcv val and load_model")
    draw(model.to("cpu").eval(), [unseen[index] for index in range(5)], chosen.output / "shapes.png")


@torch.no_grad()
def draw(model: Any, samples: list[tuple[Tensor, dict[str, Any]]], path: Path) -> None:
    """Draw the truth in the first row, and what the model finds in the second."""
    found = model([image for image, _ in samples])
    sheet = Image.new("RGB", (len(samples) * 2 * SIZE, 4 * SIZE))
    for column, ((image, truth), answer) in enumerate(zip(samples, found, strict=True)):
        photo = Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy())
        for row, objects in enumerate((truth, answer)):
            detections = fastcv.Detections.from_model(objects, model)
            if row == 1:
                detections = detections.filter(score=0.5)
            picture = draw_detections(photo, detections, by_object=True, scale=2)
            sheet.paste(picture, (column * 2 * SIZE, row * 2 * SIZE))
    sheet.save(path)
    print(f"{path}: truth above, what is found below")


if __name__ == "__main__":
    main()
