"""The weights for point clouds that come with the package, on shapes and streets that they have not seen."""

from __future__ import annotations

import pytest
import torch

from fastcv.data import open_dataset
from fastcv.engine import ClassificationTask, PointSegmentationTask, evaluate
from fastcv.models import ModelCard, create_model, load_model, weights_path

pytest.importorskip("safetensors")


@pytest.mark.parametrize(
    ("name", "points", "least"),
    [("pointnet_solids", 256, 0.97), ("pointnet2_solids", 256, 0.96), ("voxnet_solids", 1024, 0.95)],
)
def test_held_out_solids(name: str, points: int, least: float) -> None:
    model = load_model(name).eval()
    held_out = open_dataset("solids", "val", seed=5, held_out=100, points=points)  # another seed than the training's
    assert dict(held_out.names) == model.card.names
    _, metrics = evaluate(ClassificationTask(), model, held_out, batch=20)
    assert metrics["accuracy"] >= least - 0.03, "of a hundred"
    _check_card(model.card, name, "accuracy", least, "fastcv train solids ")


def test_held_out_streets() -> None:
    model = load_model("sparse_unet_streets").eval()
    held_out = open_dataset("streets", "val", seed=5, held_out=3)
    assert dict(held_out.names) == model.card.names
    _, metrics = evaluate(PointSegmentationTask(), model, held_out, batch=1)
    assert metrics["mIoU"] >= 0.87, "of three"
    _check_card(model.card, "sparse_unet_streets", "mIoU", 0.9, "fastcv train streets ")


def _check_card(card: ModelCard, name: str, metric: str, least: float, command: str) -> None:
    assert card.facts["metrics"][metric] >= least
    assert card.facts["command"].startswith(command)
    assert card.facts["seed"] == 0
    assert weights_path(name).stat().st_size <= 5e6


def test_voxnet_weights_are_those_of_the_sparse_form() -> None:
    dense = load_model("voxnet_solids").eval()
    sparse = create_model("sparse_voxnet", names=dense.card.names).eval()
    sparse.load_state_dict(dense.state_dict())
    points = open_dataset("solids", "val", count=4)[3][0][None]
    with torch.inference_mode():
        torch.testing.assert_close(sparse(points), dense(points), rtol=1e-4, atol=1e-4)
