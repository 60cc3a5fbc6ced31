"""What to look at: image files, folders, patterns, videos and cameras, decoded ahead of the model."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fastcv._optional import require
from fastcv.data.images import as_picture, open_image, to_planes

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Frame", "Source", "find_sources", "read_ahead"]

IMAGES = frozenset(
    f".{suffix}"
    for suffix in (
        "jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "gif", "tif", "tiff", "webp", "avif", "ppm", "pgm", "pbm",
        "pnm", "jp2", "tga", "ico",
    )
)  # fmt: skip
VIDEOS = frozenset(
    f".{suffix}"
    for suffix in ("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "flv", "3gp", "mjpeg")
)  # fmt: skip

_CAMERA = re.compile(r"(?:camera:)?([0-9]{1,3})")


@dataclass(frozen=True)
class Source:
    """One thing to read: ``kind`` is "image", "video" or "camera"."""

    kind: str
    path: str
    """A file, or the number of a camera."""


@dataclass(frozen=True)
class Frame:
    """One image of a source: either ``image`` and ``pixels`` or ``error`` are there."""

    source: Source
    index: int
    """Number of the frame in a video, from 0."""
    image: Image.Image | None = None
    pixels: Tensor | None = None
    """The image as (3, H, W), uint8."""
    error: Exception | None = None

    @property
    def name(self) -> str:
        """The file and, in a video, the frame."""
        if self.source.kind == "image":
            return self.source.path
        return f"{'camera ' * (self.source.kind == 'camera')}{self.source.path}, frame {self.index}"


def find_sources(names: Iterable[str | os.PathLike[str]]) -> tuple[list[Source], list[str]]:
    """Return what names stand for, and one line for each name that stands for nothing.

    Parameters
    ----------
    names : list of str or path
        - A file: a video by its suffix, otherwise an image.
        - A folder: the images in it, by name, those in folders below it not; ``folder/**`` has those as well.
        - A pattern with ``*``, ``?``, ``[...]``, ``**``: the images and videos that match.
        - ``0`` or ``camera:0``: a camera, if there is no file of that name.

    Returns
    -------
    sources : list of Source
        Each file once, in the order of the names.
    errors : list of str
    """
    sources: list[Source] = []
    errors = []
    for given in names:
        name = os.fspath(given)
        camera = _CAMERA.fullmatch(name)
        if os.path.isdir(name):
            found = [_of_file(path) for path in sorted(_in_folder(name), key=_natural)]
            if not found:
                below = any(_is_known(file) for _, _, files in os.walk(name) for file in files)
                errors.append(f"{name} holds no images" + (f": for those below it, {name}/**" if below else ""))
            sources += found
        elif os.path.exists(name) or os.path.lexists(name):
            sources.append(_of_file(name))
        elif camera:
            sources.append(Source("camera", camera[1]))
        elif glob.has_magic(name):
            matches = [path for path in glob.glob(name, recursive=True) if _is_known(path) and os.path.isfile(path)]
            sources += [_of_file(path) for path in sorted(matches, key=_natural)]
            if not matches:
                errors.append(f"no image matches {name}")
        else:
            errors.append(f"there is no file {name}")
    unique: dict[tuple[str, str], Source] = {}
    for source in sources:
        unique.setdefault((source.kind, os.path.realpath(source.path)), source)
    return list(unique.values()), errors


def read_ahead(
    sources: Sequence[Source],
    threads: int | None = None,
    ahead: int = 8,
    frames: int | None = None,
    stretch: bool = False,
) -> Generator[Frame, None, None]:
    """Yield the images of sources in order, decoded in threads while the caller works.

    Parameters
    ----------
    sources : list of Source
        Of :func:`find_sources`.
    threads : int, optional
        That decode images. Default: as many as there are cores, at most 4. A video has one.
    ahead : int
        Most images that wait for the caller.
    frames : int, optional
        Most frames of a video or camera. Default: all.
    stretch : bool
        As in :func:`fastcv.data.images.open_image`.

    Yields
    ------
    Frame
        A file that cannot be read is a Frame with ``error``.
    """
    for is_image, group in groupby(sources, lambda source: source.kind == "image"):
        if is_image:
            jobs = (_reading(source, stretch) for source in group)
            yield from _run_ahead(jobs, threads or min(4, os.cpu_count() or 1), ahead)
        else:
            for source in group:
                yield from _video(source, ahead, frames)


def _run_ahead(jobs: Iterable[Callable[[], Frame | None]], threads: int, ahead: int) -> Generator[Frame, None, None]:
    """Yield the results of jobs in order, up to the first that is None."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fastcv-read")
    waiting: deque[Future[Frame | None]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > ahead:
                frame = waiting.popleft().result()
                if frame is None:
                    return
                yield frame
        while waiting:
            frame = waiting.popleft().result()
            if frame is None:
                return
            yield frame
    finally:  # also when the caller stops early, or on Ctrl-C
        pool.shutdown(wait=True, cancel_futures=True)


def _reading(source: Source, stretch: bool) -> Callable[[], Frame]:
    def read() -> Frame:
        try:
            image = open_image(source.path, stretch)
            return Frame(source, 0, image, to_planes(image))
        except (ValueError, OSError) as error:
            return Frame(source, 0, error=error)

    return read


def _video(source: Source, ahead: int, frames: int | None) -> Generator[Frame, None, None]:
    """Yield the frames of a video or camera; they are read by one thread, in order."""
    name = f"camera {source.path}" if source.kind == "camera" else source.path
    try:
        cv2 = require("cv2", f"{name}: reading videos and cameras")
    except ImportError as error:
        yield Frame(source, 0, error=error)
        return
    _silence(cv2)
    capture = cv2.VideoCapture(int(source.path) if source.kind == "camera" else source.path)
    try:
        if not capture.isOpened():
            yield Frame(source, 0, error=ValueError(f"cannot open {name}: OpenCV does not read it"))
            return

        def grabbing(index: int) -> Callable[[], Frame | None]:
            def grab() -> Frame | None:
                read, pixels = capture.read()
                if not read:
                    return None
                image = as_picture(pixels[:, :, ::-1])  # BGR to RGB
                return Frame(source, index, image, to_planes(image))

            return grab

        count = 0
        for frame in _run_ahead(map(grabbing, range(2**62 if frames is None else frames)), 1, ahead):
            count += 1
            yield frame
        if not count and frames != 0:
            yield Frame(source, 0, error=ValueError(f"{name} has no frame that OpenCV can read"))
    finally:
        capture.release()


def _silence(cv2: Any) -> None:
    """Keep OpenCV, and FFmpeg in it, from writing their own lines to the standard error."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    if logging is not None:
        logging.setLogLevel(logging.LOG_LEVEL_SILENT)


def _of_file(path: str) -> Source:
    return Source("video" if Path(path).suffix.lower() in VIDEOS and not os.path.isdir(path) else "image", path)


def _is_known(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGES | VIDEOS


def _in_folder(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [os.path.join(folder, one.name) for one in entries if one.is_file() and _is_known(one.name)]


def _natural(path: str) -> list[Any]:
    """Return what sorts a2 before a10."""
    return [
        (0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part)
        for part in re.split(r"([0-9]+)", path)
    ]
