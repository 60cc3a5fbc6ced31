"""Runs a detector of torchvision as it is, then with fastcv's operators in it, and draws times and results.

python examples/accelerate_torchvision.py            # Faster R-CNN with a MobileNet, random weights; a minute
python examples/accelerate_torchvision.py --short    # small images, in seconds
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import torch
from torch import Tensor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

import fastcv

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(words: list[str] | None = None) -> None:
    """Measure, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("accelerated.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="one round")
    chosen = parser.parse_args(words)
    torch.manual_seed(0)
    size = 160 if chosen.short else 480
    model = fasterrcnn_mobilenet_v3_large_fpn(
        weights=None, weights_backbone=None, min_size=size, box_score_thresh=0.0
    ).eval()
    images = [torch.rand(3, size, size * 4 // 3)]
    times: dict[str, list[float]] = {"torchvision": [], "with fastcv": []}
    for _ in range(1 if chosen.short else 7):  # they take turns
        plain, seconds = timed(model, images)
        times["torchvision"].append(seconds)
        with fastcv.accelerate_torchvision():
            found, seconds = timed(model, images)
        times["with fastcv"].append(seconds)
    print(f"{len(plain['boxes'])} boxes without, {len(found['boxes'])} with fastcv")
    draw({name: median(values) for name, values in times.items()}, chosen.output)


@torch.inference_mode()
def timed(model: Any, images: list[Tensor]) -> tuple[dict[str, Tensor], float]:
    """Return what a model finds in the first image, and how long it took."""
    start = time.perf_counter()
    (found,) = model(images)
    return found, time.perf_counter() - start


def draw(times: dict[str, float], path: Path) -> None:
    """Draw a bar for each."""
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    bars = axes.barh(list(times), [1e3 * seconds for seconds in times.values()], color=["#b23a48", "#1f5f99"])
    axes.bar_label(bars, fmt="%.0f ms", padding=4)
    axes.set(xlabel="milliseconds for an image", title="Faster R-CNN, MobileNetV3-Large, the same weights")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"{path}: times of the detector with and without fastcv's operators")


if __name__ == "__main__":
    main()
