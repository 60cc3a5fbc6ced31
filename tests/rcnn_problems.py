"""Tiny detectors, torchvision's with the same weights, images and targets."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.models import detection

KINDS = ["fasterrcnn", "maskrcnn", "keypointrcnn"]
CLASSES, POINTS = 5, 17
OPTIONS: dict[str, Any] = {
    "min_size": 90,
    "max_size": 160,
    "box_detections_per_img": 20,
    "box_batch_size_per_image": 32,
    "rpn_pre_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_train": 60,
    "rpn_post_nms_top_n_test": 60,
}


def images(dtype: torch.dtype = torch.float32, flat: bool = True) -> list[Tensor]:
    """Smooth colours with edges, noise of another size, and one flat colour, where there is nothing.

    ``flat=False`` gives something in its place: where all anchors score alike, it is chance which are chosen. The sizes
    are such that the factors of resizing are exact: torchvision rounds them to float32, even for float64.
    """
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(120) / 120, torch.arange(160) / 160, indexing="ij")
    photo = torch.stack([x, y, ((x * 8).floor() + (y * 6).floor()) % 2])
    noise, other = torch.rand(3, 120, 90, generator=generator), torch.rand(3, 60, 80, generator=generator)
    third = torch.full((3, 60, 80), 0.5) if flat else 0.5 * other + 0.5 * photo[:, ::2, ::2]
    return [image.to(dtype) for image in (photo, noise, third)]


def prepare(model: Any) -> None:
    """Give a model without training statistics of its images, and scores that are spread."""
    generator = torch.Generator().manual_seed(2)
    norms = [module for module in model.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.eval()
    batch = model.transform(images())[0].tensors
    model.backbone.train()
    with torch.no_grad():
        model.backbone(batch)
        for norm in norms:
            norm.weight.uniform_(0.8, 1.2, generator=generator)
            norm.bias.normal_(0, 0.1, generator=generator)
        predictor = model.roi_heads.box_predictor
        predictor.cls_score.weight.normal_(0, 0.15, generator=generator)
        predictor.bbox_pred.weight.normal_(0, 0.05, generator=generator)
        model.rpn.head.cls_logits.weight.normal_(0, 0.1, generator=generator)
        model.rpn.head.bbox_pred.weight.normal_(0, 0.03, generator=generator)
    model.eval()


def make_pair(peer: ModuleType, kind: str) -> tuple[Any, Any]:
    """A tiny detector and torchvision's with the same weights, on the same backbone."""
    torch.manual_seed(2)
    ours = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS)
    prepare(ours)
    rooms = {name: getattr(peer, f"{name}_rcnn") for name in ("faster", "mask", "keypoint")}
    heads = {
        "box_head": rooms["faster"].TwoMLPHead(32 * 49, 128),
        "box_predictor": rooms["faster"].FastRCNNPredictor(128, CLASSES),
    }
    if kind == "maskrcnn":
        heads["mask_head"] = rooms["mask"].MaskRCNNHeads(32, (32, 32), 1)
        heads["mask_predictor"] = rooms["mask"].MaskRCNNPredictor(32, 32, CLASSES)
    if kind == "keypointrcnn":
        heads["keypoint_head"] = rooms["keypoint"].KeypointRCNNHeads(32, (32, 32))
        heads["keypoint_predictor"] = rooms["keypoint"].KeypointRCNNPredictor(32, POINTS)
    names = {"fasterrcnn": "FasterRCNN", "maskrcnn": "MaskRCNN", "keypointrcnn": "KeypointRCNN"}
    theirs = getattr(peer, names[kind])(copy.deepcopy(ours.backbone), **heads, **OPTIONS)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.eval()


def targets(kind: str, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    """One image with three objects, one without any, one with an object that reaches over the border."""
    boxes = torch.tensor([[10.0, 12, 60, 70], [30, 20, 120, 100], [5, 60, 90, 118]])
    filled = {"boxes": boxes.to(dtype), "labels": torch.tensor([1, 2, 4])}
    empty = {"boxes": torch.zeros(0, 4, dtype=dtype), "labels": torch.zeros(0, dtype=torch.int64)}
    over = {"boxes": torch.tensor([[35.0, 20, 85, 50]], dtype=dtype), "labels": torch.tensor([3])}
    for target, image in zip((filled, empty, over), images(), strict=True):
        count = len(target["boxes"])
        if kind == "maskrcnn":
            target["masks"] = torch.zeros(count, *image.shape[1:], dtype=torch.uint8)
            for mask, (x1, y1, x2, y2) in zip(target["masks"], target["boxes"].int().tolist(), strict=True):
                mask[y1:y2, x1:x2] = 1
        if kind == "keypointrcnn":
            points = torch.rand(count, POINTS, 3, generator=torch.Generator().manual_seed(2))
            points[..., :2] = points[..., :2] * 50 + target["boxes"][:, None, :2]
            points[..., 2] = (points[..., 2] > 0.3).float()
            target["keypoints"] = points
    return [filled, empty, over]
