"""Trains a U-Net to tell shapes from the background, pixel by pixel, and draws images, truth and predictions.

python examples/train_unet.py            # a minute or two on two cores
python examples/train_unet.py --short    # seconds, to see that it runs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from fastcv.data import synthetic_scenes
from fastcv.data.transforms import HorizontalFlip
from fastcv.engine import Progress, SegmentationTask, Trainer, TrainOptions
from fastcv.models import create_model

SIZE, SHOWN, HELD_OUT_SEED = 64, 6, 1_000_003
WRONG = (255, 0, 0)


def main(words: list[str] | None = None) -> None:
    """Train, and draw a few images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/segment"), help="folder for weights and picture")
    parser.add_argument("--short", action="store_true", help="two steps only")
    chosen = parser.parse_args(words)
    data = shapes(16 if chosen.short else 512, seed=0)
    unseen = shapes(8 if chosen.short else 64, seed=HELD_OUT_SEED)
    torch.manual_seed(0)
    model = create_model("unet", names=["background", "shape"], base_channels=8, depth=3)
    options = TrainOptions(
        steps=2 if chosen.short else 400, batch=8, learning_rate=1e-2, schedule="one-cycle", clip=0,
        plots=not chosen.short,
    )  # fmt: skip
    trainer = Trainer(
        SegmentationTask(), model, data, unseen, options, chosen.output, [Progress()], transform=HorizontalFlip()
    )
    trainer.train()
    print(f"{chosen.output / 'best.safetensors'}: for fastcv val and load_model")
    images, truth = trainer.task.collate([unseen[index] for index in range(SHOWN)])
    draw(model.to("cpu").eval(), images, truth, chosen.output / "segment.png")


def shapes(count: int, seed: int) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return generated images, with the masks of their shapes as one class."""
    scenes = synthetic_scenes(count, SIZE, seed)
    samples = [scenes[index] for index in range(count)]
    return [(image, {**target, "labels": torch.ones_like(target["labels"])}) for image, target in samples]


@torch.no_grad()
def draw(model: nn.Module, images: Tensor, truth: Tensor, path: Path) -> None:
    """Draw three rows: the images, the truth, and the predictions with wrong pixels in red."""
    colours = torch.tensor([(228, 230, 233), (46, 110, 180)], dtype=torch.uint8)
    predicted = model(images).argmax(1)
    painted = colours[predicted]
    painted[predicted != truth] = torch.tensor(WRONG, dtype=torch.uint8)
    photos = (255 * images).byte().permute(0, 2, 3, 1)
    rows = [torch.cat([*tiles], 1) for tiles in (photos, colours[truth], painted)]
    picture = Image.fromarray(torch.cat(rows).numpy())
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(path)
    print(f"{path}: images, truth, and predictions with wrong pixels in red")


if __name__ == "__main__":
    main()
