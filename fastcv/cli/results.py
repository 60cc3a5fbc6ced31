"""What ``fastcv predict`` writes: pictures, crops and JSON. Sources are never overwritten."""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from fastcv._files import replaced_file
from fastcv.cli.errors import fail, reason
from fastcv.data.images import save_picture
from fastcv.data.sources import Frame, Source
from fastcv.detections import Detections

MOST_WAITING = 8  # pictures
KEPT = frozenset((".jpg", ".jpeg", ".png", ".webp"))  # formats in which pictures are written as they came


class Folder:
    """A folder for pictures, in which no two of a run have the same name, and none is a source."""

    def __init__(self, folder: Path, option: str, sources: Iterable[str]) -> None:
        self.folder, self.sources = folder, {os.path.realpath(path) for path in sources}
        self.taken: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(f"{option} {folder}: {reason(error)}")
        if not os.access(folder, os.W_OK):
            fail(f"{option} {folder}: Permission denied")

    def name(self, stem: str, suffix: str) -> Path:
        """Return a path that is free: ``stem``, or with -2, -3 and so on."""
        number = 1
        while True:
            path = self.folder / f"{stem}{f'-{number}' * (number > 1)}{suffix}"
            key = path.name.lower()  # some file systems do not tell upper from lower case
            if key not in self.taken and os.path.realpath(path) not in self.sources:
                self.taken.add(key)
                return path
            number += 1


def stem_of(frame: Frame) -> str:
    """Return what the pictures of an image are called: the file's name and, in a video, the frame's number."""
    if frame.source.kind == "image":
        return Path(frame.source.path).stem
    name = f"camera{frame.source.path}" if frame.source.kind == "camera" else Path(frame.source.path).stem
    return f"{name}-{frame.index:06d}"


class Writer:
    """Writes pictures in threads, so that the model need not wait for their compression."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="fastcv-write")
        self.waiting: deque[Future[None]] = deque()

    def save(self, picture: Image.Image, path: Path) -> None:
        """Write a picture soon. Errors come with a later call, at the latest with ``finish``."""
        self.waiting.append(self.pool.submit(save_picture, picture, path))
        while len(self.waiting) > MOST_WAITING:
            self.waiting.popleft().result()

    def finish(self) -> None:
        """Wait until everything is written."""
        while self.waiting:
            self.waiting.popleft().result()

    def close(self) -> None:
        """End the threads; what they have not begun is not written."""
        self.pool.shutdown(wait=True, cancel_futures=True)


class Results:
    """Everything that is written."""

    def __init__(self, save_dir: Path | None, crop_dir: Path | None, json_file: Path | None, sources: list[Source]):
        paths = [source.path for source in sources if source.kind != "camera"]
        self.pictures = None if save_dir is None else Folder(save_dir, "--save-dir", paths)
        self.crops = None if crop_dir is None else Folder(crop_dir, "--crop-dir", paths)
        self.json_file = json_file
        self.writer = Writer()
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, frame: Frame, found: Detections) -> Path | None:
        """Write the pictures of an image, keep its detections, and return where it is drawn."""
        drawn = None
        if self.pictures is not None:
            suffix = Path(frame.source.path).suffix.lower()
            drawn = self.pictures.name(stem_of(frame), suffix if suffix in KEPT else ".png")
            self.writer.save(found.plot(), drawn)
        if self.crops is not None:
            for one, picture in zip(found, found.crop(), strict=True):
                name = re.sub(r"[^\w-]+", "_", one.class_names[0])
                self.writer.save(picture, self.crops.name(f"{stem_of(frame)}-{name}", ".png"))
        if self.json_file is not None:
            self._keep(frame, found)
        return drawn

    def _keep(self, frame: Frame, found: Detections) -> None:
        number = len(self.images) + 1
        assert found.image_size is not None
        height, width = found.image_size
        entry: dict[str, Any] = {"id": number, "file_name": frame.source.path, "width": width, "height": height}
        if frame.source.kind != "image":
            entry["frame"] = frame.index
        self.images.append(entry)
        for one, area in zip(found.to_coco(number), found.areas().tolist(), strict=True):
            one["bbox"] = [round(value, 3) for value in one["bbox"]]
            one["score"] = round(one["score"], 5)
            if "keypoints" in one:
                one["keypoints"] = [round(value, 3) for value in one["keypoints"]]
            self.annotations.append({"id": len(self.annotations) + 1, **one, "area": round(area, 3), "iscrowd": 0})

    def finish(self, names: dict[int, str]) -> None:
        """Write what is left: pictures that wait, and the JSON file."""
        self.writer.finish()
        if self.json_file is None:
            return
        labels = names.keys() | {one["category_id"] for one in self.annotations}
        categories = [{"id": label, "name": names.get(label, f"class {label}")} for label in sorted(labels)]
        held = {"images": self.images, "annotations": self.annotations, "categories": categories}
        with replaced_file(self.json_file) as file:
            file.write_text(json.dumps(held, allow_nan=False), encoding="utf-8")


def check_apart(path: Path | None, option: str, others: Iterable[str]) -> None:
    """End the command if a file to be written is one of those that are read."""
    if path is not None and os.path.realpath(path) in {os.path.realpath(other) for other in others}:
        fail(f"{option} {path} would overwrite what is read")
