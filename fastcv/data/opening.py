"""``open_dataset``: a data set from a path, by recognising its format, or from a generator's name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from fastcv.data.cloud_folder import CloudFolder, holds_clouds
from fastcv.data.coco import CocoDataset
from fastcv.data.scenes import SceneDataset, synthetic_scenes
from fastcv.data.solids import SyntheticSolids, synthetic_solids
from fastcv.data.street import SyntheticStreets, synthetic_streets
from fastcv.data.voc import VocDataset
from fastcv.data.yolo_format import YoloDataset

__all__ = ["open_dataset"]

_HELD_OUT_SEED = 1_000_003  # added to the seed for every split but train


def open_dataset(
    path_or_name: str | PathLike[str], split: str = "train", first_label: int | None = None, **options: Any
) -> Any:
    """Open a data set for detection, segmentation, keypoints or point clouds, in whichever of the usual formats it is.

    Parameters
    ----------
    path_or_name : path or str
        One of

        - a json of COCO (which is one split: ``split`` does not count), or a folder with
          ``annotations/instances_<split>.json`` and the like;
        - a folder of Pascal VOC: ``Annotations``, ``JPEGImages``, ``ImageSets/Main/<split>.txt``;
        - a ``data.yaml`` of YOLO, or a folder with one, or with ``images`` and ``labels``;
        - "scenes" or "people": generated images, see :func:`synthetic_scenes`. (A folder of that name is
          "./scenes".)
        - a folder with point clouds in ``<class>/<train or test>``, as ModelNet, or in ``<split>/<class>``;
        - "solids" or "streets": generated point clouds, see :func:`synthetic_solids` and :func:`synthetic_streets`.
    split : str
        "train", "val", or what else there is.
    first_label : int, optional
        Label of the first class. Default: 1 for images, as detectors have it whose label 0 is the background (for YOLO,
        pass 0); 0 for point clouds.
    **options
        Of the format: see :class:`CocoDataset` (images, masks), :class:`VocDataset` (names, difficult),
        :class:`YoloDataset` (names, masks), :class:`CloudFolder` (points, features, columns, seed, unit_ball),
        :func:`synthetic_scenes` (count, size, seed, classes, most, backgrounds) and the other generators, whose
        ``held_out`` is the count of every split but train, in place of ``count``.

    Raises
    ------
    ValueError
        For data that no format is recognised in, an entry that is wrong, or an option that there is not.
    OSError
        For a file that is not there or cannot be read.

    Examples
    --------
    >>> data = open_dataset("scenes", split="val", count=8)
    >>> image, target = data[0]
    """
    name = fspath(path_or_name)
    first = 1 if first_label is None else first_label
    generators: dict[str, Callable[..., Any]] = {
        "scenes": _scenes,
        "people": _people,
        "solids": _solids,
        "streets": _streets,
    }
    if name in generators:
        if first_label is None and name in ("solids", "streets"):
            first = 0
        return _open(generators[name], f'"{name}"', options, split, first_label=first)
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file or folder {path}, and no generator of that name ({', '.join(generators)})"
        )
    if path.is_file():
        if path.suffix.lower() == ".json":
            return _open(CocoDataset, "a COCO json", options, path, first_label=first)
        if path.suffix.lower() in (".yaml", ".yml"):
            return _open(YoloDataset, "a YOLO data set", options, path, split, first_label=first)
        raise ValueError(f"{path} must be a .json of COCO, a .yaml of YOLO or a folder")
    if (path / "Annotations").is_dir():
        return _open(VocDataset, "a VOC folder", options, path, split, first_label=first)
    if any((path / part).exists() for part in ("data.yaml", "data.yml", "dataset.yaml")) or (
        (path / "images").is_dir() and (path / "labels").is_dir()
    ):
        return _open(YoloDataset, "a YOLO data set", options, path, split, first_label=first)
    if (file := _coco_json(path, split)) is not None:
        return _open(CocoDataset, "a COCO folder", options, file, first_label=first)
    if holds_clouds(path):
        return _open(CloudFolder, "a folder of point clouds", options, path, split, first_label=first_label or 0)
    raise ValueError(
        f"{path} is not a data set that is known: looked for a json in {path / 'annotations'}, {path / split} and "
        f"{path} itself (COCO), for {path / 'Annotations'} (VOC), for {path / 'data.yaml'} and for "
        f"{path / 'images'} with {path / 'labels'} (YOLO), and for point clouds in CLASS/train or train/CLASS"
    )


def _open(make: Callable[..., Any], what: str, options: dict[str, Any], *args: Any, **more: Any) -> Any:
    """Call ``make``. Options that it does not have are named together with those it has."""
    known = [
        p.name for p in inspect.signature(make).parameters.values() if p.name not in _GIVEN and p.default is not p.empty
    ]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ValueError(f"the options of {what} are {', '.join(known)}, got {', '.join(unknown)}")
    for name, value in options.items():
        kind = str(inspect.signature(make).parameters[name].annotation).removesuffix(" | None")
        if kind == "int" and value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{name} must be an integer, got {value!r}")
        if kind == "str" and not isinstance(value, str | None):
            raise ValueError(f"{name} must be text, got {value!r}")
    return make(*args, **more, **options)


_GIVEN = ("split", "first_label")


def _scenes(
    split: str,
    first_label: int,
    count: int | None = None,
    size: int = 128,
    seed: int = 0,
    classes: Any = 5,
    most: int = 5,
    held_out: int | None = None,
    backgrounds: str | None = None,
) -> SceneDataset:
    count, seed = _of_split(split, count, held_out, seed, (2000, 200))
    return synthetic_scenes(count, size, seed, classes, first_label, most, backgrounds)


def _people(
    split: str,
    first_label: int,
    count: int | None = None,
    size: int = 128,
    seed: int = 0,
    most: int = 3,
    held_out: int | None = None,
    backgrounds: str | None = None,
) -> SceneDataset:
    return _scenes(split, first_label, count, size, seed, ("person",), most, held_out, backgrounds)


def _solids(
    split: str,
    first_label: int,
    count: int | None = None,
    points: int = 1024,
    seed: int = 0,
    noise: float = 0.02,
    tilt: float = 30.0,
    occlusion: float = 0.3,
    held_out: int | None = None,
) -> SyntheticSolids:
    count, seed = _of_split(split, count, held_out, seed, (4000, 1000))
    return synthetic_solids(count, points, seed, noise, tilt, occlusion, first_label)


def _streets(
    split: str,
    first_label: int,
    count: int | None = None,
    seed: int = 0,
    rings: int = 32,
    columns: int = 720,
    points: int | None = None,
    held_out: int | None = None,
) -> SyntheticStreets:
    count, seed = _of_split(split, count, held_out, seed, (100, 20))
    return synthetic_streets(count, seed, rings, columns, first_label, points)


def _of_split(
    split: str, count: int | None, held_out: int | None, seed: int, usual: tuple[int, int]
) -> tuple[int, int]:
    """Return how many samples a generated split has, and its seed."""
    if split == "train":
        return usual[0] if count is None else count, seed
    if held_out is None:
        held_out = usual[1] if count is None else count
    return held_out, seed + _HELD_OUT_SEED


def _coco_json(folder: Path, split: str) -> Path | None:
    """Return the json of a split: its name ends in the split and perhaps a year, or it is in the split's folder."""
    found = [file for place in ("annotations", ".") for file in sorted((folder / place).glob("*.json"))]
    inside = sorted((folder / split).glob("*.json"))
    if not found and not inside:
        return None
    fitting = [file for file in found if re.search(rf"(^|[_-]){re.escape(split)}(\d{{4}})?$", file.stem)]
    fitting.sort(key=lambda file: (not file.stem.startswith("instances"), "keypoints" not in file.stem))
    for file in (*fitting, *inside):
        return file
    known = ", ".join(str(file) for file in found[:20])
    raise FileNotFoundError(f"there is no json of {split} in {folder}: {known}")
