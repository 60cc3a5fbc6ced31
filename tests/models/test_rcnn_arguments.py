"""What detectors say about images, targets and options that they cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastcv.models import detection
from fastcv.nn import MultiScaleRoIAlign

OPTIONS: dict[str, Any] = {"num_classes": 4, "min_size": 64, "max_size": 96}
IMAGE = torch.rand(3, 60, 80)


@pytest.fixture(scope="module")
def model() -> Any:
    return detection.create("fasterrcnn_tiny_fpn", **OPTIONS)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (IMAGE, TypeError, r"images must be a list of tensors \(C, H, W\), got Tensor"),
        ([], ValueError, "images must hold at least one image"),
        ([IMAGE.numpy()], TypeError, r"images\[0\] must be a torch.Tensor, got ndarray"),
        ([IMAGE, IMAGE[None]], ValueError, r"images\[1\] must have shape \(3, H, W\), got \(1, 3, 60, 80\)"),
        ([IMAGE[:1]], ValueError, r"images\[0\] must have shape \(3, H, W\), got \(1, 60, 80\)"),
        ([(IMAGE * 255).byte()], TypeError, r"images\[0\] must be floating, with values 0 to 1, got torch.uint8"),
        ([IMAGE * 255], ValueError, r"images\[0\] must have values 0 to 1, got .* to 25"),
        ([IMAGE * float("nan")], ValueError, r"images\[0\] must have values 0 to 1, got nan"),
        ([IMAGE[:, :0]], ValueError, r"images\[0\] must not be empty"),
        ([IMAGE, IMAGE.double()], ValueError, r"images\[1\] must have the dtype and device of images\[0\]"),
    ],
)
def test_images(model: Any, images: Any, error: type[Exception], message: str) -> None:
    model.eval()
    with pytest.raises(error, match=message):
        model(images)


def test_own_normalisation_takes_any_values() -> None:
    model = detection.create("fasterrcnn_tiny_fpn", **OPTIONS, image_mean=[0, 0, 0], image_std=[255, 255, 255]).eval()
    with torch.no_grad():
        assert len(model([IMAGE * 255])) == 1


def good() -> dict[str, Any]:
    return {"boxes": torch.tensor([[1.0, 2, 30, 40], [5, 5, 20, 20]]), "labels": torch.tensor([1, 3])}


def changed(**changes: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in {**good(), **changes}.items() if value is not None}]


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (None, ValueError, "targets must be given in training"),
        (good(), TypeError, "targets must be a list of dictionaries, got dict"),
        ([good(), good()], ValueError, r"targets must have one dictionary per image \(1\), got 2"),
        ([3], TypeError, r"targets\[0\] must be a dictionary, got int"),
        (changed(boxes=None), KeyError, r"targets\[0\] must have 'boxes'"),
        (changed(labels=None), KeyError, r"targets\[0\] must have 'labels'"),
        (changed(boxes=[[1, 2, 3, 4]]), TypeError, r"\['boxes'\] must be a torch.Tensor, got list"),
        (changed(boxes=torch.zeros(2, 5)), ValueError, r"\['boxes'\] must have shape \(N, 4\), got \(2, 5\)"),
        (changed(boxes=torch.ones(2, 4).bool()), TypeError, r"\['boxes'\] must be numbers, got torch.bool"),
        (changed(boxes=torch.tensor([[1.0, 2, 30, 40], [5, 5, 5, 20]])), ValueError, "x1 < x2 and y1 < y2; box 1 is"),
        (changed(boxes=torch.tensor([[9.0, 2, 3, 40], [5, 5, 9, 20]])), ValueError, "x1 < x2 and y1 < y2; box 0 is"),
        (changed(boxes=torch.tensor([[1.0, 2, torch.nan, 40], [5, 5, 9, 20]])), ValueError, "finite corners"),
        (
            changed(boxes=torch.tensor([[1.0, 2, 9, 40], [80, 5, 99, 20]])),
            ValueError,
            "overlap the image; box 1 .*80x60",
        ),
        (changed(boxes=torch.tensor([[-9.0, 2, 0, 40], [8, 5, 9, 20]])), ValueError, "overlap the image; box 0"),
        (changed(labels=torch.tensor([1.0, 2])), TypeError, r"\['labels'\] must be int64, got torch.float32"),
        (
            changed(labels=torch.tensor([1])),
            ValueError,
            r"\['labels'\] must have shape \(2,\), one per box, got \(1,\)",
        ),
        (
            changed(labels=torch.tensor([1, 4])),
            ValueError,
            r"\['labels'\] must be 1 to 3 \(0 is the background\), got 4",
        ),
        (changed(labels=torch.tensor([0, 1])), ValueError, r"\['labels'\] must be 1 to 3 .* got 0"),
        (changed(labels=torch.tensor([1, -1])), ValueError, r"\['labels'\] must be 1 to 3 .* got -1"),
    ],
)
def test_targets(model: Any, targets: Any, error: type[Exception], message: str) -> None:
    model.train()
    with pytest.raises(error, match=message):
        model([IMAGE], targets)


def test_targets_of_masks_and_keypoints() -> None:
    masks = detection.create("maskrcnn_tiny_fpn", **OPTIONS).train()
    with pytest.raises(KeyError, match=r"targets\[0\] must have 'masks'"):
        masks([IMAGE], [good()])
    with pytest.raises(ValueError, match=r"\['masks'\] must have shape \(2, 60, 80\), got \(2, 80, 60\)"):
        masks([IMAGE], changed(masks=torch.zeros(2, 80, 60)))
    points = detection.create("keypointrcnn_tiny_fpn", **OPTIONS).train()
    with pytest.raises(KeyError, match=r"targets\[0\] must have 'keypoints'"):
        points([IMAGE], [good()])
    with pytest.raises(ValueError, match=r"\['keypoints'\] must have shape \(2, 17, 3\), got \(2, 5, 3\)"):
        points([IMAGE], changed(keypoints=torch.zeros(2, 5, 3)))
    with pytest.raises(TypeError, match=r"\['keypoints'\] must be floating"):
        points([IMAGE], changed(keypoints=torch.zeros(2, 17, 3).int()))
    with pytest.raises(ValueError, match=r"\['keypoints'\] must have shape \(2, 17, 3\), got \(17, 0, 3\)"):
        points([IMAGE], changed(keypoints=torch.zeros(17, 0, 3)))


def test_a_transform_alone_takes_floating_images() -> None:
    with pytest.raises(TypeError, match=r"image must be floating, with values 0 to 1, got torch\.uint8"):
        detection.GeneralizedRCNNTransform(64, 96)([(IMAGE * 255).byte()])


def test_options() -> None:
    backbone = detection.resnet_fpn_backbone(backbone_name="tiny", out_channels=32)
    with pytest.raises(ValueError, match="exactly one of num_classes and box_predictor"):
        detection.FasterRCNN(backbone)
    with pytest.raises(ValueError, match="exactly one of num_classes and mask_predictor"):
        detection.MaskRCNN(backbone)
    with pytest.raises(ValueError, match="num_keypoints must be None when keypoint_predictor is given"):
        detection.KeypointRCNN(backbone, 2, num_keypoints=3, keypoint_predictor=nn.Identity())
    with pytest.raises(ValueError, match="backbone must have an attribute out_channels"):
        detection.FasterRCNN(nn.Identity(), 2)
    with pytest.raises(TypeError, match="rpn_anchor_generator must be a AnchorGenerator or None, got int"):
        detection.FasterRCNN(backbone, 2, rpn_anchor_generator=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"name must be one of resnet18.*got 'vgg'"):
        detection.resnet_fpn_backbone(backbone_name="vgg")
    with pytest.raises(ValueError, match="trainable_layers must be 0 to 5, got 6"):
        detection.resnet_fpn_backbone(backbone_name="tiny", trainable_layers=6)
    with pytest.raises(ValueError, match="returned_layers must be between 1 and 4"):
        detection.resnet_fpn_backbone(backbone_name="tiny", returned_layers=[0, 1])
    with pytest.warns(UserWarning, match="trainable_backbone_layers has no effect without weights"):
        detection.create("fasterrcnn_tiny_fpn", trainable_backbone_layers=2)


def test_bins_that_are_not_square() -> None:
    pool = MultiScaleRoIAlign(["0", "1"], (np.int64(3), 5), 2)
    backbone = detection.resnet_fpn_backbone(backbone_name="tiny", out_channels=32)
    model = detection.FasterRCNN(backbone, 2, min_size=64, max_size=96, box_roi_pool=pool).eval()
    assert model.roi_heads.box_head.fc6.in_features == 32 * 15
    with torch.no_grad():
        assert len(model([IMAGE])) == 1


def test_optimized_models_neither_train_nor_optimize_twice() -> None:
    model = detection.create("fasterrcnn_tiny_fpn", **OPTIONS)
    with pytest.raises(
        TypeError, match=r"dtype must be torch.float32, torch.bfloat16 or torch.float16, got torch.int8"
    ):
        model.optimize(torch.int8)
    assert not model.optimize().training
    with pytest.raises(RuntimeError, match="cannot be trained"):
        model.train()
    with pytest.raises(RuntimeError, match="optimized already"):
        model.optimize()


def test_padded_inference(model: Any) -> None:
    with pytest.raises(RuntimeError, match="call eval"):
        model.train().forward_padded(IMAGE[None])
    with pytest.raises(ValueError, match=r"images must have shape \(N, 3, H, W\), got \(3, 60, 80\)"):
        model.eval().forward_padded(IMAGE)
    with pytest.raises(TypeError, match=r"images must be a torch.Tensor, got list"):
        model.eval().forward_padded([IMAGE])
