"""Sources: what names stand for, and that images are read ahead, in order."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from fastcv.data import sources as module
from fastcv.data.sources import Source, find_sources, read_ahead


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a1, a2, a10 of as many pixels, a text, and folders with more."""
    for number in (10, 2, 1):
        Image.new("RGB", (number, 3)).save(tmp_path / f"a{number}.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "below" / "deep").mkdir(parents=True)
    Image.new("RGB", (5, 5)).save(tmp_path / "below" / "deep" / "b.JPG", "JPEG")
    return tmp_path


def names(folder: Path, *given: Any) -> list[str]:
    found, errors = find_sources([folder / one for one in given])
    assert not errors
    return [Path(source.path).relative_to(folder).as_posix() for source in found]


def test_names(folder: Path) -> None:
    assert names(folder, ".") == ["a1.png", "a2.png", "a10.png"]
    assert names(folder, "a*.png") == ["a1.png", "a2.png", "a10.png"]
    assert names(folder, "a?.png") == ["a1.png", "a2.png"]
    assert names(folder, "**") == ["a1.png", "a2.png", "a10.png", "below/deep/b.JPG"]
    assert names(folder, "a10.png", ".", "a1.png") == ["a10.png", "a1.png", "a2.png"], "each once"
    assert names(folder, "notes.txt") == ["notes.txt"], "a file that is named is read whatever its suffix"
    Image.new("RGB", (4, 4)).save(folder / "x[1].png")
    assert names(folder, "x[1].png") == ["x[1].png"], "a file before a pattern"


def test_names_that_stand_for_nothing(folder: Path) -> None:
    (folder / "void").mkdir()
    found, errors = find_sources([folder / "none.png", folder / "*.gif", folder / "below", folder / "void"])
    assert found == []
    assert errors == [
        f"there is no file {folder}/none.png",
        f"no image matches {folder}/*.gif",
        f"{folder}/below holds no images: for those below it, {folder}/below/**",
        f"{folder}/void holds no images",
    ]


def test_cameras_and_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("7").touch()
    Path("clip.MP4").touch()
    found, _ = find_sources(["0", "camera:2", "7", "clip.MP4"])
    assert [(one.kind, one.path) for one in found] == [
        ("camera", "0"), ("camera", "2"), ("image", "7"), ("video", "clip.MP4"),
    ]  # fmt: skip


def test_in_order_with_errors(folder: Path) -> None:
    (folder / "a3.png").write_bytes(b"no image")
    found, _ = find_sources([folder])
    frames = list(read_ahead(found, threads=4, ahead=2))
    assert [None if frame.image is None else frame.image.width for frame in frames] == [1, 2, None, 10]
    assert [None if frame.pixels is None else tuple(frame.pixels.shape) for frame in frames][3] == (3, 3, 10)
    assert str(folder / "a3.png") in str(frames[2].error)
    assert [frame.name for frame in frames] == [source.path for source in found]


def test_reads_while_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller holds the first image: those after it are opened, but no more than it may have waiting."""
    opened, fourth = [], threading.Event()

    def open_image(path: str, stretch: bool) -> Image.Image:
        opened.append(path)
        if len(opened) >= 4:
            fourth.set()
        return Image.new("RGB", (2, 2))

    monkeypatch.setattr(module, "open_image", open_image)
    reader = read_ahead([Source("image", str(number)) for number in range(100)], threads=2, ahead=3)
    assert next(reader).name == "0"
    assert fourth.wait(20), "nothing is read ahead"
    assert len(opened) <= 4
    assert next(reader).name == "1"
    reader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastcv-read")]
    assert len(opened) <= 5


def test_video(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), (250, 0, level * 50), np.uint8))  # BGR
    writer.release()
    found, _ = find_sources([path])
    frames = list(read_ahead(found))
    assert [frame.index for frame in frames] == list(range(5))
    for frame in frames:
        assert frame.image is not None
        red, _, blue = frame.image.getpixel((30, 20))
        assert abs(red - frame.index * 50) < 12
        assert abs(blue - 250) < 12
    assert frames[3].name == f"{path}, frame 3"
    assert len(list(read_ahead(found, frames=2))) == 2
    path.write_bytes(path.read_bytes()[:200])
    (frame,) = read_ahead(found)
    assert str(path) in str(frame.error)


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    (frame,) = read_ahead([Source("video", "clip.mp4")])
    expected = "clip.mp4: reading videos and cameras needs opencv-python-headless: pip install opencv-python-headless"
    assert str(frame.error) == expected
