"""Data sets in the format of COCO: one json file for many images."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from secrets import token_hex
from typing import Any

from torch import Tensor

from fastcv._rle import encode_mask
from fastcv.data.checks import is_integer, is_number, numbers_of, read_json, shown
from fastcv.data.dataset import Annotation, DetectionDataset, ImageRecord, RecordDataset, Target, clipped_box
from fastcv.data.files import replaced_file
from fastcv.data.images import as_picture
from fastcv.data.segmentation import checked_segmentation

__all__ = ["CocoDataset", "coco_annotations", "write_coco"]

Row = dict[str, Any]


class CocoDataset(RecordDataset):
    """Images with the annotations of a COCO json: boxes, masks, keypoints.

    Labels are consecutive from ``first_label``, in the order of the categories' ids; ``category_ids`` leads back.
    Boxes are clipped to the image. Objects without area in the image are left out and counted in ``dropped``; so are
    those whose polygons all have less than three corners.

    Parameters
    ----------
    annotations : path
        The json file.
    images : path, optional
        The folder that "file_name" starts from. By default it is looked for beside the json file.
    first_label : int
        1 for detectors whose label 0 is the background, 0 for YOLO.
    masks : bool, optional
        Whether targets have masks. By default they have if each object has a segmentation.

    Raises
    ------
    ValueError
        For an entry that is wrong or missing; the message names the file and the entry.
    OSError
        For a file that cannot be read.

    References
    ----------
    Lin et al.: Microsoft COCO: Common Objects in Context (2014); https://cocodataset.org/#format-data
    """

    def __init__(
        self,
        annotations: str | PathLike[str],
        images: str | PathLike[str] | None = None,
        first_label: int = 1,
        *,
        masks: bool | None = None,
    ) -> None:
        path = Path(annotations)
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} must hold an object with images, annotations and categories, got {shown(content)}"
            )
        rows = {part: _rows(content, part, path) for part in ("images", "annotations", "categories")}
        if not rows["images"]:
            raise ValueError(f"{path} must have at least one image, got none")
        categories: dict[int, Row] = {}
        _each(rows["categories"], "categories", path, lambda row: _add_category(row, categories))
        label_of = {number: first_label + place for place, number in enumerate(sorted(categories))}
        records: dict[int, ImageRecord] = {}
        _each(rows["images"], "images", path, lambda row: _add_image(row, records))
        keypoint_names, skeleton = _keypoints_of(categories)
        dropped: Counter[str] = Counter()
        seen: set[int] = set()

        def add(row: Row) -> None:
            annotation = _annotation(row, records, label_of, len(keypoint_names), seen)
            if isinstance(annotation, str):
                dropped[annotation] += 1
            else:
                records[row["image_id"]].annotations.append(annotation)

        _each(rows["annotations"], "annotations", path, add)
        folder = _image_folder(path, images, rows["images"][0]["file_name"])
        for record in records.values():
            record.path = folder / record.path
        names = {label: categories[number]["name"] for number, label in label_of.items()}
        super().__init__(
            list(records.values()), names, {label: number for number, label in label_of.items()}, masks=masks
        )
        self.first_label = first_label
        self.dropped = dropped
        self.keypoint_names, self.skeleton = keypoint_names, skeleton
        self.keypoint_pairs = mirrored_pairs(keypoint_names)


def _rows(content: Row, part: str, path: Path) -> list[Any]:
    rows = content.get(part)
    if not isinstance(rows, list):
        raise ValueError(f"{path} must have a list of {part}, got {shown(rows)}")
    return rows


def _each(rows: list[Any], part: str, path: Path, add: Callable[[Row], None]) -> None:
    """Call ``add`` with each row. Errors get the name of the row and the file in front."""
    for number, row in enumerate(rows):
        try:
            if not isinstance(row, dict):
                raise ValueError(f"it must be an object, got {shown(row)}")
            add(row)
        except ValueError as error:
            raise ValueError(f"{part}[{number}] of {path}: {error}") from None


def _number_of(row: Row, name: str) -> int:
    if not is_integer(row.get(name)):
        raise ValueError(f"{name} must be an integer, got {shown(row.get(name))}")
    return int(row[name])


def _text_of(row: Row, name: str) -> str:
    if not isinstance(row.get(name), str) or not row[name] or "\0" in row[name]:
        raise ValueError(f"{name} must be a text, got {shown(row.get(name))}")
    return str(row[name])


def _add_category(row: Row, categories: dict[int, Row]) -> None:
    number, _ = _number_of(row, "id"), _text_of(row, "name")
    if number in categories:
        raise ValueError(f"id must differ from the other categories', got {number} again")
    names = row.get("keypoints", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"keypoints must be a list of names, got {shown(names)}")
    skeleton = row.get("skeleton") or []
    if not isinstance(skeleton, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(is_integer(end) and 1 <= end <= len(names) for end in pair)
        for pair in skeleton
    ):
        raise ValueError(f"skeleton must be pairs of the numbers 1 to {len(names)} of keypoints, got {shown(skeleton)}")
    categories[number] = row


def _add_image(row: Row, records: dict[int, ImageRecord]) -> None:
    number, name = _number_of(row, "id"), _text_of(row, "file_name")
    width, height = _number_of(row, "width"), _number_of(row, "height")
    if number in records:
        raise ValueError(f"id must differ from the other images', got {number} again")
    if not 0 < width < 1 << 20 or not 0 < height < 1 << 20:
        raise ValueError(f"width and height must be 1 to 1048575, got {width} and {height}")
    records[number] = ImageRecord(Path(name), number, (width, height))


def _keypoints_of(categories: dict[int, Row]) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the names of keypoints and the skeleton of the first category with keypoints."""
    for row in categories.values():
        if row.get("keypoints"):
            return list(row["keypoints"]), [(first - 1, second - 1) for first, second in row.get("skeleton") or []]
    return [], []


def _annotation(
    row: Row, records: dict[int, ImageRecord], label_of: dict[int, int], keypoints: int, seen: set[int]
) -> Annotation | str:
    """Return an annotation, or the reason why it is left out."""
    number, image, category = (_number_of(row, name) for name in ("id", "image_id", "category_id"))
    if number in seen:
        raise ValueError(f"id must differ from the other annotations', got {number} again")
    seen.add(number)
    if image not in records:
        raise ValueError(f"image_id must be the id of an image, got {image}")
    if category not in label_of:
        raise ValueError(f"category_id must be the id of a category, got {category}")
    size = records[image].size
    assert size is not None
    x, y, width, height = numbers_of(row.get("bbox"), 4, "bbox")
    if width < 0 or height < 0:
        raise ValueError(f"bbox must be x, y, width, height with sizes that are not negative, got {shown(row['bbox'])}")
    area = row.get("area")
    if area is not None and not (is_number(area) and 0 <= area < 1e30):
        raise ValueError(f"area must be a number that is not negative, got {shown(area)}")
    crowd = row.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"iscrowd must be 0 or 1, got {shown(crowd)}")
    points = None
    if keypoints and row.get("keypoints") is not None:
        points = numbers_of(row["keypoints"], 3 * keypoints, "keypoints")
        if any(visible not in (0, 1, 2) for visible in points[2::3]):
            raise ValueError(f"keypoints must have 0, 1 or 2 as each third number, got {shown(points[2::3])}")
    segmentation = row.get("segmentation")
    if segmentation not in (None, []):
        segmentation = checked_segmentation(segmentation, *size)
        if segmentation is None:
            return "with polygons of less than three corners"
    box = clipped_box((x, y, x + width, y + height), *size)
    if box is None:
        return "without area in the image"
    return Annotation(box, label_of[category], area, int(crowd), segmentation or None, points)


def _image_folder(path: Path, images: str | PathLike[str] | None, first: str) -> Path:
    """Return the folder with the images: the one given, or the first place beside the json that has the first one."""
    if images is not None:
        if not Path(images).is_dir():
            raise FileNotFoundError(f"there is no folder {images} with the images of {path}")
        return Path(images)
    split = re.sub(r"^(instances|person_keypoints|keypoints|stuff)_", "", path.stem)
    above = path.parent.parent
    places = [path.parent, path.parent / "images", path.parent / split, above / split, above / "images" / split,
              above / "images", above]  # fmt: skip
    for place in places:
        if (place / first).is_file():
            return place
    listed = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"there is no image {first} of {path} in {listed}; tell the folder with images=")


def mirrored_pairs(names: list[str]) -> list[tuple[int, int]]:
    """Return the pairs of keypoints whose names differ in left and right alone."""
    place = {name: number for number, name in enumerate(names)}
    swapped = [re.sub("left", "right", name, flags=re.IGNORECASE) for name in names]
    return [(n, place[s]) for n, (name, s) in enumerate(zip(names, swapped, strict=True)) if s != name and s in place]


def coco_annotations(dataset: DetectionDataset, file_names: list[str] | None = None) -> dict[str, Any]:
    """Return a data set's annotations as COCO has them: what ``pycocotools.coco.COCO`` takes as its ``dataset``.

    Parameters
    ----------
    dataset : DetectionDataset
        Any data set of this package. Each image is loaded once.
    file_names : list of str, optional
        One for each image; by default numbers.

    Returns
    -------
    dict
        With "images", "annotations" and "categories", ready for json. Masks are compressed runs.
    """
    content = _content(dataset)
    for index in range(len(dataset)):
        image, target = dataset[index]
        name = file_names[index] if file_names is not None else f"{index:08d}.png"
        _append(content, dataset, image, target, name)
    return content


def write_coco(dataset: DetectionDataset, folder: str | PathLike[str], split: str = "train") -> Path:
    """Write a data set as images and a json, which :class:`CocoDataset` and ``open_dataset(folder, split)`` read.

    The images are ``<folder>/<split>/*.png``, the annotations ``<folder>/annotations/instances_<split>.json``. They
    appear once all are complete; if something fails, nothing is left. Images with 8 bits a channel and their targets
    are the same when they are read again.

    Parameters
    ----------
    dataset : DetectionDataset
        Any data set of this package.
    folder : path
        Made if there is none.
    split : str
        The name of this part of the data.

    Returns
    -------
    Path
        The json file.

    Raises
    ------
    FileExistsError
        If the folder has that split already.
    OSError
        If something cannot be written.

    Examples
    --------
    >>> from fastcv.data import synthetic_scenes
    >>> write_coco(synthetic_scenes(100, seed=1), "scenes", split="val")
    PosixPath('scenes/annotations/instances_val.json')
    """
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise ValueError(f"split must be a name of letters and digits, got {split!r}")
    top = Path(folder)
    images, path = top / split, top / "annotations" / f"instances_{split}.json"
    for existing in (images, path):
        if existing.exists():
            raise FileExistsError(f"{existing} exists already; remove it or write another split")
    made = [place for place in (path.parent, top, *top.parents) if not place.exists()]
    temporary = top / f".fastcv-{token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        content = _content(dataset)
        for index in range(len(dataset)):
            image, target = dataset[index]
            name = f"{index:08d}.png"
            as_picture(image).save(temporary / name)
            _append(content, dataset, image, target, name)
        with replaced_file(path) as file:
            file.write_text(json.dumps(content))
            temporary.rename(images)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if not path.exists():
            shutil.rmtree(images, ignore_errors=True)  # it did not exist before
        for place in made:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
        raise
    return path


def _content(dataset: DetectionDataset) -> dict[str, Any]:
    categories = []
    for label, name in dataset.names.items():
        row: Row = {"id": dataset.category_ids[label], "name": name}
        if dataset.keypoint_names:
            row["keypoints"] = list(dataset.keypoint_names)
            row["skeleton"] = [[first + 1, second + 1] for first, second in dataset.skeleton]
        categories.append(row)
    return {"images": [], "annotations": [], "categories": categories}


def _append(content: dict[str, Any], dataset: DetectionDataset, image: Tensor, target: Target, name: str) -> None:
    """Add an image and its objects."""
    height, width = image.shape[1:]
    image_id = int(target["image_id"])
    content["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
    for row, box in enumerate(target["boxes"].tolist()):
        annotation: Row = {
            "id": len(content["annotations"]) + 1,  # not 0: pycocotools takes that for "no match"
            "image_id": image_id,
            "category_id": dataset.category_ids[int(target["labels"][row])],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": float(target["area"][row]),
            "iscrowd": int(target["iscrowd"][row]),
        }
        if "masks" in target:
            annotation["segmentation"] = encode_mask(target["masks"][row].numpy())
        if "keypoints" in target:
            points = target["keypoints"][row]
            annotation["keypoints"] = points.flatten().tolist()
            annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
        content["annotations"].append(annotation)
