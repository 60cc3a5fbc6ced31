"""Reading images and writing PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fastcv.cli.errors import Failure, fail, reason
from fastcv.data.files import replaced_file


def open_photo(path: Path) -> Image.Image:
    """Load an image upright, as RGB of 8 bits. Images of 16 bits and of floats are scaled."""
    try:
        with Image.open(path) as opened:
            kind = opened.format
            return as_rgb(ImageOps.exif_transpose(opened), kind, path)
    except Failure:
        raise
    except FileNotFoundError:
        fail(f"there is no file {path}")
    except UnidentifiedImageError:
        fail(f"{path} is not an image that Pillow can read")
    except Image.DecompressionBombError:
        fail(f"{path} has too many pixels")
    except Exception as error:  # Pillow's readers raise many types for damaged files
        fail(f"cannot read {path}: {reason(error)}")


def as_rgb(photo: Image.Image, kind: str | None, path: Path) -> Image.Image:
    """Convert to RGB of 8 bits. Pillow alone would clip images with more bits."""
    if photo.mode != "F" and not photo.mode.startswith("I"):
        return photo.convert("RGB")
    values = np.asarray(photo).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if photo.mode.startswith("I;16"):
        scale = 1 / 257
    elif 0 <= low <= high <= 1 and photo.mode == "F":
        scale = 255.0
    elif 0 <= low <= high <= 255 and kind not in ("PNG", "PPM") and bool((values == np.floor(values)).all()):
        scale = 1.0  # integers up to 255 in a wide type are 8-bit levels
    elif 0 <= low <= high <= 65535 and photo.mode == "I":
        scale = 1 / 257
    else:
        fail(
            f"{path} has values from {low:g} to {high:g}, and its white level is unknown: save it with 8 or 16 bits, "
            "or as floats from 0 to 1"
        )
    return Image.fromarray(np.rint(values * scale).astype(np.uint8)).convert("RGB")


def to_tensor(photo: Image.Image) -> Tensor:
    """Return an image as (3, H, W), float32, values 0 to 1."""
    return torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1).float().div(255).contiguous()


def to_image(pixels: Tensor) -> Image.Image:
    """Return (3, H, W), values 0 to 1, as an image."""
    levels = pixels.mul(255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def save_png(picture: Image.Image, path: Path) -> None:
    """Write an image completely or not at all; end the command if that fails."""
    try:
        with replaced_file(path) as file:
            picture.save(file, format="PNG")
    except OSError as error:
        fail(f"cannot write {path}: {reason(error)}")
