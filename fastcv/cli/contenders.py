"""Networks as fastcv, PyTorch, ONNX Runtime and OpenVINO run them on the CPU: the same weights, float32.

Needs torch. Of the others, torchvision included, one that is not installed is left out, and why is said.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastcv._optional import require
from fastcv._threads import threads_set_to

__all__ = ["CONTENDERS", "MODELS", "Network", "image", "spread"]

Call = Callable[[], list[Tensor]]


def image(height: int, width: int) -> Tensor:
    """(3, H, W): smooth colours with edges and some noise, values 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    pattern = torch.stack([x, y, ((x * 16).floor() + (y * 12).floor()) % 2])
    return 0.8 * pattern + 0.2 * torch.rand(3, height, width, generator=generator)


def spread(model: Any, sample: Tensor) -> None:
    """Give an untrained network statistics of an image, and the heads of an R-CNN scores as spread as a trained one's.

    Without, numbers grow from layer to layer until rounding decides what is found.
    """
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain averages
    model.eval()
    is_rcnn = hasattr(model, "roi_heads")
    batch = model.transform([sample])[0].tensors if is_rcnn else sample[None]
    body = model.backbone if is_rcnn else model
    body.train()
    with torch.no_grad():
        body(batch)
        if is_rcnn:
            predictor, head = model.roi_heads.box_predictor, model.rpn.head
            for layer, deviation in (
                (predictor.cls_score, 0.05),
                (predictor.bbox_pred, 0.01),
                (head.cls_logits, 0.02),
                (head.bbox_pred, 0.005),
            ):
                layer.weight.normal_(0, deviation, generator=generator)
    model.eval()


# ---- networks --------------------------------------------------------------------------------------------------------


@dataclass
class Network:
    """A network to run, made twice with the same weights.

    Attributes
    ----------
    title : str
        What is run on what.
    sample : Tensor
        The image, with a batch axis unless ``is_list``.
    ours : nn.Module
        fastcv's, optimized.
    plain : nn.Module
        The same made of torch's layers.
    is_list : bool
        Whether the networks take a list of images and return a list of dictionaries.
    """

    title: str
    sample: Tensor
    ours: nn.Module
    plain: nn.Module
    is_list: bool = False
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def run(self, module: nn.Module) -> list[Tensor]:
        """Return what a network of torch makes of the sample, as a flat list."""
        with torch.no_grad():
            return _flat(module([self.sample] if self.is_list else self.sample))

    @cached_property
    def onnx(self) -> Path:
        """``plain`` as an ONNX file."""
        path = Path(self.folder.name) / "network.onnx"
        sample = [self.sample] if self.is_list else self.sample
        plain: Any = self.plain
        with warnings.catch_warnings(), threads_set_to(1), torch.no_grad():
            warnings.simplefilter("ignore")
            if self.is_list:
                postprocess, plain.transform.postprocess = plain.transform.postprocess, self._boxes_resized
            try:
                torch.onnx.export(plain, (sample,), str(path), dynamo=False, input_names=["image"], opset_version=17)
            finally:
                if self.is_list:
                    plain.transform.postprocess = postprocess
        return path

    def finish(self, found: list[Tensor]) -> list[Tensor]:
        """Paste the masks that the ONNX file gives: OpenVINO does not read the loop that torchvision writes for it."""
        if self.is_list and len(found) == 4:
            heads = require("torchvision.models.detection.roi_heads", "Mask R-CNN")
            found[3] = heads.paste_masks_in_image(found[3], found[0], tuple(self.sample.shape[1:]))
        return found

    @staticmethod
    def _boxes_resized(found: list[dict[str, Tensor]], sizes: list[Any], originals: list[Any]) -> Any:
        """What torchvision's ``postprocess`` does, but for the masks."""
        resize_boxes = require("torchvision.models.detection.transform", "an R-CNN").resize_boxes
        for image, size, original in zip(found, sizes, originals, strict=True):
            image["boxes"] = resize_boxes(image["boxes"], size, original)
        return found


def _flat(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, dict):
        return [found[name] for name in ("boxes", "labels", "scores", "masks") if name in found]
    return [tensor for part in found for tensor in _flat(part)]


def _rcnn(name: str, title: str, quick: bool) -> Network:
    from fastcv.models import detection

    height, width = (48, 64) if quick else (480, 640)
    options = {"min_size": 64, "rpn_post_nms_top_n_test": 50, "box_detections_per_img": 5} if quick else {}
    torch.manual_seed(0)
    ours = getattr(detection, name)(**options)
    spread(ours, image(height, width))
    theirs = require("torchvision.models.detection", f"the comparison of {name}")
    plain = getattr(theirs, name)(weights=None, weights_backbone=None, **options)
    plain.load_state_dict(ours.state_dict())
    return Network(
        f"{title} R50-FPN, an image of {height}×{width}", image(height, width), ours.optimize(), plain.eval(), True
    )


def _yolo(quick: bool) -> Network:
    from fastcv.models import create_model

    side = 64 if quick else 416
    torch.manual_seed(0)
    plain = create_model("yolov3_tiny", size=side).network
    spread(plain, image(side, side))
    return Network(f"YOLOv3-tiny {side}, the network", image(side, side)[None], copy.deepcopy(plain).optimize(), plain)


def _unet(quick: bool) -> Network:
    import fastcv
    from fastcv.models.segmentation import UNet

    side, width = (32, 8) if quick else (256, 64)
    torch.manual_seed(0)
    ours = UNet(3, 2, base_channels=width)
    spread(ours, image(side, side))
    plain = copy.deepcopy(ours)
    plain.pool = nn.MaxPool2d(2)  # type: ignore[assignment]
    for i, layer in enumerate(plain.upsample):
        assert isinstance(layer, nn.ConvTranspose2d)
        twin = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, 2, stride=2)
        twin.load_state_dict(layer.state_dict())
        plain.upsample[i] = twin
    title = f"U-Net, {width} to {16 * width} channels, an image of {side}×{side}"
    return Network(title, image(side, side)[None], fastcv.optimize(ours), plain.eval())


MODELS: dict[str, Callable[[bool], Network]] = {
    "fasterrcnn_resnet50_fpn": partial(_rcnn, "fasterrcnn_resnet50_fpn", "Faster R-CNN"),
    "maskrcnn_resnet50_fpn": partial(_rcnn, "maskrcnn_resnet50_fpn", "Mask R-CNN"),
    "yolov3_tiny": _yolo,
    "unet": _unet,
}
"""By name: makes the network, or with True a small form of it for a quick try."""


# ---- contenders ------------------------------------------------------------------------------------------------------


def _fastcv(network: Network, threads: int) -> Call:
    return lambda: network.run(network.ours)


def _pytorch(network: Network, threads: int) -> Call:
    return lambda: network.run(network.plain)


def _onnxruntime(network: Network, threads: int) -> Call:
    runtime = require("onnxruntime", "ONNX Runtime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or its threads take others' turns
    session = runtime.InferenceSession(str(network.onnx), options, providers=["CPUExecutionProvider"])
    sample = network.sample.numpy()
    name = session.get_inputs()[0].name
    return lambda: network.finish([torch.from_numpy(part) for part in session.run(None, {name: sample})])


def _openvino(network: Network, threads: int) -> Call:
    openvino = require("openvino", "OpenVINO")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(str(network.onnx)), "CPU", settings).create_infer_request()
    sample = network.sample.numpy()
    return lambda: network.finish([torch.from_numpy(part) for part in request.infer({0: sample}).values()])


CONTENDERS: dict[str, Callable[[Network, int], Call]] = {
    "fastcv": _fastcv,
    "PyTorch": _pytorch,
    "ONNX Runtime": _onnxruntime,
    "OpenVINO": _openvino,
}
"""By name: makes a function that runs a network on so many threads; torch's own number is set around its calls."""
