"""The ``fastcv`` command: what a person sees, and what lands on the disk."""

from __future__ import annotations

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
from fastcv.cli.regions import choose_regions, covered, cut_out
from fastcv.cli.sheet import plan


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


def test_demo_writes_the_sheet_with_the_right_pictures_in_it(photo_path, tmp_path):
    output = tmp_path / "sheet.png"
    result = run("demo", photo_path, "--output", output, "--regions", 5, "--size", 80, "--no-speed")
    assert result.exit_code == 0, result.output
    assert "5 regions of photo.png (240x160) to 80x80" in result.stdout
    layout = plan((240, 160), 5, 80)
    sheet = Image.open(output)
    assert sheet.size == layout.sheet
    original = Image.open(photo_path)
    regions = choose_regions(as_tensor(photo_path), 5)
    assert regions[0].tolist() == [40, 0, 200, 160]  # the largest square in the middle
    for region, place in zip(regions.tolist(), layout.tiles, strict=True):
        # the largest region is halved by averaging, smaller ones are enlarged bilinearly
        method = Image.Resampling.BOX if region[2] - region[0] >= 80 else Image.Resampling.BILINEAR
        expected = np.asarray(original.resize((80, 80), method, box=region), dtype=float)
        shown = np.asarray(sheet.crop(place), dtype=float)
        # without the corner that the number covers
        difference = np.abs(shown - expected)
        difference[:24, :40] = 0
        assert difference.max() <= 2, (region, difference.max())


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


def test_demo_uses_the_portrait_without_an_argument(tmp_path):
    pytest.importorskip("matplotlib")
    result = run("demo", "--output", tmp_path / "sheet.png", "--regions", 1, "--no-speed")
    assert result.exit_code == 0, result.output
    assert "1 region of portrait (512x600)" in result.stdout


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


@pytest.mark.parametrize("arguments", [("--regions", "0"), ("--size", "31")])
def test_demo_refuses_senseless_numbers(arguments, photo_path, tmp_path):
    result = run("demo", photo_path, "--output", tmp_path / "sheet.png", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_regions_lie_inside_and_apart():
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(3, 300, 500, generator=generator)
    regions = choose_regions(photo, 10)
    assert regions.shape == (10, 4)
    assert (regions[:, :2] >= 0).all()
    assert (regions[:, 2] <= 500).all()
    assert (regions[:, 3] <= 300).all()
    assert torch.equal(regions[:, 2] - regions[:, 0], regions[:, 3] - regions[:, 1])
    assert (regions[:, 2] - regions[:, 0])[:6].tolist() == [300, 150, 100, 75, 50, 37]
    pairs = [(a, b) for i, a in enumerate(regions[1:]) for b in regions[1:][:i]]
    assert max(covered(a, b) for a, b in pairs) <= 0.45


def test_regions_look_for_detail():
    photo = torch.zeros(3, 256, 256)
    photo[:, 180:200, 60:80] = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    x1, y1, x2, y2 = choose_regions(photo, 2)[1].tolist()
    assert x1 <= 60
    assert x2 >= 80
    assert y1 <= 180
    assert y2 >= 200


def test_many_regions_of_a_small_photograph():
    assert choose_regions(torch.zeros(3, 32, 32), 64).shape == (64, 4)


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
    expected = "fastcv: the command line needs rich, pillow: pip install 'fastcv[demo]'\n"
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
