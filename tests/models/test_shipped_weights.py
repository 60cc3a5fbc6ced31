"""The weights that come with the package find what they were trained to find, in images that they have not seen."""

from pathlib import Path

import pytest

from fastcv.data import open_dataset
from fastcv.engine import DetectionTask, evaluate
from fastcv.models import load_model, read_card, weights_path

pytest.importorskip("pycocotools")


@pytest.mark.parametrize(
    ("name", "data", "least"),
    [
        ("maskrcnn_scenes", "scenes", {"bbox/AP50": 0.9, "segm/AP50": 0.85}),
        ("keypointrcnn_people", "people", {"keypoints/AP50": 0.8}),
        ("yolov2_scenes", "scenes", {"bbox/AP50": 0.8}),
    ],
)
def test_held_out_scenes(name: str, data: str, least: dict[str, float]) -> None:
    model = load_model(name)
    held_out = open_dataset(data, "val", model.first_label, seed=5, held_out=30)  # another seed than the training's
    assert dict(held_out.names) == model.card.names
    _, metrics = evaluate(DetectionTask(), model.eval(), held_out, batch=10)
    for metric, value in least.items():
        assert metrics[metric] >= value
        assert model.card.facts["metrics"][metric] >= value, "the card says so as well"
    assert model.card.facts["command"].startswith(f"fastcv train {data} ")
    assert weights_path(name).stat().st_size <= 5e6


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_card("maskrcnn_scenes").model == "maskrcnn_tiny_fpn"  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maskrcnn_scenes").write_bytes(b"mine")
    assert weights_path("maskrcnn_scenes") == Path("maskrcnn_scenes"), "a file of that name comes first"
    for other in ("nobody_scenes", "folder/maskrcnn_scenes", "../weights/maskrcnn_scenes"):
        assert weights_path(other) == Path(other)
        with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
            load_model(other)
