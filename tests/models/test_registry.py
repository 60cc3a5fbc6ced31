"""Models by name, and files that know their model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fastcv.models import create_model, load_model, model_names, read_card, save_model
from fastcv.models.detection import maskrcnn_resnet50_fpn

TINY = "fasterrcnn_tiny_fpn"


def test_names() -> None:
    assert {"maskrcnn_resnet50_fpn", "yolov3_tiny", "unet"} <= set(model_names())
    assert model_names("segmentation") == ["unet"]
    with pytest.raises(ValueError, match=r"name must be one of fasterrcnn_tiny_fpn, .*got 'alexnet'"):
        create_model("alexnet")


@pytest.mark.parametrize(
    ("name", "classes", "options"),
    [(TINY, 3, {}), ("yolov2-tiny", 2, {}), ("unet", 2, {"base_channels": 4, "depth": 1})],
)
def test_a_saved_model_comes_back(tmp_path: Path, name: str, classes: int, options: dict) -> None:
    torch.manual_seed(0)
    model = create_model(name, names=["cat", "dog"], **options).eval()
    path = tmp_path / "model.safetensors"
    save_model(model, path, seed=3, metrics={"AP50": 0.9})
    again = load_model(path).eval()
    for (key, value), (same, other) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == same
        assert torch.equal(value, other), key
    first = 1 if "rcnn" in name else 0
    assert again.card.names == {first: "cat", first + 1: "dog"}
    assert again.card.facts == {"seed": 3, "metrics": {"AP50": 0.9}}
    assert again.card.model == name.replace("-", "_")
    assert classes in again.card.options.values()
    assert first == getattr(again, "first_label", 0)
    with safe_open(path, "pt") as file:  # the card is plain JSON
        assert json.loads(file.metadata()["fastcv"])["model"] == again.card.model


def test_half_of_the_size(tmp_path: Path) -> None:
    """Matrices in float16 in the file, in float32 in the model; what is small keeps its bits."""
    torch.manual_seed(0)
    model = create_model("pointnet", names=["a", "b"])
    save_model(model, tmp_path / "whole.safetensors")
    save_model(model, tmp_path / "half.safetensors", half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert 0.49 < sizes[0] / sizes[1] < 0.53
    for (name, back), value in zip(
        load_model(tmp_path / "half.safetensors").state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert back.dtype == value.dtype
        expected = value.half().float() if value.dim() > 1 and value.numel() > 1000 else value
        assert torch.equal(back, expected), name


def test_the_number_of_classes_comes_from_the_names() -> None:
    assert create_model(TINY, names={1: "cat", 4: "dog"}).roi_heads.box_predictor.cls_score.out_features == 5
    assert create_model(TINY, names=["cat"], num_classes=7).roi_heads.box_predictor.cls_score.out_features == 7


def test_weights_of_others(tmp_path: Path) -> None:
    other = maskrcnn_resnet50_fpn(num_classes=2)
    torch.save(other.state_dict(), tmp_path / "them.pth")
    model = create_model("maskrcnn_resnet50_fpn", weights=tmp_path / "them.pth")
    assert torch.equal(model.roi_heads.box_predictor.cls_score.weight, other.roi_heads.box_predictor.cls_score.weight)
    assert read_card(tmp_path / "them.pth") is None
    with pytest.raises(ValueError, match=r"them.pth does not say which model it belongs to: name it"):
        load_model(tmp_path / "them.pth")


def test_errors(tmp_path: Path) -> None:
    model = create_model(TINY, num_classes=2)
    with pytest.raises(ValueError, match=r"path must end in .safetensors, got .*weights.pth"):
        save_model(model, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="options and facts must be what JSON can hold"):
        save_model(model, tmp_path / "a.safetensors", seed={1, 2})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="model must be made by create_model"):
        save_model(torch.nn.Linear(2, 2), tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_model(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(ValueError, match=r"broken.safetensors is not a safetensors file"):
        load_model(tmp_path / "broken.safetensors")
    for card in (
        "{",
        "[]",
        '{"model": 3}',
        json.dumps({"model": TINY, "task": "x", "options": 3, "names": {}, "facts": {}}),
    ):
        save_file({"a": torch.zeros(1)}, tmp_path / "card.safetensors", {"fastcv": card})
        with pytest.raises(ValueError, match="its card cannot be read"):
            load_model(tmp_path / "card.safetensors")
    with pytest.raises(ValueError, match="names must be text by label, labels from 1, got 0: 'cat'"):
        create_model(TINY, names={0: "cat"})
    with pytest.raises(TypeError, match="names must be a list or dict of names, got the str 'cat'"):
        create_model(TINY, names="cat")
