"""A sheet of images in rows with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN, CAPTION = 12, 26
GROUND, INK = (250, 250, 248), (30, 30, 34)


def draw_rows(rows: Mapping[str, Sequence[Image.Image]], side: int, note: str) -> Image.Image:
    """Compose rows of square images, resized to ``side`` pixels, under captions (the keys), and ``note`` at the end."""
    columns = max(len(pictures) for pictures in rows.values())
    width = MARGIN + columns * (side + MARGIN)
    sheet = Image.new("RGB", (width, MARGIN + len(rows) * (CAPTION + side + MARGIN) + CAPTION), GROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    y = MARGIN
    for caption, pictures in rows.items():
        draw.text((MARGIN, y), caption, fill=INK, font=font)
        for column, picture in enumerate(pictures):
            enlarged = picture.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (MARGIN + column * (side + MARGIN), y + CAPTION))
        y += CAPTION + side + MARGIN
    draw.text((MARGIN, y), note, fill=INK, font=font)
    return sheet
