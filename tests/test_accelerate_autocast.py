"""Every detector of torchvision trains under autocast while it is accelerated."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastcv
from fastcv.models.detection import resnet_fpn_backbone
from fastcv.ops.feature_pyramid_network import LastLevelP6P7

KINDS = ["faster", "mask", "keypoint", "retinanet", "fcos", "ssd", "mobile", "ssdlite"]
OPTIONS = {"num_classes": 3, "min_size": 96, "max_size": 128}


def make(kind: str) -> Any:
    """On a small backbone, with torchvision's own heads."""
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.detection
    torch.manual_seed(0)
    if kind == "mobile":
        return theirs.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, **OPTIONS, box_batch_size_per_image=16
        )
    if kind == "ssdlite":
        return theirs.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    dense = kind in ("retinanet", "fcos", "ssd")
    extra = LastLevelP6P7(32, 32) if dense else None
    stages = (2, 3, 4) if dense else None
    backbone = resnet_fpn_backbone("tiny", None, nn.BatchNorm2d, 5, stages, extra, 32)
    if kind == "ssd":
        anchors = theirs.anchor_utils.DefaultBoxGenerator([[2], [2, 3], [2], [2], [2]])
        backbone.out_channels = [32] * 5  # type: ignore[assignment]
        return theirs.ssd.SSD(backbone, anchors, (96, 128), 3)
    names = {
        "faster": "FasterRCNN",
        "mask": "MaskRCNN",
        "keypoint": "KeypointRCNN",
        "retinanet": "RetinaNet",
        "fcos": "FCOS",
    }
    sampling = {} if dense else {"box_batch_size_per_image": 16}
    return getattr(theirs, names[kind])(backbone, **OPTIONS, **sampling)


def target(kind: str) -> dict[str, Tensor]:
    boxes = torch.tensor([[10.0, 12, 60, 70], [30, 20, 120, 90]])
    made = {"boxes": boxes, "labels": torch.tensor([1, 2])}
    if kind == "mask":
        made["masks"] = torch.zeros(2, 96, 128, dtype=torch.uint8)
        made["masks"][:, 20:60, 30:50] = 1
    if kind == "keypoint":
        points = torch.rand(2, 17, 3, generator=torch.Generator().manual_seed(2)) * 40 + 20
        points[..., 2] = 1
        made["keypoints"] = points
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_finite_and_close(kind: str) -> None:
    model = make(kind).train()
    image = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))

    def step() -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(3)
        trained = copy.deepcopy(model)
        with torch.autocast("cpu", torch.bfloat16):
            losses = trained([image, image.flip(2)], [target(kind) for _ in range(2)])
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        return losses, torch.stack([p.grad.float().norm() for p in trained.parameters() if p.grad is not None]).norm()

    expected, gradient = step()
    with fastcv.accelerate_torchvision():
        actual, norm = step()
    assert actual.keys() == expected.keys()
    for name, loss in expected.items():
        assert actual[name].dtype is loss.dtype
        assert actual[name].isfinite()
        # Which proposals are sampled may differ by the rounding of bfloat16.
        torch.testing.assert_close(actual[name], loss, rtol=0.25 if "loss_" in name else 0.02, atol=0.05)
    torch.testing.assert_close(norm, gradient, rtol=0.3, atol=0.05)
