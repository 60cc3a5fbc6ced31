"""Where a detector's time goes: ``python -m bench.models.profile_rcnn [MODEL] [PACKAGE] [optimize]``."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import Any

from bench.models.bench_rcnn import detector, image

STAGES = (
    "transform", "backbone.body", "backbone.fpn", "rpn.head", "rpn", "roi_heads.box_roi_pool", "roi_heads.box_head",
    "roi_heads.box_predictor", "roi_heads.mask_roi_pool", "roi_heads.mask_head", "roi_heads.mask_predictor",
    "roi_heads.keypoint_roi_pool", "roi_heads.keypoint_head", "roi_heads.keypoint_predictor",
)  # fmt: skip


def profile(package: str, name: str, how: str, rounds: int = 3) -> dict[str, float]:
    """Seconds of each stage, the least of several rounds; "rest" is what lies between them."""
    detect = detector(package, name, how)
    model: Any = next(cell.cell_contents for cell in detect.__closure__ or () if hasattr(cell.cell_contents, "rpn"))
    spent: dict[str, float] = defaultdict(float)

    def watch(stage: str, module: Any) -> None:
        forward = module.forward

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = forward(*args, **kwargs)
            spent[stage] += time.perf_counter() - start
            return result

        module.forward = timed

    for stage, module in model.named_modules():
        if stage in STAGES:
            watch(stage, module)
    least: dict[str, float] = {}
    for _ in range(rounds + 1):  # the first pays for memory
        spent.clear()
        start = time.perf_counter()
        detect([image()])
        total = time.perf_counter() - start
        spent["rpn"] -= spent["rpn.head"]
        spent["rest"] = total - sum(spent.values())
        if not least or total < sum(least.values()):
            least = dict(spent)
    return least


def main() -> None:
    """Print a line per stage."""
    name, package, how = [*sys.argv[1:], *("maskrcnn_resnet50_fpn", "fastcv", "")[len(sys.argv) - 1 :]][:3]
    stages = profile(package, name, "float32" if how else "")
    total = sum(stages.values())
    for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        print(f"{stage:28} {1e3 * seconds:9.1f} ms {100 * seconds / total:5.1f} %")
    print(f"{'total':28} {1e3 * total:9.1f} ms")


if __name__ == "__main__":
    main()
