"""Images of any kind, written by Pillow and numpy: read upright, in 8 bits; or one readable line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image

from fastcv.data.images import ImageError, open_image, save_picture, to_tensor

RAMP = np.arange(256)[None].repeat(6, 0)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def read(path: Path, **options: Any) -> np.ndarray:
    image = open_image(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "tga", "gif", "webp"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(NOISE[:4, :8]).save(path, **options)
    assert np.array_equal(read(path), NOISE[:4, :8])
    tensor = to_tensor(open_image(path))
    assert torch.equal(tensor.mul(255).round().byte(), torch.from_numpy(NOISE[:4, :8]).permute(2, 0, 1))
    assert tensor.is_contiguous()


@pytest.mark.parametrize(("orientation", "turn"), [
    (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (4, lambda a: a[::-1]),
    (5, lambda a: a.swapaxes(0, 1)), (6, lambda a: np.rot90(a, -1)), (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
    (8, lambda a: np.rot90(a, 1)),
])  # fmt: skip
def test_upright(tmp_path: Path, orientation: int, turn: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read(tmp_path / "turned.png"), turn(NOISE))


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    alpha = np.array([[0, 255, 128]], np.uint8)
    colour = np.array([[[10, 20, 30]] * 3], np.uint8)
    Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "rgba.png")
    share = alpha[..., None] / 255
    expected = colour * share + 255 * (1 - share)
    assert np.abs(read(tmp_path / "rgba.png") - expected).max() <= 1
    Image.fromarray(np.dstack([colour[..., 0], alpha])).save(tmp_path / "la.png")
    assert read(tmp_path / "la.png")[0, :2].tolist() == [[255, 255, 255], [10, 10, 10]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.putdata([0, 1])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert read(tmp_path / "palette.png")[0].tolist() == [[255, 255, 255], [200, 100, 50]]
    palette.save(tmp_path / "palette.gif")
    assert read(tmp_path / "palette.gif")[0].tolist() == [[0, 0, 0], [200, 100, 50]]


def test_other_modes(tmp_path: Path) -> None:
    Image.fromarray(NOISE).convert("CMYK").save(tmp_path / "cmyk.tiff")
    assert np.array_equal(read(tmp_path / "cmyk.tiff"), NOISE)
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read(tmp_path / "cmyk.jpg").astype(int) - [255, 0, 0]).max() < 8
    Image.new("1", (3, 3), 1).save(tmp_path / "bits.png")
    assert (read(tmp_path / "bits.png") == 255).all()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.tiff", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "two.tiff")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("name", "mode"), [("le.tiff", "I;16"), ("be.tiff", "I;16B"), ("p.png", "I;16")])
def test_sixteen_bits(tmp_path: Path, name: str, mode: str) -> None:
    values = (RAMP * 257).astype(">u2" if mode.endswith("B") else "<u2")
    Image.frombytes(mode, (256, 6), values.tobytes()).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name)[..., 1], RAMP)


def test_stretched(tmp_path: Path) -> None:
    twelve_bits = (RAMP * 16).astype(np.uint16)
    Image.fromarray(twelve_bits).save(tmp_path / "twelve.png")
    assert read(tmp_path / "twelve.png").max() == 16, "dark, but what the file says"
    assert np.array_equal(read(tmp_path / "twelve.png", stretch=True)[..., 0], RAMP)
    Image.fromarray((RAMP * 3.5 - 700).astype(np.float32)).save(tmp_path / "floats.tiff")
    assert np.array_equal(read(tmp_path / "floats.tiff", stretch=True)[..., 0], RAMP)
    Image.fromarray(np.full((3, 3), 7.5, np.float32)).save(tmp_path / "flat.tiff")
    assert not read(tmp_path / "flat.tiff", stretch=True).any()
    Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(ImageError, match="has values from nan to nan"):
        open_image(tmp_path / "nan.tiff", stretch=True)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.png"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match=r"cannot read .*: Is a directory"):
        open_image(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.jpg is not an image that Pillow can read"):
        open_image(tmp_path / "text.jpg")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="is not an image"):
        open_image(tmp_path / "empty.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(ImageError, match="too many pixels, more than 8000"):
        open_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    assert open_image(tmp_path / "bomb.png").size == (100, 100), "a warning of Pillow's is no error"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA", "JPEG2000"])
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    """Cut off, or with wrong bytes: an image, or one line that names the file."""
    held = io.BytesIO()
    Image.fromarray(NOISE).save(held, kind)
    data, path, generator = held.getvalue(), tmp_path / "damaged.img", np.random.default_rng(1)
    messages = []
    for number in range(60):
        damaged = bytearray(data)
        if number % 2:
            damaged = damaged[: int(generator.integers(0, len(data)))]
        else:
            for place in generator.integers(0, min(len(data), 400), 4):
                damaged[place] = int(generator.integers(0, 256))
        path.write_bytes(damaged)
        try:
            assert open_image(path).mode == "RGB"
        except ImageError as error:
            messages.append(str(error))
    assert len(messages) >= 5
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_pictures_are_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.png").write_bytes(b"before")

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    picture = Image.new("RGB", (4, 4))
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_picture(picture, tmp_path / "there.png")
    assert caught.value.filename == str(tmp_path / "there.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]
