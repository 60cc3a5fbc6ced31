"""Images of any kind that Pillow reads, as RGB of 8 bits; and pictures written completely or not at all."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastcv._files import replaced_file
from fastcv._optional import require

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageError", "as_picture", "open_image", "save_picture", "to_planes", "to_tensor"]


class ImageError(ValueError):
    """A file that is not an image, or is damaged. The message is one line that names the file."""


def open_image(path: str | PathLike[str], stretch: bool = False) -> Image.Image:
    """Read an image file.

    Parameters
    ----------
    path : path
        A file of any format that Pillow reads. Of several frames the first counts.
    stretch : bool
        For images of more than 8 bits: spread the values from the least to the greatest over the whole range, as for
        12 bits in a file of 16, or values in a unit of their own.

    Returns
    -------
    PIL image
        RGB, upright (EXIF), on white where it is transparent.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImageError
        If it is not an image, is damaged, has more pixels than Pillow allows, or values whose white is not known.

    Notes
    -----
    More than 8 bits are scaled, not clipped, with black at 0 and white where the type says:

    - 16-bit integers: 65535 is white.
    - 32-bit integers: 65535 is white, but 255 in files other than PNG and PPM where no value is larger.
    - floats: 1 is white, or 255 where all values are whole numbers up to 255.

    Other values are refused, as a guess would give a picture too dark or too bright; ``stretch`` reads them.
    """
    pillow, ops = require("PIL.Image", "reading images"), require("PIL.ImageOps", "reading images")
    try:
        with pillow.open(path) as opened:
            return _as_rgb(ops.exif_transpose(opened), opened.format, stretch, path)
    except ImageError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except MemoryError:
        raise
    except pillow.DecompressionBombError:
        most = 2 * pillow.MAX_IMAGE_PIXELS
        raise ImageError(f"{path} has too many pixels, more than {most} (PIL.Image.MAX_IMAGE_PIXELS)") from None
    except require("PIL", "reading images").UnidentifiedImageError:
        raise ImageError(f"{path} is not an image that Pillow can read") from None
    except Exception as error:  # Pillow's readers raise many types for damaged files
        raise ImageError(f"cannot read {path}: {_reason(error)}") from None


def _as_rgb(photo: Image.Image, kind: str | None, stretch: bool, path: str | PathLike[str]) -> Image.Image:
    if photo.mode == "F" or photo.mode.startswith("I"):
        return _scaled(photo, kind, stretch, path)
    if photo.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in photo.info:
        if photo.mode in ("RGBa", "La"):
            photo = photo.convert(photo.mode[:-1] + "A")
        layer = photo.convert("RGBA")
        ground = require("PIL.Image", "reading images").new("RGBA", layer.size, "white")
        ground.alpha_composite(layer)
        photo = ground
    return photo.convert("RGB")


def _scaled(photo: Image.Image, kind: str | None, stretch: bool, path: str | PathLike[str]) -> Image.Image:
    values = np.asarray(photo).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    black = 0.0
    if stretch and np.isfinite(low + high):
        black, scale = low, 255 / (high - low) if high > low else 0.0
    elif photo.mode.startswith("I;16"):
        scale = 1 / 257
    elif 0 <= low <= high <= 1 and photo.mode == "F":
        scale = 255.0
    elif 0 <= low <= high <= 255 and kind not in ("PNG", "PPM") and bool((values == np.floor(values)).all()):
        scale = 1.0  # integers up to 255 in a wide type are 8-bit levels
    elif 0 <= low <= high <= 65535 and photo.mode == "I":
        scale = 1 / 257
    else:
        raise ImageError(
            f"{path} has values from {low:g} to {high:g}, and its white level is unknown: save it with 8 or 16 bits, "
            "or as floats from 0 to 1, or stretch it"
        )
    levels = np.rint((values - black) * scale).astype(np.uint8)
    image: Image.Image = require("PIL.Image", "reading images").fromarray(levels).convert("RGB")
    return image


def as_picture(image: Any) -> Image.Image:
    """Return a PIL image in RGB of a PIL image, a tensor (3, H, W), uint8 or floats 0 to 1, or an array (H, W, 3)."""
    pillow = require("PIL.Image", "drawing")
    if isinstance(image, pillow.Image):
        return image if image.mode == "RGB" else _as_rgb(image, None, False, "the image")
    if isinstance(image, Tensor):
        if image.dim() != 3 or image.shape[0] not in (1, 3):
            raise ValueError(f"image must have shape (3, H, W), got {tuple(image.shape)}")
        if image.is_floating_point():
            image = image.float().mul(255).round().clamp(0, 255)
        image = image.to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"image must be uint8 of shape (H, W, 3), got {array.dtype} of shape {array.shape}")
    picture: Image.Image = pillow.fromarray(np.ascontiguousarray(array)).convert("RGB")
    return picture


def to_planes(image: Image.Image) -> Tensor:
    """Return an image as (3, H, W), uint8."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image as (3, H, W), float32, values 0 to 1."""
    return to_planes(image).float().div_(255)


def save_picture(picture: Image.Image, path: str | PathLike[str]) -> None:
    """Write a picture completely or not at all, in the format that the name ends in.

    Raises
    ------
    ValueError
        For a name that does not end in a format.
    OSError
        If it cannot be written; with that name.
    """
    pillow = require("PIL.Image", "writing images")
    suffix = Path(path).suffix.lower()
    kind = pillow.registered_extensions().get(suffix)
    if kind is None or kind not in pillow.SAVE:
        raise ValueError(f"path must end in a format of images such as .png or .jpg, got {path}")
    # PNG at level 4 takes less than half of the time of Pillow's 6, for 2 % more bytes.
    options: dict[str, Any] = {"PNG": {"compress_level": 4}}.get(
        kind, {"quality": 92} if kind in ("JPEG", "WEBP") else {}
    )
    with replaced_file(path) as file:
        picture.save(file, format=kind, **options)


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__
