"""YOLO from an image to its detections by fastcv, OpenCV's dnn and OpenVINO: the contenders of ``yolo_speed``.

All have the same weights, the same image, which has the network's size already, and the same least score and overlap.
OpenCV decodes and suppresses by its own means; OpenVINO's maps are decoded by torch's operations and suppressed by
OpenCV, as its samples do it.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastcv._optional import require
from fastcv.models.yolo import YOLO

__all__ = ["CONTENDERS", "Detect"]

Detect = Callable[[Tensor], tuple[Any, Any, Any]]
"""From an image (3, H, W) to boxes, x1, y1, x2, y2, scores and labels."""


def fastcv(model: YOLO, threads: int) -> Detect:
    """The model, optimized."""
    model = model if model.optimized else model.optimize()

    def detect(image: Tensor) -> tuple[Any, Any, Any]:
        with torch.inference_mode():
            (found,) = model([image])
        return found["boxes"], found["scores"], found["labels"]

    return detect


def opencv(model: YOLO, threads: int) -> Detect:
    """``cv2.dnn``, which reads Darknet's files. ``model`` must not be optimized."""
    cv2 = require("cv2", "OpenCV's dnn")
    with tempfile.TemporaryDirectory() as folder:
        text = re.sub(r"^thresh=.*\n", "", model.network.config.text, flags=re.MULTILINE)
        text = re.sub(
            r"^\[(yolo|region)\]\n", r"[\1]\nthresh=0.0001\n", text, flags=re.MULTILINE
        )  # lower ones are lost
        Path(folder, "net.cfg").write_text(text)
        model.network.save_weights(Path(folder, "net.weights"))
        net = cv2.dnn.readNetFromDarknet(str(Path(folder, "net.cfg")), str(Path(folder, "net.weights")))
    names = net.getUnconnectedOutLayersNames()
    _, height, width = model.network.input_shape

    def detect(image: Tensor) -> tuple[Any, Any, Any]:
        cv2.setNumThreads(threads)
        net.setInput(image[None].numpy())
        rows = np.concatenate(net.forward(names))  # centre, size, confidence, scores
        row, label = np.nonzero(rows[:, 5:] >= model.score_thresh)
        place = rows[row, :4] * np.array([width, height, width, height], np.float32)
        corners = np.concatenate([place[:, :2] - place[:, 2:] / 2, place[:, :2] + place[:, 2:] / 2], 1)
        return suppressed(cv2, corners, rows[row, 5 + label], label, model)

    return detect


def openvino(model: YOLO, threads: int) -> Detect:
    """The network by OpenVINO in float32. ``model`` must not be optimized."""
    runtime, cv2 = require("openvino", "OpenVINO"), require("cv2", "OpenCV's suppression")
    sample = torch.zeros(1, *model.network.input_shape)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = str(Path(folder, "net.onnx"))
        torch.onnx.export(model.network, (sample,), path, dynamo=False, input_names=["image"], opset_version=17)
        core = runtime.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def detect(image: Tensor) -> tuple[Any, Any, Any]:
        maps = [torch.from_numpy(part) for part in request.infer({0: image[None].numpy()}).values()]
        with torch.inference_mode():
            (boxes,), (scores,) = model.decode(maps)
        row, label = (part.numpy() for part in (scores >= model.score_thresh).nonzero().unbind(1))
        return suppressed(cv2, boxes.numpy()[row], scores.numpy()[row, label], label, model)

    return detect


def suppressed(cv2: Any, corners: Any, scores: Any, labels: Any, model: YOLO) -> tuple[Any, Any, Any]:
    """Return what OpenCV's suppression by class leaves, the best first, and the boxes within the image."""
    _, height, width = model.network.input_shape
    sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    kept = cv2.dnn.NMSBoxesBatched(
        sizes.tolist(), scores.tolist(), labels.tolist(), model.score_thresh, model.nms_thresh
    )
    kept = np.asarray(kept, np.int64).reshape(-1)
    kept = kept[np.argsort(-scores[kept], kind="stable")][: model.detections_per_img]
    return corners[kept].clip(0, [width, height, width, height]), scores[kept], labels[kept]


CONTENDERS: dict[str, Callable[[YOLO, int], Detect]] = {"fastcv": fastcv, "OpenCV": opencv, "OpenVINO": openvino}
"""By name: makes the function that detects, for so many threads."""
