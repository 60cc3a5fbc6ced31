"""The contact sheet of the demo: an image with numbered boxes, and its crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, FRAME, CAPTION = 28, 14, 5, 34
PAPER, INK = (250, 249, 246), (70, 70, 70)
WIDEST = 1.6  # an image wider than this, relative to the height of the sheet, is shown smaller

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

PALETTE: tuple[Colour, ...] = (
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (23, 190, 207),
    (227, 119, 194),
    (140, 86, 75),
    (242, 194, 0),
    (38, 65, 143),
    (155, 211, 31),
    (160, 0, 100),
)


@dataclass(frozen=True)
class Layout:
    """Positions on the sheet, in pixels."""

    sheet: tuple[int, int]
    photo: Box
    tiles: tuple[Box, ...]


def plan(photo_size: tuple[int, int], count: int, size: int) -> Layout:
    """Place an image at the left and, at the same height, ``count`` tiles of ``size`` pixels at its right."""
    columns = max(1, round(sqrt(count)))
    rows = ceil(count / columns)
    step = size + 2 * FRAME + GAP
    grid_width, grid_height = columns * step - GAP, rows * step - GAP
    width, height = photo_size
    scale = min(grid_height / height, WIDEST * grid_height / width)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    top = MARGIN + (grid_height - shown[1]) // 2
    left = MARGIN + shown[0] + 2 * GAP
    tiles = []
    for index in range(count):
        x = left + index % columns * step + FRAME
        y = MARGIN + index // columns * step + FRAME
        tiles.append((x, y, x + size, y + size))
    sheet = (left + grid_width + MARGIN, MARGIN + grid_height + CAPTION + MARGIN // 2)
    return Layout(sheet, (MARGIN, top, MARGIN + shown[0], top + shown[1]), tuple(tiles))


def colour_of(index: int) -> Colour:
    """Return the colour of a region. Colours repeat after twelve; the numbers stay unique."""
    return PALETTE[index % len(PALETTE)]


def draw_sheet(
    photo: Image.Image, regions: Sequence[Sequence[float]], tiles: Sequence[Image.Image], note: str
) -> Image.Image:
    """Compose the sheet.

    Parameters
    ----------
    photo
        The image.
    regions
        Boxes x1, y1, x2, y2 in pixels of the image.
    tiles
        The crops; square, all of one size.
    note
        Caption, one line.
    """
    layout = plan(photo.size, len(tiles), tiles[0].width)
    sheet = Image.new("RGB", layout.sheet, PAPER)
    draw = ImageDraw.Draw(sheet)
    left, top, right, bottom = layout.photo
    sheet.paste(photo.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    scale = (right - left) / photo.width
    placed = [
        (index + 1, on_sheet(region, layout.photo, scale), colour_of(index)) for index, region in enumerate(regions)
    ]
    for _, box, colour in placed:
        outline(draw, box, colour)
    for number, box, colour in placed:  # after all boxes, so that no line crosses a number
        badge(draw, (box[0], box[1]), number, colour)
    for (number, _, colour), tile, place in zip(placed, tiles, layout.tiles, strict=True):
        frame = (place[0] - FRAME, place[1] - FRAME, place[2] + FRAME - 1, place[3] + FRAME - 1)
        draw.rectangle(frame, fill=colour)
        sheet.paste(tile, place[:2])
        badge(draw, (frame[0], frame[1]), number, colour)
    draw.text((MARGIN, layout.sheet[1] - CAPTION), note, fill=INK, font=ImageFont.load_default(15))
    return sheet


def on_sheet(region: Sequence[float], photo: Box, scale: float) -> Box:
    """Return a region of the image in pixels of the sheet."""
    x1, y1, x2, y2 = (round(value * scale) for value in region)
    return photo[0] + x1, photo[1] + y1, photo[0] + x2 - 1, photo[1] + y2 - 1


def outline(draw: ImageDraw.ImageDraw, box: Box, colour: Colour) -> None:
    """Draw a box that is visible on any background: the colour, with a dark line inside."""
    draw.rectangle(box, outline=colour, width=4)
    inner = (box[0] + 4, box[1] + 4, box[2] - 4, box[3] - 4)
    if inner[2] > inner[0] and inner[3] > inner[1]:
        draw.rectangle(inner, outline=(30, 30, 30), width=1)


def badge(draw: ImageDraw.ImageDraw, corner: tuple[int, int], number: int, colour: Colour) -> None:
    """Draw a number on its colour, with its top left corner at ``corner``."""
    text = str(number)
    font = ImageFont.load_default(16)
    x, y = corner
    width, height = max(22, 12 + round(draw.textlength(text, font=font))), 22
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 150
    ink = (0, 0, 0) if bright else (255, 255, 255)
    draw.text((x + width / 2, y + height / 2), text, fill=ink, font=font, anchor="mm")
