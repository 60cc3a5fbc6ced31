"""Data sets in the format of YOLO: a ``data.yaml``, and a text file with boxes or polygons beside each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from fastcv._optional import require
from fastcv.data.checks import is_integer, numbers_of, read_text, shown
from fastcv.data.dataset import Annotation, ImageRecord, RecordDataset, clipped_box

__all__ = ["YoloDataset"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_TOLERANCE = 0.01  # how far outside of 0 to 1 a fraction may be: files round


@dataclass
class _Layout:
    """What a data.yaml says."""

    file: Path
    top: Path
    images: list[Path]  # folders, lists and images of the split
    names: list[str] | None = None
    keypoints: tuple[int, int] | None = None  # how many, and numbers for each: x, y and perhaps visibility
    mirrored: list[int] = field(default_factory=list)


class YoloDataset(RecordDataset):
    """Images with the labels of YOLO: a line for each object in ``labels/**/<name>.txt``.

    A line is ``class x y width height``, the centre and size of the box; or ``class x1 y1 x2 y2 x3 y3 ...``, a polygon
    of at least three corners; or, where the yaml has ``kpt_shape: [K, 2 or 3]``, the box and K times ``x y`` or
    ``x y visibility``. Lengths are fractions of the image's width and height. The box of a polygon is the least around
    it. Boxes are clipped to the image; objects without area in it are left out and counted in ``dropped``. An image
    without a label file has no objects.

    Parameters
    ----------
    data : path
        A ``data.yaml`` with ``train``, ``val`` (a folder, a list of images, or several) and ``names`` (a list, or
        numbers with names), relative to ``path``, which is relative to the yaml's folder. Or a folder with ``images``
        and ``labels``, and in them a folder for each split or none.
    split : str
        A key of the yaml, or a folder in ``images``.
    first_label : int
        1 for detectors whose label 0 is the background, 0 for YOLO.
    names : sequence of str, optional
        The classes, where there is no yaml. By default the lines of ``classes.txt``; without it, the classes' numbers.
    masks : bool, optional
        Whether targets have masks. By default they have if each object has a polygon.

    Raises
    ------
    ValueError
        For an entry that is wrong or missing; the message names the file and the line.
    OSError
        For a file that cannot be read.

    References
    ----------
    https://docs.ultralytics.com/datasets/detect/
    """

    def __init__(
        self,
        data: str | PathLike[str],
        split: str = "train",
        first_label: int = 1,
        *,
        names: Sequence[str] | None = None,
        masks: bool | None = None,
    ) -> None:
        path = Path(data)
        layout = _from_folder(path, split) if path.is_dir() else _from_yaml(path, split)
        classes = list(names) if names is not None else layout.names
        images = [image for place in layout.images for image in _images_of(place, layout)]
        if not images:
            raise ValueError(
                f"{layout.file}: {split} must have at least one image, got none in {_listed(layout.images)}"
            )
        twice = [image for image, count in Counter(images).items() if count > 1]
        if twice:
            raise ValueError(f"{layout.file}: {split} must have each image once, got {twice[0]} again")
        dropped: Counter[str] = Counter()
        records, found = [], 0
        for number, image in enumerate(images):
            record = ImageRecord(image, number)
            file = label_file(image)
            if file.is_file():
                found += 1
                _read_labels(file, record, layout, classes, first_label, dropped)
            records.append(record)
        if not found:
            raise FileNotFoundError(
                f"{layout.file}: no image of {split} has labels; looked for {label_file(images[0])}"
            )
        if classes is None:
            most = max((a.label for record in records for a in record.annotations), default=first_label - 1)
            classes = [str(number) for number in range(most - first_label + 1)]
        labels = {first_label + number: name for number, name in enumerate(classes)}
        super().__init__(records, labels, {label: label - first_label for label in labels}, masks=masks, fractions=True)
        self.first_label = first_label
        self.dropped = dropped
        if layout.keypoints is not None:
            self.keypoint_names = [str(number) for number in range(layout.keypoints[0])]
            self.keypoint_pairs = [(n, other) for n, other in enumerate(layout.mirrored) if n < other]


def _listed(places: Sequence[Path]) -> str:
    return ", ".join(str(place) for place in places)


def label_file(image: Path) -> Path:
    """Return where an image's labels are: ``labels`` in the place of the last folder ``images``, else beside it."""
    parts = list(image.parts)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == "images":
            parts[number] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _from_folder(path: Path, split: str) -> _Layout:
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (path / name).is_file():
            return _from_yaml(path / name, split)
    images = path / "images"
    if not images.is_dir():
        raise FileNotFoundError(f"there is no folder {images} and no {path / 'data.yaml'}")
    parts = sorted(place.name for place in images.iterdir() if place.is_dir())
    if parts and split not in parts:
        raise FileNotFoundError(f"there is no folder {images / split}; the folders of {images} are: {', '.join(parts)}")
    classes = path / "classes.txt"
    names = [line.strip() for line in read_text(classes).splitlines() if line.strip()] if classes.is_file() else None
    return _Layout(path, path, [images / split if parts else images], names)


def _from_yaml(path: Path, split: str) -> _Layout:
    content = _read_yaml(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold names, train and val, got {shown(content)}")
    if content.get(split) is None:
        parts = ", ".join(str(key) for key in ("train", "val", "test") if content.get(key)) or "none"
        raise ValueError(f"{path} must have an entry {split}, got {parts}")
    start = content.get("path") or "."
    if not isinstance(start, str) or "\0" in start:
        raise ValueError(f"{path}: path must be a text, got {shown(start)}")
    top = path.parent / start
    entries = content[split] if isinstance(content[split], list) else [content[split]]
    for entry in entries:
        if not isinstance(entry, str) or not entry or "\0" in entry:
            raise ValueError(f"{path}: {split} must be a folder, a file or a list of them, got {shown(entry)}")
    layout = _Layout(path, top, [top / entry for entry in entries], _names(content, path))
    if content.get("kpt_shape") is not None:
        count, numbers = (int(n) for n in _checked(lambda: numbers_of(content["kpt_shape"], 2, "kpt_shape"), path))
        if not 1 <= count <= 1000 or numbers not in (2, 3):
            raise ValueError(f"{path}: kpt_shape must be [K, 2] or [K, 3], got {shown(content['kpt_shape'])}")
        layout.keypoints = (count, numbers)
        flip = content.get("flip_idx")
        if flip is not None:
            if not isinstance(flip, list) or not all(map(is_integer, flip)) or sorted(flip) != list(range(count)):
                raise ValueError(
                    f"{path}: flip_idx must be the numbers 0 to {count - 1} in some order, got {shown(flip)}"
                )
            layout.mirrored = flip
    return layout


def _checked(read: Any, path: Path) -> Any:
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_yaml(path: Path) -> Any:
    yaml = require("yaml", f"reading {path}")
    text = read_text(path)
    try:
        return yaml.safe_load(text)
    except Exception as error:  # not only YAMLError: dates out of range, keys that cannot be hashed, too deep
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _names(content: dict[Any, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))) or not all(map(is_integer, names)):
            raise ValueError(f"{path}: names must be numbered from 0 without gaps, got {shown([*names])}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path}: names must be a list of names or numbers with names, got {shown(names)}")
    if not all(isinstance(name, str | int | float) for name in names):
        raise ValueError(f"{path}: names must be texts, got {shown(names)}")
    count = content.get("nc", len(names))
    if count != len(names):
        raise ValueError(f"{path}: nc must be the number of names, {len(names)}, got {shown(count)}")
    return [str(name) for name in names]


def _images_of(place: Path, layout: _Layout) -> list[Path]:
    """Return the images of a folder, of a list in a text file, or a single image."""
    if place.is_dir():
        return sorted(file for file in place.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not place.is_file():
        raise FileNotFoundError(f"{layout.file}: there is no folder or file {place}")
    if place.suffix.lower() in _SUFFIXES:
        return [place]
    lines = [line.strip() for line in read_text(place).splitlines()]
    images = [(place.parent if line.startswith("./") else layout.top) / line for line in lines if line]
    for number, image in enumerate(images):
        if "\0" in str(image) or not image.is_file():
            raise FileNotFoundError(f"line {number + 1} of {place}: there is no image {shown(str(image))}")
    return images


def _read_labels(
    file: Path, record: ImageRecord, layout: _Layout, names: list[str] | None, first_label: int, dropped: Counter[str]
) -> None:
    for number, line in enumerate(read_text(file).splitlines()):
        if not line.strip():
            continue
        try:
            annotation = _object(line.split(), layout.keypoints, names, first_label)
        except ValueError as error:
            raise ValueError(f"line {number + 1} of {file}: {error}") from None
        if annotation is None:
            dropped["without area in the image"] += 1
        else:
            record.annotations.append(annotation)


def _object(
    words: list[str], keypoints: tuple[int, int] | None, names: list[str] | None, first_label: int
) -> Annotation | None:
    try:
        values: list[Any] = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"it must be numbers, got {shown(' '.join(words))}") from None
    number, *lengths = numbers_of(values, len(values), "it")
    most = len(names) - 1 if names is not None else 9999
    if number != int(number) or not 0 <= number <= most:
        raise ValueError(f"the class must be an integer from 0 to {most}, got {words[0]}")
    visible = [2.0] * (keypoints[0] if keypoints else 0)
    expected = 4
    if keypoints is not None:
        expected += keypoints[0] * keypoints[1]
        if len(lengths) == expected and keypoints[1] == 3:
            visible = lengths[6::3]
            if any(mark not in (0, 1, 2) for mark in visible):
                raise ValueError(f"the visibility of keypoints must be 0, 1 or 2, got {shown(visible)}")
            del lengths[6::3]
    is_polygon = keypoints is None and len(lengths) >= 6 and len(lengths) % 2 == 0
    if len(values) - 1 != expected and not is_polygon:
        polygon = "" if keypoints else ", or pairs for a polygon of at least 3 corners"
        raise ValueError(f"it must have a class and {expected} numbers{polygon}, got {len(values)} numbers")
    for length in lengths:
        if not -_TOLERANCE <= length <= 1 + _TOLERANCE:
            raise ValueError(f"lengths must be fractions of the image, 0 to 1, got {length:g}")
    label = first_label + int(number)
    if is_polygon:
        across, down = lengths[::2], lengths[1::2]
        box = clipped_box((min(across), min(down), max(across), max(down)), 1, 1)
        return None if box is None else Annotation(box, label, segmentation=[lengths])
    x, y, width, height = lengths[:4]
    box = clipped_box((x - width / 2, y - height / 2, x + width / 2, y + height / 2), 1, 1)
    if box is None:
        return None
    points = None
    if keypoints is not None:
        rows = zip(lengths[4::2], lengths[5::2], visible, strict=True)
        points = [value for row in rows for value in row]
    return Annotation(box, label, keypoints=points)
