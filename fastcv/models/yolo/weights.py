"""Darknet's ``.weights`` files: a header of version numbers, then float32 numbers without names."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastcv._files import replaced_file

__all__ = ["DarknetWeights", "WeightsHeader", "read_weights", "write_weights"]

SITE = "https://pjreddie.com/darknet/yolo/"
PUBLISHED = ("yolov3-tiny.weights", "yolov2-tiny-voc.weights")


@dataclass(frozen=True)
class WeightsHeader:
    """Version of the file, and the number of images that were seen in training.

    ``seen`` has 64 bits from version 0.2 on and 32 before, and 32 again where ``major`` or ``minor`` is 1000 or more.
    More than 1000 is Darknet's mark of weights of [connected] that are stored transposed.
    """

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def is_wide(self) -> bool:
        """Whether ``seen`` has 64 bits."""
        return self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000

    @property
    def is_transposed(self) -> bool:
        """Whether the weights of [connected] are stored as (inputs, outputs)."""
        return self.major > 1000 or self.minor > 1000

    def to_bytes(self) -> bytes:
        """Return the header as it stands in a file: 20 bytes or 16."""
        try:
            return struct.pack("<3i" + ("Q" if self.is_wide else "i"), self.major, self.minor, self.revision, self.seen)
        except struct.error as error:
            raise ValueError(f"header must hold integers that fit, got {self}: {error}") from None


@dataclass(frozen=True)
class DarknetWeights:
    """The content of a ``.weights`` file: header, and all numbers in a float32 tensor (N,)."""

    values: Tensor
    header: WeightsHeader = field(default_factory=WeightsHeader)
    file: str = "the weights"


def read_weights(path: str | Path) -> DarknetWeights:
    """Read a ``.weights`` file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it has no complete header, or does not end with a complete number.
    """
    path = Path(path)
    if not path.is_file():
        hint = f". Nothing is downloaded. Darknet's are at {SITE}" if path.name in PUBLISHED else ""
        raise FileNotFoundError(f"there is no checkpoint {path}{hint}")
    data = path.read_bytes()
    header, size = WeightsHeader(), 16
    if len(data) >= 12:
        header = WeightsHeader(*struct.unpack_from("<3i", data))
        size = 20 if header.is_wide else 16
    if len(data) < size:
        raise ValueError(f"{path} must start with a header of {size} bytes, got {len(data)}")
    if (len(data) - size) % 4:
        raise ValueError(f"{path} must hold float32 numbers after {size} bytes, got {len(data) - size} bytes of them")
    (seen,) = struct.unpack_from("<Q" if header.is_wide else "<i", data, 12)
    header = WeightsHeader(header.major, header.minor, header.revision, seen)
    values = torch.from_numpy(np.frombuffer(data, "<f4", offset=size).astype(np.float32))
    return DarknetWeights(values, header, str(path))


def write_weights(path: str | Path, weights: DarknetWeights) -> None:
    """Write a ``.weights`` file, completely or not at all. One that was read is written with the same bytes."""
    values = weights.values.detach().to("cpu", torch.float32).contiguous().numpy()
    head = weights.header.to_bytes()
    with replaced_file(path) as file, file.open("wb") as stream:
        stream.write(head)
        stream.write(values.astype("<f4", copy=False).tobytes())
