"""YOLO from an image to its detections, beside OpenCV's dnn and OpenVINO: ``python -m bench.models.yolo_speed``.

YOLOv3-tiny and the 13 × 13 × 125 network, 416 × 416 pixels, one image. All contenders take turns in one process. The
numbers are medians, of processor time with ``--cpu-time``, for one thread on a machine that does other things; "share"
is what decoding and suppression take of fastcv's time. With ``FASTCV_YOLOV3_TINY``, the folder of published weights,
the first has these; random ones otherwise. With random weights the least score is such that 100 boxes have it.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench.models.yolo_peers import CONTENDERS, Detect
from fastcv.models.yolo import YOLO, yolov2_tiny, yolov3_tiny

CANDIDATES = 100


@dataclass
class Result:
    """Medians of seconds by contender, and of fastcv's decoding and suppression."""

    title: str
    threads: int
    seconds: dict[str, float] = field(default_factory=dict)
    decoding: float = 0.0
    missing: dict[str, str] = field(default_factory=dict)

    def row(self) -> str:
        """Return a row of a table in Markdown."""
        ours = self.seconds["fastcv"]
        ratios = [f"{self.seconds[n] / ours:.2f}×" if n in self.seconds else "–" for n in CONTENDERS if n != "fastcv"]
        share = f"{100 * self.decoding / ours:.1f} %"
        return f"| {' | '.join([self.title, str(self.threads), f'{1e3 * ours:.1f} ms', share, *ratios])} |"


def make_image(size: int) -> Tensor:
    """Return an image (3, size, size): smooth colours with edges and some noise."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(0, 1, size)] * 2, indexing="ij")
    pattern = torch.stack([x, y, ((x * 16).floor() + (y * 12).floor()) % 2])
    return 0.8 * pattern + 0.2 * torch.rand(3, size, size, generator=generator)


def make_model(build: Callable[..., YOLO], size: int, weights: Path | None = None) -> YOLO:
    """Return a model, with a least score that many boxes have if it is not trained."""
    torch.manual_seed(0)
    if weights is not None:
        return build(weights, size=size)
    model = build(size=size)
    with torch.inference_mode():
        _, scores = model.decode(model.network(make_image(size)[None]))
    model.score_thresh = float(
        scores.flatten().topk(CANDIDATES + 1).values[-2:].mean()
    )  # no tie for rounding to decide
    return model


def measure(
    title: str, model: YOLO, threads: int, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> Result:
    """Measure all contenders that there are, in turns."""
    image = make_image(model.network.input_shape[1])
    result, detectors = Result(title, threads), dict[str, Detect]()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name, make in CONTENDERS.items():
            try:
                detectors[name] = make(copy.deepcopy(model), threads)
                detectors[name](image)  # pays for memory
            except ImportError as error:
                result.missing[name] = str(error)
        stages = _stages(copy.deepcopy(model).optimize(), image)
        actions: dict[str, Callable[[], Any]] = {name: partial(detect, image) for name, detect in detectors.items()}
        actions[""] = stages
        taken: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(rounds):
            for name, action in actions.items():
                start = clock()
                action()
                taken[name].append(clock() - start)
    finally:
        torch.set_num_threads(before)
    result.decoding = median(taken.pop(""))
    result.seconds = {name: median(seconds) for name, seconds in taken.items()}
    return result


def _stages(model: YOLO, image: Tensor) -> Callable[[], Any]:
    """Return a function that decodes and suppresses the maps of the image."""
    with torch.inference_mode():
        batch, placements = model.preprocess([image])
        maps = model.network(batch)

    def decode() -> Any:
        with torch.inference_mode():
            found = model.postprocess(maps, placements)
            return found["count"].tolist()

    return decode


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--size", type=int, default=416)
    options = parser.parse_args(arguments)
    folder = os.environ.get("FASTCV_YOLOV3_TINY")
    weights = None if folder is None else Path(folder, "yolov3-tiny.weights")
    peers = " | ".join(f"against {name}" for name in CONTENDERS if name != "fastcv")
    print(f"| network | threads | fastcv | share | {peers} |\n|---|---:|---:|---:|{'---:|' * (len(CONTENDERS) - 1)}")
    models = {
        f"YOLOv3-tiny, {options.size}²": make_model(yolov3_tiny, options.size, weights),
        f"13 × 13 × 125, {options.size}²": make_model(yolov2_tiny, options.size),
    }
    for title, model in models.items():
        for threads in options.threads:
            clock = time.process_time if options.cpu_time else time.perf_counter
            result = measure(title, model, threads, options.rounds, clock)
            print(result.row(), flush=True)
            for name, why in result.missing.items():
                print(f"without {name}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
