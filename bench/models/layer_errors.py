"""Rounding errors of each convolution of a trained detector: ``python -m bench.models.layer_errors [WEIGHTS]``.

WEIGHTS is what ``fastcv.models.load_model`` takes (default: maskrcnn_scenes, which comes with the package), or a folder
with YOLOv3-tiny's published ``yolov3-tiny.weights``. The inputs are those that the layers get from generated scenes.
Errors are shares of the layer's largest output, against a convolution in float64; beside them those of torch's float32.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.data import synthetic_scenes
from fastcv.models import load_model
from fastcv.models.yolo import yolov3_tiny
from fastcv.nn import Conv2d

HELD_OUT_SEED = 1_000_003
IMAGES = 4


def load(weights: str) -> tuple[nn.Module, int]:
    """A detector, optimized, and the side of the images for it."""
    if Path(weights).is_dir():
        model: Any = yolov3_tiny(Path(weights) / "yolov3-tiny.weights")
        return model.eval().optimize(), 416
    model = load_model(weights)
    return model.eval().optimize(), 128


def errors(conv: Conv2d, input: Tensor) -> tuple[int, Tensor, Tensor]:
    """The tile that was taken, and all errors of fastcv and of torch, as shares of the largest output."""
    bias = None if conv.bias is None else conv.bias.double()
    form: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
    exact = F.conv2d(input.double(), conv.weight.double(), bias, *form)
    kept: Any = conv._packed
    kept.packed = {}
    ours = conv.convolve(input, None, None)
    theirs = F.conv2d(input, conv.weight, conv.bias, *form)
    (tile,) = kept.packed
    scale = exact.abs().amax()
    return tile, (ours - exact).abs().flatten() / scale, (theirs - exact).abs().flatten() / scale


def main(weights: str) -> None:
    """Print a line per convolution, in the order in which they run."""
    model, side = load(weights)
    names = {module: name for name, module in model.named_modules() if isinstance(module, Conv2d)}
    inputs: dict[Conv2d, Tensor] = {}
    kind: Any = Conv2d
    convolve = kind.convolve

    def note(self: Conv2d, input: Tensor, *arguments: Any, **options: Any) -> Tensor:
        if self not in inputs or input.numel() > inputs[self].numel():
            inputs[self] = input.clone()
        output: Tensor = convolve(self, input, *arguments, **options)
        return output

    data = synthetic_scenes(IMAGES, side, HELD_OUT_SEED)
    with torch.inference_mode():
        kind.convolve = note
        model([data[index][0] for index in range(len(data))])
        kind.convolve = convolve
    print(
        f"{'layer':36} {'channels':>11} {'tile':>4} {'median':>8} {'99.9 %':>8} {'largest':>8} {'torch, largest':>15}"
    )
    with torch.no_grad():
        for conv, input in inputs.items():
            tile, ours, theirs = errors(conv, input.clone())
            some = ours[:: max(1, ours.numel() // 1_000_000)]
            median, most = (float(torch.quantile(some, q)) for q in (0.5, 0.999))
            shape = f"{conv.in_channels}→{conv.out_channels}"
            name = names[conv]
            print(
                f"{name:36} {shape:>11} {tile:>4} {median:8.1e} {most:8.1e} {float(ours.amax()):8.1e} "
                f"{float(theirs.amax()):15.1e}"
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "maskrcnn_scenes")
