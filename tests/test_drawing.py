"""Drawing: colours, and where what is drawn lies."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("scipy")

from PIL import Image, ImageDraw
from scipy import ndimage

from fastcv import Detections
from fastcv.drawing import _Captions, _eroded, colour_of, draw_detections, ink_on

BLACK = Image.new("RGB", (300, 200))


def draw(found: Detections, image: Image.Image = BLACK, **options: Any) -> np.ndarray:
    return np.asarray(draw_detections(image, found, **options)).astype(int)


def test_box_lies_on_its_pixels() -> None:
    found = Detections([[50, 40, 150, 120]], labels=[1])
    pixels = draw(found, captions=False, line_width=1)
    drawn = np.argwhere(pixels.any(-1))
    assert drawn.min(0).tolist() == [40, 50]
    assert drawn.max(0).tolist() == [119, 149]  # the last pixels inside
    assert (pixels[40, 50:150] == colour_of(1)).all()
    assert not pixels[45:115, 55:145].any()
    assert not np.asarray(BLACK).any(), "the image itself is left alone"


def test_mask_is_a_tint_with_a_border() -> None:
    mask = torch.zeros(1, 200, 300, dtype=torch.bool)
    mask[0, 60:100, 70:130] = True
    grey = Image.new("RGB", (300, 200), (100, 100, 100))
    pixels = draw(Detections([[0, 0, 1, 1]], labels=[2], masks=mask), grey, captions=False, boxes=False, opacity=0.5)
    inside = np.rint((100 + np.array(colour_of(2))) / 2)
    assert np.abs(pixels[80, 100] - inside).max() <= 1
    assert np.abs(pixels[60, 100] - (0.1 * 100 + 0.9 * np.array(colour_of(2)))).max() <= 1
    outside = pixels.copy()
    outside[60:100, 70:130] = 100
    assert (outside == 100).all()


def test_border_of_a_mask_is_scipys() -> None:
    generator = np.random.default_rng(0)
    for width in (1, 2, 5):
        mask = ndimage.binary_dilation(generator.random((40, 50)) < 0.05, iterations=4)
        square = np.ones((2 * width + 1,) * 2)
        assert np.array_equal(_eroded(mask, width), ndimage.binary_erosion(mask, square))


def test_the_best_is_on_top() -> None:
    for scores in ([0.9, 0.3], [0.3, 0.9]):
        found = Detections([[20, 20, 100, 100]] * 2, scores, [0, 1])
        top = int(np.argmax(scores))
        assert draw(found, captions=False)[20, 50].tolist() == list(colour_of(top))


def test_lines_and_letters_grow_with_the_picture() -> None:
    def share(side: int) -> tuple[float, float]:
        found = Detections([[side * 0.3, side * 0.3, side * 0.7, side * 0.7]], [0.5], names=["cat"])
        image = Image.new("RGB", (side, side))
        box, both = (draw(found, image, captions=captions).any(-1).mean() for captions in (False, True))
        return float(box), float(both - box)

    small, large = share(500), share(1500)
    assert large[0] == pytest.approx(small[0], rel=0.2)
    assert large[1] == pytest.approx(small[1], rel=0.35)


def test_captions_stay_inside_and_apart() -> None:
    generator = np.random.default_rng(0)
    for size in ((64, 64), (300, 200), (2000, 50)):
        captions = _Captions(ImageDraw.Draw(Image.new("RGB", size)), size, 12, 2)
        for _ in range(50):
            corner = generator.uniform(-0.2, 1.1, 2) * size
            box = [*corner, *(corner + generator.uniform(0, 0.5, 2) * size)]
            left, top, right, bottom = captions._place(box, captions._fitted("person 0.93"))
            assert 0 <= left < right <= size[0]
            assert 0 <= top < bottom <= max(size[1], bottom - top)
    apart = _Captions(ImageDraw.Draw(BLACK), BLACK.size, 12, 2)
    same = [apart._place([100, 80, 200, 150], "person 0.93") for _ in range(4)]
    for one, other in combinations(same, 2):
        assert min(one[2], other[2]) <= max(one[0], other[0]) or min(one[3], other[3]) <= max(one[1], other[1])


def test_captions_that_are_too_long_are_shortened() -> None:
    captions = _Captions(ImageDraw.Draw(BLACK), (80, 50), 12, 1)
    text = captions._fitted("a very long name of a class 0.50")
    assert text.endswith("…")
    assert text.startswith("a very")
    assert _Captions(ImageDraw.Draw(BLACK), (8, 8), 12, 1)._fitted("person") == ""


def test_captions_can_be_read_on_their_ground() -> None:
    """Contrast as WCAG 2.1 defines it; 3 is what it asks for large letters."""

    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for label in range(300):
        ground = luminance(colour_of(label))
        ink = luminance(ink_on(colour_of(label)))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 3, label
        assert (ground + 0.05) / 0.05 >= 2.4, (label, "a line on black")


def test_classes_differ_in_colour() -> None:
    colours = np.array([colour_of(label) for label in range(91)])
    assert len(np.unique(colours, axis=0)) == 91
    first = colours[:12]
    assert min(np.abs(a - b).sum() for a, b in combinations(first, 2)) >= 60
    assert colour_of(-1) != colour_of(0)


def test_keypoints_and_skeleton() -> None:
    points = torch.tensor([[[50.0, 50, 1], [200, 50, 1], [50, 150, 0], [float("nan"), 0, 1]]])
    found = Detections([[0, 0, 1, 1]], labels=[3], keypoints=points, skeleton=[(0, 1), (0, 2), (1, 3)])
    pixels = draw(found, captions=False, boxes=False, line_width=2)
    assert np.abs(pixels[50, 50] - colour_of(3)).max() <= 8
    assert np.abs(pixels[50, 125] - colour_of(3)).max() <= 8, "the line between them"
    assert not pixels[80:, :].any(), "neither the point that is not there nor a line to it"
    assert not draw(found, captions=False, boxes=False, keypoints=False).any()
    people = Detections([[0, 0, 1, 1]], keypoints=torch.rand(1, 17, 3) * 150 + 20)
    assert draw(people, captions=False, boxes=False).any(-1).sum() > 1000, "COCO's skeleton"


def test_keypoints_leave_other_pixels_alone() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    points = torch.tensor([[[50.0, 50, 1], [200, 150, 1]]])
    found = Detections([[0, 0, 1, 1]], keypoints=points, skeleton=[(0, 1)])
    changed = (draw(found, noise, captions=False, boxes=False) != np.asarray(noise)).any(-1)
    y, x = np.mgrid[0:200, 0:300]
    distance = np.abs((x - 50) * 100 - (y - 50) * 150) / np.hypot(100, 150)
    assert changed.any()
    assert not changed[distance > 12].any()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    far = 1e9
    boxes = [[0, 0, 1, 1], [-far, -far, far, far], [500, 500, 600, 600], [5, 5, 1, 1], [0, 0, 0, 0]]
    found = Detections(
        boxes, [0.5] * 5, masks=torch.rand(5, size[1], size[0]) > 0.5, keypoints=torch.full((5, 17, 3), far)
    )
    assert draw(found, Image.new("RGB", size)).shape == (size[1], size[0], 3)
    assert draw(found, Image.new("RGB", size), scale=3.0).shape == (size[1] * 3, size[0] * 3, 3)


def test_nothing_found_is_the_same_picture() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    found = Detections([], masks=torch.zeros(0, 20, 30, dtype=torch.bool))
    assert np.array_equal(draw(found, noise), np.asarray(noise))


def test_options() -> None:
    two = Detections([[20, 20, 100, 100], [120, 20, 200, 100]], [0.9, 0.8], [1, 1])
    pixels = draw(two, captions=False, by_object=True)
    assert pixels[20, 50].tolist() != pixels[20, 150].tolist()
    assert draw(two, captions=False, colours={1: (1, 2, 3)})[20, 50].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="captions must be one per object, 2, got 1"):
        draw(two, captions=["one"])
