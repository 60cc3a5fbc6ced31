"""The sheet of the demo: a picture with what is found in it, and each object cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from PIL import Image, ImageDraw

from fastcv.drawing import font_of, ink_on

MARGIN, GAP, FRAME, CAPTION, NOTE = 24, 14, 4, 24, 34
PAPER, INK = (250, 249, 246), (70, 70, 70)
WIDEST = 1.6  # a picture wider than this, relative to the height of the sheet, is shown smaller
LEAST_ROWS = 3  # the picture is as high as so many rows of tiles, or more

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tile:
    """An object cut out: a square image with its caption."""

    image: Image.Image
    caption: str
    colour: Colour


@dataclass(frozen=True)
class Layout:
    """Positions on the sheet, in pixels."""

    sheet: tuple[int, int]
    photo: Box
    tiles: tuple[Box, ...]


def plan(photo_size: tuple[int, int], count: int, size: int) -> Layout:
    """Place a picture at the left and, at its right, ``count`` tiles of ``size`` pixels with room for captions."""
    columns = max(1, round(sqrt(count / 1.5)))
    across, down = size + 2 * FRAME + GAP, size + 2 * FRAME + CAPTION + GAP
    high = max(ceil(count / columns), LEAST_ROWS) * down - GAP
    width, height = photo_size
    scale = min(high / height, WIDEST * high / width)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    left = MARGIN + shown[0] + 2 * GAP
    tiles = []
    for index in range(count):
        x, y = left + index % columns * across + FRAME, MARGIN + index // columns * down + FRAME + CAPTION
        tiles.append((x, y, x + size, y + size))
    right = left + columns * across - GAP if count else MARGIN + shown[0]
    bottom = MARGIN + max(shown[1], ceil(count / columns) * down - GAP)
    return Layout(
        (right + MARGIN, bottom + NOTE + MARGIN // 2),
        (MARGIN, MARGIN, MARGIN + shown[0], MARGIN + shown[1]),
        tuple(tiles),
    )


def draw_sheet(picture: Image.Image, tiles: Sequence[Tile], size: int, note: str) -> Image.Image:
    """Compose the sheet.

    Parameters
    ----------
    picture
        It is resized if it does not have the size that :func:`plan` gives it.
    tiles
        Square, all of ``size`` pixels.
    note
        Caption of all, one line.
    """
    layout = plan(picture.size, len(tiles), size)
    sheet = Image.new("RGB", layout.sheet, PAPER)
    draw = ImageDraw.Draw(sheet)
    left, top, right, bottom = layout.photo
    sheet.paste(picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    for tile, (x1, y1, x2, y2) in zip(tiles, layout.tiles, strict=True):
        draw.rectangle((x1 - FRAME, y1 - FRAME - CAPTION, x2 + FRAME - 1, y2 + FRAME - 1), fill=tile.colour)
        sheet.paste(tile.image, (x1, y1))
        place = ((x1 + x2) / 2, y1 - (FRAME + CAPTION) / 2)
        draw.text(place, tile.caption, fill=ink_on(tile.colour), font=font_of(15), anchor="mm")
    draw.text((MARGIN, layout.sheet[1] - NOTE), note, fill=INK, font=font_of(15))
    return sheet
