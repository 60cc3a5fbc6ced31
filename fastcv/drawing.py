"""Detections drawn into pictures: masks, boxes, keypoints and captions that scale with the picture."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastcv._optional import require

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from fastcv.detections import Detections

__all__ = ["COCO_SKELETON", "colour_of", "draw_detections"]

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

# Pairs of COCO's 17 keypoints.
COCO_SKELETON: tuple[tuple[int, int], ...] = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip

# Neighbours differ in hue and in lightness, so that classes of small numbers are told apart.
_PALETTE: tuple[Colour, ...] = (
    (230, 57, 70), (30, 136, 229), (46, 160, 67), (255, 160, 0), (142, 68, 173), (0, 188, 212), (233, 84, 160),
    (150, 200, 40), (150, 105, 85), (83, 101, 211), (0, 137, 123), (255, 112, 67), (186, 104, 200), (255, 214, 0),
    (92, 107, 192), (0, 200, 140), (200, 40, 110), (120, 144, 156), (85, 139, 47), (64, 196, 255),
)  # fmt: skip


def colour_of(label: int) -> Colour:
    """Return the colour of a class: the same in every picture, and another one for every label."""
    if 0 <= label < len(_PALETTE):
        return _PALETTE[label]
    hue = (label * 0.61803398875) % 1.0  # the golden section: neighbours are far apart
    lightness, saturation = (0.45, 0.62, 0.53)[label % 3], (0.9, 0.7)[label % 2]
    while _brightness(colour := _as_colour(hue, lightness, saturation)) < 95:  # blue is darker than other hues
        lightness += 0.02
    return colour


def _as_colour(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def _brightness(colour: Colour) -> float:
    """Return how bright a colour is to the eye, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def ink_on(colour: Colour) -> Colour:
    """Return white, or black on colours so bright that white has less than 3 of contrast (WCAG 2.1)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if 1.05 / (luminance + 0.05) >= 3 else (0, 0, 0)


def draw_detections(
    image: Image.Image,
    found: Detections,
    *,
    captions: bool | Sequence[str] = True,
    boxes: bool = True,
    masks: bool = True,
    keypoints: bool = True,
    line_width: int | None = None,
    font_size: int | None = None,
    opacity: float = 0.4,
    visible: float = 0.25,
    colours: Mapping[int, Colour] | None = None,
    by_object: bool = False,
    scale: float = 1.0,
) -> Image.Image:
    """Return a copy of a picture with the objects drawn into it, those with the best scores on top.

    Parameters
    ----------
    image : PIL image
        RGB.
    found : Detections
        What to draw.
    captions : bool or list of str
        Whether to write classes and scores, or what to write.
    boxes, masks, keypoints : bool
        What to draw.
    line_width, font_size : int, optional
        In pixels. Default: so that they fit the picture.
    opacity : float
        Of masks, 0 to 1.
    visible : float
        Keypoints are drawn whose third number is larger.
    colours : dict, optional
        Label to (red, green, blue). Default: :func:`colour_of`.
    by_object : bool
        Give each object a colour of its own.
    scale : float
        Enlarge the picture first, such as a tiny one.
    """
    pillow, pens = require("PIL.Image", "drawing"), require("PIL.ImageDraw", "drawing")
    size = image.size if scale == 1 else (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    drawing = (
        image.convert("RGB") if size == image.size else image.convert("RGB").resize(size, pillow.Resampling.BICUBIC)
    )
    if drawing is image:
        drawing = image.copy()
    side = (size[0] * size[1]) ** 0.5
    width = max(1, round(side / 300)) if line_width is None else line_width
    order = list(range(len(found)))
    if found.scores is not None:
        order.sort(key=found.scores.tolist().__getitem__)  # the best comes last, on top of the others
    else:
        order.reverse()
    inks = [
        colour_of(row) if by_object else (colours or {}).get(label, colour_of(label))
        for row, label in enumerate(found.labels.tolist())
    ]
    if masks and found.masks is not None:
        pixels = np.array(drawing)
        for row in order:
            _paint(pixels, _sized(found.masks[row].cpu().numpy(), size), inks[row], opacity, width)
        drawing = pillow.fromarray(pixels)
    pen = pens.Draw(drawing, "RGBA")
    corners = (found.boxes.double() * scale).clamp(-1e6, 1e6).tolist()
    if boxes:
        for row in order:
            _box(pen, corners[row], inks[row], width, size)
    if keypoints and found.keypoints is not None:
        pairs = found.skeleton or (COCO_SKELETON if found.keypoints.shape[1] == 17 else ())
        points = found.keypoints.double().cpu().tolist()
        for row in order:
            placed = [(x * scale, y * scale) if v > visible and x == x and y == y else None for x, y, v in points[row]]
            drawing = _limbs(drawing, placed, pairs, inks[row], width)
        pen = pens.Draw(drawing, "RGBA")
    if captions is not False:
        texts = found.captions() if captions is True else list(captions)
        if len(texts) != len(found):
            raise ValueError(f"captions must be one per object, {len(found)}, got {len(texts)}")
        height = max(8, round(side / 45 + 4)) if font_size is None else font_size
        _Captions(pen, size, height, width).write(corners, texts, inks, order[::-1])
    return drawing


def _sized(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask in the size of the picture (width, height)."""
    if mask.shape == size[::-1]:
        return mask
    pillow = require("PIL.Image", "drawing")
    image = pillow.fromarray(mask.astype(np.uint8) * 255).resize(size, pillow.Resampling.BILINEAR)
    return np.asarray(image) > 127


# Masks ----------------------------------------------------------------------------------------------------------------


def _paint(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour, opacity: float, width: int) -> None:
    """Tint the pixels of a mask, and its border of ``width`` pixels more so."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside, part = mask[window], pixels[window]
    border = inside & ~_eroded(inside, width)
    share = np.where(border, max(opacity, 0.9 if opacity else 0.0), inside * opacity).astype(np.float32)[..., None]
    part[...] = np.rint(part * (1 - share) + np.array(colour, np.float32) * share).astype(np.uint8)


def _eroded(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the pixels that are further than ``width`` from what is not in the mask, in rows and columns."""
    for axis in (0, 1):
        sums = np.cumsum(np.pad(mask, [(width + 1, width) if a == axis else (0, 0) for a in (0, 1)]), axis, np.int32)
        length = mask.shape[axis]
        upper = np.take(sums, range(2 * width + 1, 2 * width + 1 + length), axis)
        lower = np.take(sums, range(length), axis)
        mask = upper - lower == 2 * width + 1
    return mask


# Boxes and keypoints --------------------------------------------------------------------------------------------------


def _box(pen: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour, width: int, size: tuple[int, int]) -> None:
    """Draw a box in its colour, between thin dark lines that set it off from a ground of the same colour."""
    x1, y1 = max(round(box[0]), 0), max(round(box[1]), 0)
    x2, y2 = min(round(box[2]) - 1, size[0] - 1), min(round(box[3]) - 1, size[1] - 1)
    if x2 < x1 or y2 < y1:
        return
    thin = max(1, width // 3)
    if width > 1:
        outer, inner = (x1 - thin, y1 - thin, x2 + thin, y2 + thin), (x1 + width, y1 + width, x2 - width, y2 - width)
        pen.rectangle(outer, outline=(0, 0, 0, 110), width=thin)
        if inner[2] > inner[0] + 2 * thin and inner[3] > inner[1] + 2 * thin:
            pen.rectangle(inner, outline=(0, 0, 0, 110), width=thin)
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)


def _limbs(
    drawing: Image.Image,
    points: Sequence[tuple[float, float] | None],
    pairs: Sequence[tuple[int, int]],
    colour: Colour,
    width: int,
) -> Image.Image:
    """Draw keypoints and the lines between them, smoothly: at four times the size, then reduced."""
    shown = [point for point in points if point is not None]
    if not shown:
        return drawing
    radius = 1.2 * width + 1
    reach = round(2 * radius + 2)
    left, top = (max(0, int(min(values)) - reach) for values in zip(*shown, strict=True))
    right, bottom = (
        min(limit, int(max(values)) + reach)
        for limit, values in zip(drawing.size, zip(*shown, strict=True), strict=True)
    )
    if right <= left or bottom <= top:
        return drawing
    times = 4 if (right - left) * (bottom - top) < 1 << 20 else 1
    part = drawing.crop((left, top, right, bottom))
    methods = require("PIL.Image", "drawing").Resampling
    part = part.resize((part.width * times, part.height * times), methods.NEAREST)
    pen = require("PIL.ImageDraw", "drawing").Draw(part, "RGBA")

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return (point[0] - left) * times, (point[1] - top) * times

    for ink, thick in (((0, 0, 0, 140), width * 1.5 + 1), ((*colour, 255), float(width))):
        for first, second in pairs:
            a, b = points[first], points[second]
            if a is not None and b is not None:
                pen.line((*at(a), *at(b)), fill=ink, width=max(1, round(thick * times)))
    for point in shown:
        x, y = at(point)
        for ink, size in (((0, 0, 0, 180), radius + 1), ((255, 255, 255, 255), radius), ((*colour, 255), radius * 0.6)):
            pen.ellipse((x - size * times, y - size * times, x + size * times, y + size * times), fill=ink)
    drawing.paste(part.resize((right - left, bottom - top), methods.BOX), (left, top))
    return drawing


# Captions -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def font_of(size: int) -> Any:
    """Return a font that has accents, Greek and Cyrillic if matplotlib, which brings it, is installed."""
    fonts = require("PIL.ImageFont", "drawing")
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return fonts.truetype(str(path), size)
    return fonts.load_default(size)


class _Captions:
    """Captions beside boxes: inside the picture, and where they cover other captions least."""

    def __init__(self, pen: ImageDraw.ImageDraw, size: tuple[int, int], height: int, width: int) -> None:
        self.pen, self.size, self.width = pen, size, width
        self.font = font_of(height)
        self.pad = max(1, round(height / 5))
        self.placed: list[Rectangle] = []

    def write(
        self, boxes: Sequence[Sequence[float]], texts: Sequence[str], inks: Sequence[Colour], order: Sequence[int]
    ) -> None:
        """Find places in the given order, the most important first, and draw in reverse."""
        labels = []
        for row in order:
            text = self._fitted(" ".join(texts[row].split()))
            if text:
                labels.append((self._place(boxes[row], text), text, inks[row]))
        for (left, top, right, bottom), text, colour in reversed(labels):
            self.pen.rounded_rectangle((left, top, right - 1, bottom - 1), radius=self.pad, fill=colour)
            ink = ink_on(colour)
            self.pen.text(((left + right) / 2, (top + bottom) / 2), text, fill=ink, font=self.font, anchor="mm")

    def _fitted(self, text: str) -> str:
        """Return the text, shortened to the width of the picture; empty if nothing would be left."""
        most = self.size[0] - 2 * self.pad
        if self.pen.textlength(text, font=self.font) <= most:
            return text
        while len(text) > 1 and self.pen.textlength(text + "…", font=self.font) > most:
            text = text[:-1].rstrip()
        return text + "…" if len(text) > 1 else ""

    def _place(self, box: Sequence[float], text: str) -> Rectangle:
        wide = round(self.pen.textlength(text, font=self.font)) + 2 * self.pad
        ascent, descent = self.font.getmetrics()
        high = ascent + descent + self.pad
        x1, y1, x2, y2 = (round(value) for value in box)
        edge = self.width
        corners = [
            (x1, y1 - high), (x1 + edge, y1 + edge), (x1, y2), (x2 - wide, y1 - high), (x2 - wide, y2),
            (x2 - wide - edge, y1 + edge), (x1 + edge, y2 - high - edge), (x2, y1), (x1 - wide, y1),
        ]  # fmt: skip
        best, least = (0, 0, wide, high), float("inf")
        for rank, (x, y) in enumerate(corners):
            left, top = max(0, min(x, self.size[0] - wide)), max(0, min(y, self.size[1] - high))
            place = (left, top, left + wide, top + high)
            moved = abs(left - x) + abs(top - y)
            hidden = _shared(place, (x1, y1, x2, y2)) / max(1, (x2 - x1) * (y2 - y1))  # of the object itself
            cost = 4 * sum(_shared(place, other) for other in self.placed)  # captions must be read, above all
            cost += wide * high * (0.02 * rank + moved / high + hidden / 2)
            if cost < least:
                best, least = place, cost
        self.placed.append(best)
        return best


def _shared(one: Rectangle, other: Rectangle) -> int:
    """Return the pixels that two rectangles have in common."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, wide) * max(0, high)
