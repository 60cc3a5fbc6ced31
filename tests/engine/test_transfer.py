"""Frozen parts, replaced heads, lower rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcv.data import synthetic_instances
from fastcv.engine import (
    DetectionTask,
    Trainer,
    TrainOptions,
    class_count,
    freeze,
    parameter_groups,
    replace_head,
)
from fastcv.models import create_model


def small(**options: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = create_model("maskrcnn_tiny_fpn", min_size=64, max_size=64, **options)
    return model


def test_groups() -> None:
    model = small(names=["shape"])
    freeze(model, "backbone.body.conv1")
    groups = parameter_groups(model, 0.01, 0.1, {"backbone": 0.1, "backbone.fpn": 0.5})
    names = {parameter: name for name, parameter in model.named_parameters()}
    grouped = {names[p]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert grouped.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, (rate, decay) in grouped.items():
        factor = 0.5 if name.startswith("backbone.fpn") else 0.1 if name.startswith("backbone") else 1
        assert rate == pytest.approx(0.01 * factor), name
        assert decay == (0 if name.endswith("bias") or ".bn" in name or "downsample.1" in name else 0.1), name
    layers = nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(1, 2), nn.Embedding(3, 2))
    assert [(len(g["params"]), g["weight_decay"]) for g in parameter_groups(layers, 1.0, 0.1)] == [(2, 0.1), (3, 0.0)]
    with pytest.raises(
        ValueError, match="the model has no part 'neck' with parameters; it has backbone, rpn, roi_heads"
    ):
        parameter_groups(model, 1.0, 0.0, {"neck": 0.1})
    with pytest.raises(ValueError, match=r"no part 'backbone\.hat' with parameters; backbone has body, fpn"):
        freeze(model, "backbone.hat")


def test_replaced_head() -> None:
    """Only what depends on the classes is new, even if there are as many as before."""
    for names in (["cat", "dog", "cow"], ["cat"]):
        model = small(names=["shape"])
        other = replace_head(model, names)
        before, after = model.state_dict(), other.state_dict()
        new = {name for name in after if not torch.equal(before[name], after[name])}
        heads = {
            f"roi_heads.{head}.{kind}"
            for kind in ("weight", "bias")
            for head in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
        }
        assert {name for name in new if name.endswith("weight")} == {name for name in heads if name.endswith("weight")}
        assert new <= heads
        assert class_count(other) == len(names) + 1
        assert other.card.names == dict(enumerate(names, 1))
        assert other.card.options["num_classes"] == len(names) + 1
    unet = replace_head(create_model("unet", num_classes=2, base_channels=4, depth=2), 5)
    assert class_count(unet) == 5
    assert replace_head(create_model("yolov2_tiny", classes=2), ["a", "b", "c"]).classes == 3
    with pytest.raises(ValueError, match="model must be made by create_model or load_model"):
        replace_head(nn.Linear(2, 2), 3)


def test_transfer_learning_in_three_lines() -> None:
    images, targets = synthetic_instances(4, 64)
    trained = small(names=["thing"])
    before = {name: value.clone() for name, value in trained.state_dict().items()}

    model = freeze(replace_head(trained, ["shape"]), "backbone.body")
    options = TrainOptions(steps=2, device="cpu", learning_rate=0.01, warmup=0, learning_rates={"backbone": 0.1})
    Trainer(DetectionTask(), model, list(zip(images, targets, strict=True)), options=options).train()

    moved = {name: (value - before[name]).abs().max().item() for name, value in model.state_dict().items()}
    assert all(value == 0 for name, value in moved.items() if name.startswith("backbone.body")), "statistics too"
    assert 0 < max(value for name, value in moved.items() if name.startswith("backbone.fpn")) <= 0.0025
    assert max(value for name, value in moved.items() if name.startswith("rpn")) > 0.005
