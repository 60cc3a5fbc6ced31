"""Point clouds in a folder per class, as ModelNet has them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from fastcv.data.clouds import CloudDataset, choose_points
from fastcv.data.point_files import POINT_FORMATS, read_points
from fastcv.data.surfaces import to_unit_ball

__all__ = ["CloudFolder", "holds_clouds"]

_MOST_KEPT = 2**27  # numbers, half a gigabyte
_SPLITS = ("train", "val", "test")


class CloudFolder(CloudDataset):
    """Point clouds with one label each, from ``folder/class/split/file`` or ``folder/split/class/file``.

    The first is the layout of ModelNet10 and ModelNet40. Points are put on surfaces (``.off``) or chosen from clouds at
    random, each file's always alike; a cloud with too few has some of them more than once. Clouds are moved to the
    origin and scaled into the unit ball. They are kept in memory once they are read, up to half a gigabyte of them.

    Parameters
    ----------
    folder : path
        Files in it may be of any of :data:`fastcv.data.POINT_FORMATS`; others are passed over.
    split : str
        "train", "val" or "test". A folder without "val" gives "test" for it.
    first_label : int
        Label of the first class. Classes are in the order of their names.
    points : int
        Points of each cloud.
    features : int
        How many columns behind x, y and z to keep, such as 3 for a normal.
    columns : int, optional
        Numbers per point in ``.bin`` files, see :func:`fastcv.data.read_points`.
    seed : int
        Of the choice of points.
    unit_ball : bool
        Whether to move and scale the clouds.

    Raises
    ------
    FileNotFoundError
        If there is no such split, or no cloud in it.

    Examples
    --------
    >>> data = CloudFolder("ModelNet10", "train", points=1024)  # doctest: +SKIP
    >>> points, label = data[0]  # doctest: +SKIP
    """

    task = "classification"

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        first_label: int = 0,
        points: int = 1024,
        features: int = 0,
        columns: int | None = None,
        seed: int = 0,
        unit_ball: bool = True,
    ) -> None:
        for name, value, least in (("points", points, 1), ("features", features, 0), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.folder, self.first_label = Path(folder), first_label
        found = _clouds_of(self.folder)
        splits = sorted({each for each, _, _ in found})
        self.split = "test" if split == "val" and "val" not in splits and "test" in splits else split
        classes = sorted({name for _, name, _ in found})
        self.files = [(path, classes.index(name) + first_label) for part, name, path in found if part == self.split]
        if not self.files:
            there = f"those are {', '.join(splits)}" if splits else f"no file ends in one of {', '.join(POINT_FORMATS)}"
            raise FileNotFoundError(f"{self.folder} has no clouds of the split {split}: {there}")
        self.names = dict(enumerate(classes, first_label))
        self.points: int = points
        self.features, self.columns, self.seed, self.unit_ball = features, columns, seed, unit_ball
        self.model_options = {"in_channels": 3 + features}
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} clouds")
        index %= len(self)
        cloud = self._kept.get(index)
        if cloud is None:
            cloud = self._read(self.files[index][0])
            if (len(self._kept) + 1) * cloud.numel() <= _MOST_KEPT:
                self._kept[index] = cloud
        return cloud.clone(), self.files[index][1]

    def _read(self, path: Path) -> Tensor:
        place = path.relative_to(self.folder).as_posix()
        state = np.random.SeedSequence([self.seed, zlib.crc32(place.encode())])  # whatever other files there are
        cloud = read_points(path, self.columns, self.points, int(state.generate_state(1)[0]))
        if cloud.shape[1] < 3 + self.features:
            raise ValueError(
                f"{path} must have at least {3 + self.features} columns for features={self.features}, got "
                f"{cloud.shape[1]}"
            )
        cloud = cloud[:, : 3 + self.features]
        if not bool(cloud.isfinite().all()):
            raise ValueError(f"{path}: a column behind x, y and z is not finite")
        if len(cloud) != self.points:
            cloud = cloud[choose_points(len(cloud), self.points, np.random.default_rng(state))]
        return to_unit_ball(cloud) if self.unit_ball else cloud


def holds_clouds(folder: Path) -> bool:
    """Whether a folder holds point clouds in one of the two layouts."""
    return any(True for _ in _clouds_of(folder))


def _clouds_of(folder: Path) -> list[tuple[str, str, Path]]:
    """Return split, class and path of all clouds in a folder, in order."""
    found = []
    for path in sorted(folder.glob("*/*/*")):
        outer, inner = path.parts[-3:-1]
        split, name = (outer, inner) if outer in _SPLITS else (inner, outer)
        if split not in _SPLITS or name in ("images", "labels"):  # those are YOLO's
            continue
        if path.suffix.lower() in POINT_FORMATS and not path.name.startswith(".") and path.is_file():
            found.append((split, name, path))
    return found
