"""Cuts boxes out of a photograph with roi_align, one call for all of them, and draws boxes and crops.

python examples/crop_regions.py              # matplotlib's portrait
python examples/crop_regions.py photo.jpg    # or a picture of yours
python examples/crop_regions.py --short      # small crops
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw
from torch import Tensor

from fastcv.data.images import open_image, to_tensor
from fastcv.ops import roi_align

COLOURS = ("#e63946", "#f4a261", "#2a9d8f", "#457b9d", "#8338ec", "#ffbe0b", "#06d6a0", "#ef476f")


def main(words: list[str] | None = None) -> None:
    """Crop, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", help="file; default: the portrait that matplotlib ships")
    parser.add_argument("--output", type=Path, default=Path("crops.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="crops of 64 pixels")
    chosen = parser.parse_args(words)
    photo = open_image(chosen.photo or str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    side = 64 if chosen.short else 160
    boxes = random_boxes(photo.width, photo.height, len(COLOURS))
    crops = crop(to_tensor(photo), boxes, side)
    draw(photo, boxes, crops).save(chosen.output)
    print(f"{chosen.output}: {len(boxes)} boxes above, and what roi_align cuts out of them below")


def random_boxes(width: int, height: int, count: int) -> Tensor:
    """Return boxes (count, 4) of x1, y1, x2, y2 inside of an image, of any shape and size."""
    generator = torch.Generator().manual_seed(0)
    sides = (0.15 + 0.3 * torch.rand(count, 2, generator=generator)) * min(width, height)
    corners = torch.rand(count, 2, generator=generator) * (torch.tensor([width, height]) - sides)
    return torch.cat([corners, corners + sides], dim=1)


def crop(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return the boxes' content (count, 3, side, side), whatever their size: the samples of each bin are averaged."""
    return roi_align(image[None], [boxes], output_size=side, aligned=True)


def draw(photo: Image.Image, boxes: Tensor, crops: Tensor) -> Image.Image:
    """Return the photograph with the boxes, and the crops under it, framed in their colours."""
    side, frame = crops.shape[-1], 3
    photo = photo.copy()
    pen = ImageDraw.Draw(photo)
    for box, colour in zip(boxes.tolist(), COLOURS, strict=True):
        pen.rectangle(box, outline=colour, width=frame)
    tile = side + 2 * frame
    columns = max(1, photo.width // tile)
    rows = -(-len(crops) // columns)
    sheet = Image.new("RGB", (photo.width, photo.height + rows * tile), "white")
    sheet.paste(photo)
    for index, (content, colour) in enumerate(zip(crops, COLOURS, strict=True)):
        place = (index % columns * tile, photo.height + index // columns * tile)
        sheet.paste(Image.new("RGB", (tile, tile), colour), place)
        picture = Image.fromarray((255 * content).round().byte().permute(1, 2, 0).numpy())
        sheet.paste(picture, (place[0] + frame, place[1] + frame))
    return sheet


if __name__ == "__main__":
    main()
