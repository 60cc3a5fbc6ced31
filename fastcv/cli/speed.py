"""Speed of ``roi_align`` compared with torchvision's, where that is installed."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

ROUNDS = 7
REMEDY = "install torch and torchvision from the same index"
Operator = Callable[..., Any]


@dataclass(frozen=True)
class Speed:
    """Median seconds of fastcv and torchvision for one workload and number of threads."""

    workload: str
    threads: int
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """The speed of fastcv relative to torchvision."""
        return self.theirs / self.ours


def load_torchvision() -> Operator | str:
    """Return torchvision's roi_align, or the reason why it is not available."""
    try:
        roi_align = importlib.import_module("torchvision.ops").roi_align
    except ImportError:
        return "torchvision is not installed"
    except (OSError, RuntimeError) as error:
        return f"torchvision does not load ({str(error).splitlines()[0]}): {REMEDY}"
    # torchvision can be imported even if its extension does not fit the installed torch; then its calls fail.
    if not hasattr(torch.ops.torchvision, "roi_align"):
        return f"torchvision's compiled ops do not load with this torch: {REMEDY}"
    assert callable(roi_align)
    return roi_align  # type: ignore[no-any-return]


def detector_workload() -> tuple[Tensor, Tensor]:
    """Return features (2, 256, 50, 84) of two 800x1333 images at stride 16, and boxes (1000, 5)."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 256, 50, 84, generator=generator)
    sides = 4 + 200 * torch.rand(1000, 2, generator=generator)
    corner = torch.rand(1000, 2, generator=generator) * (torch.tensor([1333.0, 800.0]) - sides)
    image = torch.randint(2, (1000, 1), generator=generator).float()
    return features, torch.cat([image, corner, corner + sides], dim=1)


def compare(photo: Tensor, regions: Tensor, size: int, theirs: Operator) -> list[Speed]:
    """Measure the demo's workload and that of a detector, on one thread and on all threads.

    Parameters
    ----------
    photo
        (3, H, W).
    regions
        (K, 4); without any, there is only the detector's workload.
    size
        Height and width of the crops.
    theirs
        torchvision's roi_align.
    """
    from fastcv.ops import roi_align as ours

    features, boxes = detector_workload()
    rois = torch.cat([torch.zeros(len(regions), 1), regions], dim=1)
    workloads: dict[str, Callable[[Operator], Any]] = {
        f"roi_align: {len(regions)} crops of {size}x{size}": (lambda op: op(photo[None], rois, size, 1.0, -1, True)),
        "roi_align: 1000 RoIs, 256 channels": lambda op: op(features, boxes, 7, 1 / 16, 2),
    }
    if not len(regions):
        del workloads[next(iter(workloads))]
    all_threads = torch.get_num_threads()
    results = []
    try:
        for name, run in workloads.items():
            for threads in sorted({1, all_threads}):
                torch.set_num_threads(threads)
                seconds = take_turns([lambda run=run: run(ours), lambda run=run: run(theirs)])  # type: ignore[misc]
                results.append(Speed(name, threads, *seconds))
    finally:
        torch.set_num_threads(all_threads)
    return results


def compare_detector(photo: Tensor) -> Speed:
    """Measure a torchvision detector with random weights, with and without ``accelerate_torchvision``.

    ``photo`` is (3, H, W); the model resizes it to 320 pixels. Most of the time is spent in the backbone, which is not
    accelerated.
    """
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    import fastcv

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, box_score_thresh=0.0).eval()
    times: dict[bool, list[float]] = {True: [], False: []}
    for round_ in range(ROUNDS + 1):
        for accelerated, taken in times.items():
            with fastcv.accelerate_torchvision() if accelerated else nullcontext(), torch.no_grad():
                start = time.perf_counter()
                model([photo])
                if round_ > 0:
                    taken.append(time.perf_counter() - start)
    name = "Faster R-CNN (MobileNet), accelerated"
    return Speed(name, torch.get_num_threads(), median(times[True]), median(times[False]))


def take_turns(actions: list[Callable[[], Any]]) -> list[float]:
    """Return the median seconds of each action. They alternate, so that a slow moment of the machine affects all."""
    times: list[list[float]] = [[] for _ in actions]
    for round_ in range(ROUNDS + 1):
        for action, taken in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            if round_ > 0:  # the first round warms up
                taken.append(time.perf_counter() - start)
    return [median(taken) for taken in times]
