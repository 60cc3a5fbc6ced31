"""Reading and writing of images, with errors that end the command."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fastcv.cli.errors import fail, reason
from fastcv.data.files import replaced_file
from fastcv.data.images import ImageError, open_image, to_tensor

__all__ = ["open_photo", "save_png", "to_image", "to_tensor"]


def open_photo(path: Path) -> Image.Image:
    """Read an image, or end the command; see :func:`fastcv.data.images.open_image`."""
    try:
        return open_image(path)
    except (ImageError, FileNotFoundError) as error:
        fail(str(error))


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
