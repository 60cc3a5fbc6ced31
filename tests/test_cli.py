"""The ``fastcv`` command: what a person sees, and what lands on the disk."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("typer")
pytest.importorskip("PIL")

from PIL import Image
from typer.testing import CliRunner

import fastcv
from fastcv.cli import app as app_module
from fastcv.cli import main, speed
from fastcv.cli.demo import FREE_FACE, portrait
from fastcv.cli.regions import cut_out, squares_around
from fastcv.cli.sheet import plan
from fastcv.data.scenes import SCENE_CLASSES, figures_on_photograph
from fastcv.detections import Detections
from fastcv.models.registry import create_model, load_model, save_model
from fastcv.ops import box_iou

names = dict(enumerate(SCENE_CLASSES, 1))


FOLDER = os.environ.get("FASTCV_YOLOV3_TINY")


@pytest.fixture(autouse=True)
def without_published_weights(monkeypatch):
    """The demo uses them where the environment says that there are such."""
    monkeypatch.delenv("FASTCV_YOLOV3_TINY", raising=False)


@pytest.fixture(scope="module")
def photo_path(tmp_path_factory):
    """A photograph of smooth colours and a few hard edges, 240x160."""
    y, x = np.mgrid[0:160, 0:240]
    pixels = np.stack([x, y * 1.5, (x // 20 + y // 20) % 2 * 200], axis=-1).clip(0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def run(*arguments):
    return CliRunner().invoke(app_module.app, [str(argument) for argument in arguments])


def as_tensor(path):
    return torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1).float() / 255


def test_cut_out_at_its_own_size_is_a_crop(photo_path):
    photo = as_tensor(photo_path)
    cut = cut_out(photo, torch.tensor([[10.0, 20.0, 74.0, 84.0], [100.0, 0.0, 164.0, 64.0]]), 64)
    torch.testing.assert_close(cut[0], photo[:, 20:84, 10:74], rtol=0, atol=1e-6)
    torch.testing.assert_close(cut[1], photo[:, 0:64, 100:164], rtol=0, atol=1e-6)


def test_cut_out_at_half_size_averages_four_pixels(photo_path):
    photo = as_tensor(photo_path)
    cut = cut_out(photo, torch.tensor([[10.0, 20.0, 138.0, 148.0]]), 64)
    expected = photo[:, 20:148, 10:138].reshape(3, 64, 2, 64, 2).mean((2, 4))
    torch.testing.assert_close(cut[0], expected, rtol=0, atol=1e-6)


def test_demo_shows_what_is_found_and_cuts_it_out(photo_path, tmp_path):
    output = tmp_path / "sheet.png"
    result = run("demo", photo_path, "--output", output, "--size", 80, "--no-speed", "--seed", 0)
    assert result.exit_code == 0, result.output
    assert "in photo.png (240x160), into which 5 shapes had been set" in result.stdout
    picture, _ = figures_on_photograph(as_tensor(photo_path), seed=0)
    with torch.inference_mode():
        (found,) = load_model("maskrcnn_scenes").eval().optimize()([picture])
    kept = found["scores"] >= 0.5
    boxes, count = found["boxes"][kept], int(kept.sum())
    assert count >= 2
    layout = plan((240, 160), count, 80)
    sheet = Image.open(output)
    assert sheet.size == layout.sheet
    for region, place in zip(squares_around(boxes, 160, 240), layout.tiles, strict=True):
        shown = as_tensor(output)[:, place[1] : place[3], place[0] : place[2]]
        torch.testing.assert_close(shown, cut_out(picture, region[None], 80)[0], rtol=0, atol=0.51 / 255)
    shown = sheet.crop(layout.photo).resize((240, 160), Image.Resampling.BOX)
    expected = Detections.from_model(found, image=picture, score=0.5).plot(captions=False)
    assert np.abs(np.asarray(shown, float) - np.asarray(expected, float)).mean() < 12
    lines = [line.split() for line in result.stdout.splitlines()[2:]]
    assert [line[0] for line in lines] == [names[label] for label in found["labels"][kept].tolist()]


def test_demo_is_the_same_twice_and_another_with_another_seed(photo_path, tmp_path):
    sheets = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        output = tmp_path / f"{name}.png"
        assert run("demo", photo_path, "--output", output, "--seed", seed, "--no-speed").exit_code == 0
        sheets.append(output.read_bytes())
    assert sheets[0] == sheets[1]
    assert sheets[0] != sheets[2]


def test_demo_turns_the_photograph_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    Image.new("RGB", (120, 60), "white").save(tmp_path / "side.jpg", exif=exif)
    result = run("demo", tmp_path / "side.jpg", "--output", tmp_path / "sheet.png", "--no-speed")
    assert "side.jpg (60x120)" in result.stdout


def test_demo_finds_shapes_in_the_portrait_without_an_argument(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    result = run("demo", "--no-speed")
    assert result.exit_code == 0, result.output
    assert "demo.png: found 1 " in result.stdout
    assert "in the portrait (512x600), into which 5 shapes had been set: 5 right, in" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()[2:]]
    boxes = torch.tensor([[float(word) for word in row[2:]] for row in rows])
    _, target = figures_on_photograph(as_tensor(portrait()), seed=FREE_FACE)
    overlap = box_iou(target["boxes"], boxes)
    assert sorted(row[0] for row in rows) == ["circle", "ring", "square", "star", "triangle"]
    assert overlap.amax(1).min() > 0.6
    assert [rows[column][0] for column in overlap.argmax(1)] == [names[int(label)] for label in target["labels"]]


@pytest.mark.skipif(FOLDER is None, reason="FASTCV_YOLOV3_TINY names no folder with published weights")
@pytest.mark.parametrize("is_named", [False, True])
def test_demo_finds_the_tie_with_published_weights(is_named, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    weights = Path(str(FOLDER)) / "yolov3-tiny.weights"
    if not is_named:
        monkeypatch.setenv("FASTCV_YOLOV3_TINY", str(FOLDER))
    more = ("--weights", weights) if is_named else ()
    result = run("demo", "--output", tmp_path / "tie.png", "--no-speed", *more)
    assert result.exit_code == 0, result.output
    name, score, *corners = result.stdout.splitlines()[2].split()
    assert (name, float(score) > 0.4) == ("tie", True)
    x1, y1, x2, y2 = map(int, corners)
    assert x1 < 255 < x2
    assert y1 < 460 < y2
    assert "shapes" not in result.stdout


def test_demo_with_a_detector_that_finds_nothing(photo_path, tmp_path):
    pytest.importorskip("safetensors")
    torch.manual_seed(0)
    model = create_model("yolov2_tiny", names=["cat"], width=0.25, size=64)
    save_model(model, tmp_path / "empty.safetensors")
    output = tmp_path / "sheet.png"
    result = run("demo", photo_path, "--weights", tmp_path / "empty.safetensors", "--output", output, "--no-speed")
    assert result.exit_code == 0, result.output
    assert "found nothing in photo.png" in result.stdout
    assert Image.open(output).size == plan((240, 160), 0, 160).sheet


def test_squares_lie_around_boxes_and_inside():
    boxes = torch.tensor([[100.0, 50, 120, 90], [0, 0, 10, 30], [0, 0, 300, 200], [295, 190, 300, 200]])
    squares = squares_around(boxes, 200, 300)
    sides = squares[:, 2:] - squares[:, :2]
    torch.testing.assert_close(sides, torch.tensor([46.0, 34.5, 200, 11.5])[:, None].expand(-1, 2))
    torch.testing.assert_close(squares[0], torch.tensor([87.0, 47, 133, 93]))
    assert (squares[:, :2] >= 0).all()
    assert (squares[:, 2:] <= torch.tensor([300.0, 200])).all()
    assert squares_around(torch.zeros(0, 4), 200, 300).shape == (0, 4)


def test_demo_compares_with_torchvision(photo_path, tmp_path, monkeypatch):
    results = [speed.Speed("a task", 1, ours=0.001, theirs=0.0125)]
    monkeypatch.setattr("fastcv.cli.demo.load_torchvision", lambda: max)
    monkeypatch.setattr("fastcv.cli.demo.compare", lambda *_: results)
    result = run("demo", photo_path, "--output", tmp_path / "sheet.png")
    line = next(line for line in result.stdout.splitlines() if "a task" in line)
    assert line.split()[2:] == ["1", "1.00", "ms", "12.50", "ms", "12.5x"]


def test_demo_says_why_there_is_no_comparison(photo_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    result = run("demo", photo_path, "--output", tmp_path / "sheet.png")
    assert result.exit_code == 0
    assert "No comparison of speed: torchvision is not installed." in result.stdout


def test_contenders_alternate_and_medians_are_taken(monkeypatch):
    order, clock = [], iter(range(10_000))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    seconds = speed.take_turns([lambda: order.append("a"), lambda: (order.append("b"), next(clock))])
    assert order == ["a", "b"] * (speed.ROUNDS + 1)
    assert seconds == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jpg", None, "there is no file"),
        ("notes.jpg", b"no image at all", "is not an image that Pillow can read"),
        ("cut.png", "truncated", "cannot read"),
        ("tiny.png", "tiny", "is too small: 20x40, at least 32x32 is needed"),
    ],
)
def test_demo_names_what_is_wrong_with_the_photograph(name, content, message, photo_path, tmp_path):
    path = tmp_path / name
    if content == "truncated":
        path.write_bytes(photo_path.read_bytes()[:200])
    elif content == "tiny":
        Image.new("RGB", (20, 40)).save(path)
    elif content is not None:
        path.write_bytes(content)
    assert_one_line(run("demo", path, "--output", tmp_path / "sheet.png", "--no-speed"), message, name)


@pytest.mark.parametrize(
    ("output", "message"), [("missing/sheet.png", "cannot write"), ("sheet.jpg", "has to end in .png")]
)
def test_demo_names_what_is_wrong_with_the_output(output, message, photo_path, tmp_path):
    assert_one_line(run("demo", photo_path, "--output", tmp_path / output, "--no-speed"), message, output)
    assert list(tmp_path.iterdir()) == []


def assert_one_line(result, *parts):
    assert result.exit_code == 2
    assert result.stderr.startswith("fastcv demo: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize("arguments", [("--crops", "0"), ("--size", "31")])
def test_demo_refuses_senseless_numbers(arguments, photo_path, tmp_path):
    result = run("demo", photo_path, "--output", tmp_path / "sheet.png", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_info_holds_what_a_bug_report_needs():
    result = run("info")
    assert result.exit_code == 0
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines())
    build = fastcv.ops.build_info()
    assert facts["fastcv"] == fastcv.__version__
    assert facts["torch"] == torch.__version__
    assert facts["Python"].startswith(".".join(str(part) for part in sys.version_info[:3]))
    assert facts["threads"] == str(torch.get_num_threads())
    assert facts["CPU variant"] == f"{build['cpu_variant']} (available: {', '.join(build['cpu_variants'])})"
    assert build["bf16_products"] != "float32" or facts["bf16"] == "products in float32"
    assert facts["fastcv with"].startswith(f"CUDA {build['cuda_version']}" if build["cuda"] else "no CUDA")
    assert ("GPU 0" in facts) == torch.cuda.is_available()
    assert {"torchvision", "platform", "CPU", "cores", "compiler", "OpenMP", "torch with"} <= facts.keys()


def test_info_says_that_torchvision_does_not_load(tmp_path, monkeypatch):
    """Such as one for CUDA beside a torch for CPUs."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("fastcv.cli.info.version", lambda package: "0.29.1")
    result = run("info")
    assert result.exit_code == 0
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("torchvision"))
    failure = "torchvision does not load (operator torchvision::nms does not exist)"
    assert line == f"torchvision  0.29.1, but {failure}: install torch and torchvision from the same index"


def test_version():
    result = run("--version")
    assert result.stdout.strip() == f"fastcv {fastcv.__version__}"


def without(monkeypatch, *modules):
    from importlib import util

    monkeypatch.setattr("fastcv.cli.find_spec", lambda name: None if name in modules else util.find_spec(name))


def test_main_says_what_to_install(monkeypatch, capsys):
    without(monkeypatch, "rich", "PIL")
    monkeypatch.setattr(sys, "argv", ["fastcv", "demo"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    expected = "fastcv: the command line needs rich, pillow: pip install rich pillow\n"
    assert capsys.readouterr().err == expected


def test_info_needs_none_of_the_extra(monkeypatch, capsys):
    without(monkeypatch, "typer", "rich", "PIL", "matplotlib")
    monkeypatch.setattr(sys, "argv", ["fastcv", "info"])
    main()
    assert f"torch        {torch.__version__}" in capsys.readouterr().out


def test_the_command_line_frame_imports_nothing_of_the_extra():
    """Without the extra, importing fastcv and fastcv.cli has to work."""
    source = Path(fastcv.cli.__file__).read_text()
    assert not re.search(r"^(import|from) (typer|rich|PIL|matplotlib)", source, re.MULTILINE)
