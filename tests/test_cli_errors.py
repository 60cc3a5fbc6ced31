"""What the ``fastcv`` command says when something is wrong: one line, and an exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("PIL")
pytest.importorskip("safetensors")

from PIL import Image
from typer.testing import CliRunner

from fastcv.cli import app as app_module
from fastcv.cli.errors import Failure
from fastcv.cli.photo import open_photo
from fastcv.models import detection


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, [str(argument) for argument in arguments])


def assert_one_line(result: Any, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("fastcv ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


# Photographs ----------------------------------------------------------------------------------------------------------

RAMP = np.arange(256)[None].repeat(4, 0)


@pytest.mark.parametrize(("pixels", "name"), [
    (RAMP.astype(np.uint8), "grey.png"), ((RAMP * 257).astype(np.uint16), "sixteen.png"),
    ((RAMP * 257).astype(np.uint16), "sixteen.tiff"), ((RAMP * 257).astype(np.uint16), "sixteen.ppm"),
    ((RAMP * 257).astype(np.int32), "wide.tiff"), (RAMP.astype(np.int32), "levels.tiff"),
    ((RAMP / 255).astype(np.float32), "floats.tiff"), (RAMP.astype(np.float32), "levels_as_floats.tiff"),
])  # fmt: skip
def test_photographs_of_more_than_eight_bits_are_scaled(tmp_path: Path, pixels: np.ndarray, name: str) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    photo = open_photo(tmp_path / name)
    assert photo.mode == "RGB"
    assert np.array_equal(np.asarray(photo)[:, :, 1], RAMP)


@pytest.mark.parametrize("pixels", [
    RAMP / 255 * 1.2, RAMP / 255 - 0.1, RAMP * 300.0, RAMP * np.nan, (RAMP * 300).astype(np.int32),
    -RAMP.astype(np.int32),
])  # fmt: skip
def test_photographs_without_a_known_white_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    wanted = np.float32 if pixels.dtype == np.float64 else np.int32
    Image.fromarray(pixels.astype(wanted)).save(tmp_path / "odd.tiff")
    with pytest.raises(Failure, match="its white level is unknown"):
        open_photo(tmp_path / "odd.tiff")


# Before the work ------------------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*arguments: Any, **options: Any) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr("fastcv.cli.demo.load_detector", work)
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "there.png"
    there.mkdir()
    assert_one_line(run("demo", "--output", there), f"cannot write {there}", "Is a directory")
    assert_one_line(run("demo", "--output", tmp_path / "no" / "a.png"), "cannot write", "No such file or directory")
    assert list(tmp_path.iterdir()) == [there]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of ``fastcv detect`` with which it succeeds."""
    folder = tmp_path_factory.mktemp("good")
    Image.new("RGB", (60, 40)).save(folder / "photo.png")
    torch.save(detection.create("fasterrcnn_tiny_fpn", num_classes=3).state_dict(), folder / "good.pth")
    return {
        "": folder / "photo.png", "--weights": folder / "good.pth", "--model": "fasterrcnn_tiny_fpn",
        "--output": folder / "out.png", "--size": 64,
    }  # fmt: skip


def detect(options: dict[str, Any]) -> Any:
    return run("detect", options[""], *(word for item in options.items() if item[0] for word in item))


def test_a_photograph_of_which_nothing_would_be_left(good: dict[str, Any], tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 2)).save(tmp_path / "narrow.png")
    assert_one_line(detect({**good, "": tmp_path / "narrow.png"}), "narrow.png: the image must not be so narrow")


@pytest.mark.parametrize(("device", "message"), [
    ("meta", "the operators run on cpu and cuda"), ("mps", "the operators run on cpu and cuda"),
    ("cuda:99", "torch sees"), ("cuda:-1", "Invalid device string"), ("toaster", "toaster"),
])  # fmt: skip
def test_devices(good: dict[str, Any], device: str, message: str) -> None:
    assert_one_line(detect({**good, "--device": device}), f"--device {device}: ", message)


@pytest.mark.parametrize(("command", "option", "value"), [
    ("detect", "--size", 1_000_000), ("demo", "--seed", 2**63), ("demo", "--seed", -1),
    ("demo", "--seed", 10**30),
])  # fmt: skip
def test_numbers_out_of_range(command: str, option: str, value: int) -> None:
    result = run(command, *(["photo.png", "--weights", "w.pth"] if command == "detect" else []), option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert "Traceback" not in result.output


def test_the_ends_of_the_range_of_seeds(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    for seed in (0, 2**63 - 1):
        result = run("demo", tmp_path / "photo.png", "--output", tmp_path / "sheet.png", "--no-speed", "--seed", seed)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: you tried to allocate 9 bytes"),
    torch.OutOfMemoryError("CUDA out of memory"),
])  # fmt: skip
def test_lack_of_memory(good: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("fastcv.cli.predict.load_detector", fail)
    assert_one_line(detect(good), "there is not enough memory")


def test_other_errors_are_not_hidden(good: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr("fastcv.cli.predict.load_detector", fail)
    assert isinstance(detect(good).exception, RuntimeError)


def test_interrupted_while_it_works(good: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastcv.cli.predict.load_detector", interrupt)
    result = detect(good)
    assert (result.exit_code, result.stderr) == (130, "fastcv detect: interrupted\n")


# Processes ------------------------------------------------------------------------------------------------------------


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "fastcv", *arguments], stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("imported", ["torch", "typer"])
def test_interrupted_while_modules_are_imported(tmp_path: Path, imported: str) -> None:
    """A module that takes its time to import, as torch does."""
    (tmp_path / f"{imported}.py").write_text(
        "import pathlib, time\npathlib.Path('imported').touch()\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    raise ImportError\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = start("info", cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL)
    while not (tmp_path / "imported").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "fastcv: interrupted")


def test_a_reader_that_goes_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("info", cwd=tmp_path, stdout=write)
    os.close(write)
    _, errors = process.communicate(timeout=120)
    assert errors == ""


def test_a_standard_output_that_is_full(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        _, errors = (process := start("info", cwd=tmp_path, stdout=full)).communicate(timeout=120)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert "No space left on device" in errors
