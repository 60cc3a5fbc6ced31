"""``fastcv predict``: what it writes, what it says, and its exit status."""

from __future__ import annotations

import json
import os
import shutil
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
from fastcv.cli.detector import model_of_file
from fastcv.data import synthetic_scenes
from fastcv.data.images import as_picture, open_image, to_tensor
from fastcv.detections import Detections
from fastcv.models.registry import create_model, load_model, save_model

FOLDER = os.environ.get("FASTCV_YOLOV3_TINY")
NAMES = ["circle", "square", "star"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with a card, of a model that finds some squares and stars in anything."""
    torch.manual_seed(3)
    model = create_model("fasterrcnn_tiny_fpn", names=NAMES, min_size=64, max_size=128)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, -2, 1.5, 1.45]))
        model.roi_heads.box_predictor.cls_score.weight.mul_(20)
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_model(model, path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two images of one name, one in a folder below, and a file that is no image."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    y, x = np.mgrid[0:64, 0:96]
    for name, phase in (("a.png", 0), ("more/a.png", 8), ("b.jpg", 4)):
        pixels = np.stack([x * 2, y * 3, ((x + phase) // 16 + y // 16) % 2 * 200], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app_module.app, ["predict", *(str(argument) for argument in arguments)])


def expected(weights: Path, path: Path, score: float = 0.5) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        (found,) = load_model(weights).eval().optimize()([to_tensor(open_image(path))])
    return {name: value[found["scores"] >= score] for name, value in found.items()}


def test_json_is_what_the_model_finds(weights: Path, photos: Path, tmp_path: Path) -> None:
    result = run(photos / "**", "--weights", weights, "--json", tmp_path / "found.json", "--score", 0.3)
    assert result.exit_code == 0, result.output
    held = json.loads((tmp_path / "found.json").read_text())
    assert [one["file_name"] for one in held["images"]] == [
        str(photos / name) for name in ("a.png", "b.jpg", "more/a.png")
    ]
    assert held["categories"] == [{"id": 1 + i, "name": name} for i, name in enumerate(NAMES)]
    assert len(held["annotations"]) > 0
    for image in held["images"]:
        found = expected(weights, Path(image["file_name"]), 0.3)
        mine = [one for one in held["annotations"] if one["image_id"] == image["id"]]
        assert [one["category_id"] for one in mine] == found["labels"].tolist()
        boxes = torch.tensor([one["bbox"] for one in mine]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        torch.testing.assert_close(boxes, found["boxes"], rtol=0, atol=2e-3)
        scores = torch.tensor([one["score"] for one in mine])
        torch.testing.assert_close(scores, found["scores"], rtol=0, atol=1e-5)
        assert (image["width"], image["height"]) == (96, 64)
    coco = pytest.importorskip("pycocotools.coco").COCO(str(tmp_path / "found.json"))
    assert len(coco.getAnnIds()) == len(held["annotations"])


def test_pictures_do_not_overwrite_each_other_nor_their_sources(weights: Path, photos: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    for _ in range(2):
        result = run(photos, photos / "more", "--weights", weights, "--save-dir", photos)
        assert result.exit_code == 0, result.output
        assert {path: path.read_bytes() for path in before} == before
    names = {path.relative_to(photos).as_posix() for path in photos.rglob("*.*") if path not in before}
    assert {"a-2.png", "a-3.png", "b-2.jpg"} <= names
    assert Image.open(photos / "b-2.jpg").format == "JPEG"


def test_links_to_sources_are_not_overwritten(weights: Path, photos: Path, tmp_path: Path) -> None:
    before = (photos / "a.png").read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(photos / "a.png")
    assert run(photos / "a.png", "--weights", weights, "--save-dir", tmp_path / "out").exit_code == 0
    assert (photos / "a.png").read_bytes() == before
    assert (tmp_path / "out" / "a-2.png").is_file()


def test_crops(weights: Path, photos: Path, tmp_path: Path) -> None:
    result = run(photos / "a.png", "--weights", weights, "--crop-dir", tmp_path / "crops", "--score", 0.3)
    assert result.exit_code == 0, result.output
    found = expected(weights, photos / "a.png", 0.3)
    crops = [Image.open(path).size for path in (tmp_path / "crops").iterdir()]
    assert len(crops) == len(found["boxes"]) > 0
    box = found["boxes"][0].tolist()
    first = tmp_path / "crops" / f"a-{NAMES[int(found['labels'][0]) - 1]}.png"
    left, top, right, bottom = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
    whole = np.asarray(Image.open(photos / "a.png"))
    assert np.array_equal(np.asarray(Image.open(first)), whole[top:bottom, left:right])


def test_one_image_is_drawn(weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(photos / "a.png", "--weights", weights)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("detections.png: ")
    assert Image.open("detections.png").size == (96, 64)


def test_quiet_is_a_line_per_image(weights: Path, photos: Path) -> None:
    result = run(photos / "**", "--weights", weights, "--quiet", "--batch", 2)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(photos / name) for name in ("a.png", "b.jpg", "more/a.png")]
    for name, count, classes in lines:
        found = expected(weights, Path(name))["labels"].tolist()
        assert int(count) == len(found)
        counts = {NAMES[label - 1]: found.count(label) for label in set(found)}
        assert {part.split()[1]: int(part.split()[0]) for part in classes.split(", ") if part} == counts


def test_classes(weights: Path, photos: Path, tmp_path: Path) -> None:
    for wanted, labels in (("star", {3}), ("2,star", {2, 3})):
        arguments = (photos / "a.png", "--weights", weights, "--score", 0.1, "--json", tmp_path / "found.json")
        assert run(*arguments, "--classes", wanted).exit_code == 0
        held = json.loads((tmp_path / "found.json").read_text())
        assert {one["category_id"] for one in held["annotations"]} == labels
    wrong = run(*arguments, "--classes", "sqare")
    assert wrong.stderr == "fastcv predict: --classes: there is no class 'sqare': there is square, star\n"


def test_bad_files_are_reported_skipped_and_counted(weights: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:300])
    Image.new("RGB", (20_000, 2)).save(photos / "narrow.png")
    output = tmp_path / "found.json"
    result = run(photos, photos / "none.png", "--weights", weights, "--json", output, "--batch", 4)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == f"fastcv: there is no file {photos}/none.png"
    assert lines[1].startswith(f"fastcv: cannot read {photos}/cut.jpg: ")
    assert lines[2].startswith(f"fastcv: {photos}/narrow.png: the image must not be so narrow")
    assert lines[3:] == ["fastcv: 3 could not be read"]
    assert len(json.loads(output.read_text())["images"]) == 2
    assert "2 images, " in result.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (("none.png",), "there is no file none.png"), (("*.nothing",), "no image matches *.nothing"),
    (("a.png", "more", "--output", "x.png"), "--output x.png is for one image: use --save-dir for several"),
    (("a.png", "--output", "a.png"), "--output a.png would overwrite what is read"),
    (("a.png", "--json", "a.png"), "--json a.png would overwrite what is read"),
    (("a.png", "--save-dir", "b.jpg"), "--save-dir b.jpg: File exists"),
    (("a.png", "--json", "no/found.json"), "cannot write no/found.json: No such file or directory"),
    (("a.png", "--model", "unet"), "unet is no detector"),
    (("a.png", "--model", "yolov3-tiny", "--size", "64"), "--size is not for yolov3_tiny"),
    (("a.png", "--model", "maskrcnn_tiny_fpn"), "holds weights of fasterrcnn_tiny_fpn, not of maskrcnn_tiny_fpn"),
    (("a.png", "--model", "maskrcnn_tiny"), "there is no such model; did you mean maskrcnn_tiny_fpn?"),
    (("a.png", "--classes", "4"), "--classes: there is no class 4: labels are 1 to 3"),
    (("a.png", "--classes", "9" * 30), "--classes: there is no class 9"),
    (("a.png", "--classes", ","), "--classes must name at least one class"),
])  # fmt: skip
def test_one_line_and_status_2(
    weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(photos)
    before = sorted(path.name for path in photos.iterdir())
    result = run(*arguments, "--weights", weights)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("fastcv predict: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert sorted(path.name for path in photos.iterdir()) == before


def test_weights_that_are_a_folder(weights: Path, photos: Path, tmp_path: Path) -> None:
    result = run(photos / "a.png", "--weights", weights.parent)
    expected = f"fastcv predict: --weights {weights.parent} is a folder: did you mean {weights}?\n"
    assert (result.exit_code, result.stderr) == (2, expected)
    assert "is a folder: name a file in it" in run(photos / "a.png", "--weights", tmp_path).stderr


def test_weights_of_darknet_need_a_model(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.weights").touch()
    result = run(photos, "--weights", tmp_path / "tiny.weights")
    assert "does not say which model it belongs to: name it, as in --model yolov3-tiny" in result.stderr


@pytest.mark.parametrize(("file", "model"), [
    ("yolov3-tiny.weights", "yolov3_tiny"), ("yolov2-tiny-voc.weights", "yolov2_tiny"), ("best.pth", None),
    ("fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", "fasterrcnn_resnet50_fpn_v2"),
    ("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "maskrcnn_resnet50_fpn"),
])  # fmt: skip
def test_names_of_published_files_say_the_model(file: str, model: str | None) -> None:
    assert model_of_file(Path(file)) == model


def test_interrupted_nothing_is_half_written(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def save(picture: Image.Image, path: Path, **options: Any) -> None:
        drawn.append(Path(path))
        is_second = len(drawn) == 2
        Path(path).write_bytes(b"half" if is_second else b"whole")
        if is_second:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    output = tmp_path / "out"
    result = run(photos / "**", "--weights", weights, "--save-dir", output, "--json", tmp_path / "found.json")
    assert (result.exit_code, result.stderr) == (130, "fastcv predict: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]
    assert all(path.read_bytes() == b"whole" for path in output.iterdir())
    assert {path.name for path in output.iterdir()} < {"a.png", "a-2.png", "b.jpg"}


def test_a_model_that_finds_nonsense(weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"boxes": torch.full((1, 4), torch.nan), "scores": torch.ones(1), "labels": torch.ones(1).long()}
    model = load_model(weights)
    monkeypatch.setattr(model, "forward", lambda images: [found] * len(images))
    monkeypatch.setattr("fastcv.cli.predict.load_detector", lambda *arguments: model)
    result = run(photos, "--weights", weights)
    assert result.exit_code == 1
    assert f"fastcv: {photos}/a.png: boxes must have finite numbers" in result.stderr


def test_a_full_disk(weights: Path, photos: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    result = run(photos, "--weights", weights, "--json", "/dev/full")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr


def test_odd_names(weights: Path, photos: Path, tmp_path: Path) -> None:
    odd = photos / "[bold]\n1.png"
    shutil.copy(photos / "a.png", odd)
    result = run(odd, photos / "b.jpg", "--weights", weights, "--save-dir", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    assert "[bold]\\n1.png\t" in result.stdout


def test_keypoints_are_drawn_with_the_skeleton_of_the_training(tmp_path: Path) -> None:
    image, _ = synthetic_scenes(1, 96, 3, classes=("person",))[0]
    picture = as_picture(image)
    picture.save(tmp_path / "people.png")
    output = tmp_path / "drawn.png"
    result = run(tmp_path / "people.png", "--weights", "keypointrcnn_people", "--output", output)
    assert result.exit_code == 0, result.output
    with torch.inference_mode():
        (answer,) = load_model("keypointrcnn_people").eval().optimize()([to_tensor(picture)])
    expected, bare = (
        Detections.from_model(answer, {1: "person"}, score=0.5, image=picture, skeleton=pairs).plot()
        for pairs in ([(0, 1), (0, 2), (0, 3), (0, 4)], [])
    )
    assert len(answer["boxes"]) > 0
    drawn = open_image(output)
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))
    assert not np.array_equal(np.asarray(drawn), np.asarray(bare))


def test_slices(weights: Path, photos: Path, tmp_path: Path) -> None:
    options = ("--weights", weights, "--score", 0.3, "--json", tmp_path / "found.json")

    def found(*more: Any) -> Any:
        result = run(photos / "a.png", *options, *more)
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "found.json").read_text())["annotations"]

    assert found("--slice", 96) == found(), "one tile is the image"
    assert found("--slice", 48, "--overlap", 0.3) != found()


def test_video(weights: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in range(4):
        writer.write(np.full((48, 64, 3), level * 60, np.uint8))
    writer.release()
    arguments = ("--weights", weights, "--save-dir", tmp_path / "out", "--json", tmp_path / "found.json")
    result = run(tmp_path / "clip.avi", *arguments, "--frames", 3)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"clip-00000{i}.png" for i in range(3)]
    images = json.loads((tmp_path / "found.json").read_text())["images"]
    assert [one["frame"] for one in images] == [0, 1, 2]


def test_without_classes_of_known_names(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("fasterrcnn_tiny_fpn", num_classes=5)
    torch.save(model.state_dict(), tmp_path / "five.pth")
    arguments = ("--weights", tmp_path / "five.pth", "--model", "fasterrcnn_tiny_fpn", "--score", 0, "--size", 64)
    result = run(photos / "a.png", *arguments, "--output", tmp_path / "drawn.png")
    assert "class 4 " in result.stdout


def test_json_is_replaced_completely_or_not_at_all(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def half(path: Path, text: str, **options: Any) -> None:
        write(path, text[: len(text) // 2], **options)
        raise OSError(28, "No space left on device")

    (tmp_path / "found.json").write_text("before")
    monkeypatch.setattr(Path, "write_text", half)
    result = run(photos, "--weights", weights, "--json", tmp_path / "found.json")
    assert (result.exit_code, result.stderr) == (
        2,
        f"fastcv predict: {tmp_path}/found.json: No space left on device\n",
    )
    assert (tmp_path / "found.json").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "photos"]


@pytest.mark.skipif(FOLDER is None, reason="FASTCV_YOLOV3_TINY names no folder with published weights")
def test_the_tie_of_the_portrait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from fastcv.cli.demo import portrait

    monkeypatch.chdir(tmp_path)
    weights = Path(str(FOLDER)) / "yolov3-tiny.weights"
    result = run(portrait(), "--weights", weights, "--classes", "tie")
    assert result.exit_code == 0, result.output
    x1, y1, x2, y2 = (int(word) for word in result.stdout.splitlines()[2].split()[2:])
    assert x1 < 255 < x2, "the knot, as a person sees it"
    assert y1 < 460 < y2
