"""Data sets in the format of Pascal VOC: an XML file for each image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from fastcv.class_names import VOC_20
from fastcv.data.checks import read_text, shown
from fastcv.data.dataset import Annotation, ImageRecord, RecordDataset, clipped_box

__all__ = ["VocDataset"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".webp")
_DEEPEST = 32  # elements within elements


class VocDataset(RecordDataset):
    """Images with the boxes of Pascal VOC: ``Annotations/*.xml``, ``ImageSets/Main/*.txt`` and ``JPEGImages``.

    VOC counts pixels from 1, and xmax and ymax are the last pixels inside: a box from (1, 1) to (W, H) covers the whole
    image. Here that is x1 = xmin - 1, y1 = ymin - 1, x2 = xmax, y2 = ymax. Boxes are then clipped to the image; those
    without area in it are left out and counted in ``dropped``.

    Parameters
    ----------
    folder : path
        The folder with ``Annotations`` and ``JPEGImages``, such as ``VOCdevkit/VOC2012``.
    split : str
        The name of a list in ``ImageSets/Main``: train, val, trainval, test. Without that folder all images are read.
    first_label : int
        1 for detectors whose label 0 is the background, 0 for YOLO.
    names : sequence of str, optional
        The classes in the order of their labels. By default those of VOC in alphabetical order; where ``Annotations``
        name others, all that they name, in alphabetical order.
    difficult : {"crowd", "keep", "drop"}
        What becomes of objects marked as difficult, which VOC does not evaluate: "crowd" keeps them with iscrowd 1,
        which evaluation does not count either way; "keep" treats them as all others; "drop" leaves them out.

    Raises
    ------
    ValueError
        For an entry that is wrong or missing; the message names the file and the object.
    OSError
        For a file that cannot be read.

    References
    ----------
    Everingham et al.: The Pascal Visual Object Classes (VOC) Challenge (2010).
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        split: str = "train",
        first_label: int = 1,
        *,
        names: Sequence[str] | None = None,
        difficult: str = "crowd",
    ) -> None:
        if difficult not in ("crowd", "keep", "drop"):
            raise ValueError(f"difficult must be crowd, keep or drop, got {difficult!r}")
        top = Path(folder)
        trees = {path.stem: path for path in sorted((top / "Annotations").glob("*.xml"))}
        if not trees:
            raise FileNotFoundError(f"there are no annotations {top / 'Annotations' / '*.xml'}")
        wanted = _listed(top, split, list(trees))
        parsed = {name: _parse(path) for name, path in trees.items() if names is None or name in wanted}
        classes = list(names) if names is not None else _classes_of(parsed, trees)
        if len(set(classes)) != len(classes):
            raise ValueError(f"names must differ from each other, got {shown(classes)}")
        label_of = {name: first_label + number for number, name in enumerate(classes)}
        dropped: Counter[str] = Counter()
        records = []
        for number, name in enumerate(wanted):
            if name not in parsed:
                raise FileNotFoundError(f"there is no annotation {top / 'Annotations' / name}.xml, which {split} lists")
            record = ImageRecord(_image_of(top, name, parsed[name]), number, _size(parsed[name], trees[name]))
            for place, element in enumerate(parsed[name].findall("object")):
                try:
                    annotation = _object(element, record, label_of, difficult)
                except ValueError as error:
                    raise ValueError(f"object[{place}] of {trees[name]}: {error}") from None
                if isinstance(annotation, str):
                    dropped[annotation] += 1
                else:
                    record.annotations.append(annotation)
            records.append(record)
        super().__init__(records, {label: name for name, label in label_of.items()})
        self.first_label = first_label
        self.dropped = dropped


def _listed(top: Path, split: str, all_names: list[str]) -> list[str]:
    """Return the names of the images of a split: the first word of each line of its list."""
    lists = top / "ImageSets" / "Main"
    if not lists.is_dir():
        return all_names
    path = lists / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in lists.glob("*.txt"))[:20]) or "none"
        raise FileNotFoundError(f"there is no list {path}; the lists of {lists} are: {known}")
    names = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path} must list at least one image, got none")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path} must list each image once, got {shown(twice[0])} again")
    return names


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an XML file. Declarations of entities are refused: a small file could grow without end."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"{path} must have elements at most {_DEEPEST} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError(f"{path} must not declare a document type or entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is not valid XML: {error}") from None
    except LookupError as error:
        raise ValueError(f"{path} is not valid XML: {error}") from None
    return builder.close()


def _classes_of(parsed: dict[str, ElementTree.Element], trees: dict[str, Path]) -> list[str]:
    found: set[str] = set()
    for name, root in parsed.items():
        for place, element in enumerate(root.findall("object")):
            try:
                found.add(_text(element, "name"))
            except ValueError as error:
                raise ValueError(f"object[{place}] of {trees[name]}: {error}") from None
    return list(VOC_20.values()) if found <= set(VOC_20.values()) else sorted(found)


def _text(element: ElementTree.Element, name: str) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"{name} must be a text, got nothing")
    return text


def _number(element: ElementTree.Element, name: str) -> float:
    text = _text(element, name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise ValueError(f"{name} must be a number, got {shown(text)}")
    return value


def _size(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    element = root.find("size")
    try:
        if element is None:
            raise ValueError("size must have width and height, got nothing")
        width, height = _number(element, "width"), _number(element, "height")
        if not (width == int(width) > 0 and height == int(height) > 0):
            raise ValueError(f"size must be at least 1x1, got {width:g}x{height:g}")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return int(width), int(height)


def _image_of(top: Path, name: str, root: ElementTree.Element) -> Path:
    """Return the image file: the annotation's name with the ending of an image, or the name that it tells."""
    told = Path((root.findtext("filename") or "").strip().replace("\0", "")).name
    candidates = [f"{name}{suffix}" for suffix in _SUFFIXES] + ([told] if told else [])
    for candidate in candidates:
        path = top / "JPEGImages" / candidate
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"there is no image {top / 'JPEGImages' / name} with an ending of {' '.join(_SUFFIXES[:3])}"
    )


def _object(
    element: ElementTree.Element, record: ImageRecord, label_of: dict[str, int], difficult: str
) -> Annotation | str:
    """Return an annotation, or the reason why it is left out."""
    name = _text(element, "name")
    if name not in label_of:
        raise ValueError(f"name must be one of {shown(list(label_of))}, got {name!r}")
    bounds = element.find("bndbox")
    if bounds is None:
        raise ValueError("bndbox must have xmin, ymin, xmax and ymax, got nothing")
    x1, y1, x2, y2 = (_number(bounds, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        raise ValueError(f"bndbox must have xmin <= xmax and ymin <= ymax, got {x1:g}, {y1:g}, {x2:g}, {y2:g}")
    mark = (element.findtext("difficult") or "0").strip()
    if mark not in ("0", "1"):
        raise ValueError(f"difficult must be 0 or 1, got {shown(mark)}")
    if mark == "1" and difficult == "drop":
        return "marked as difficult"
    assert record.size is not None
    box = clipped_box((x1 - 1, y1 - 1, x2, y2), *record.size)
    if box is None:
        return "without area in the image"
    return Annotation(box, label_of[name], iscrowd=int(mark == "1" and difficult == "crowd"))
