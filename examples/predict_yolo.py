"""Finds objects in a photograph with YOLOv3-tiny, and draws them. Needs Darknet's file yolov3-tiny.weights.

FASTCV_YOLOV3_TINY=folder python examples/predict_yolo.py photo.jpg
FASTCV_YOLOV3_TINY=folder python examples/predict_yolo.py --short    # matplotlib's portrait
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from matplotlib.cbook import get_sample_data

import fastcv
from fastcv.data.images import open_image, to_tensor
from fastcv.models import create_model

LEAST_SCORE = 0.3


def main(words: list[str] | None = None) -> None:
    """Find, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", help="file; default: the portrait that matplotlib ships")
    parser.add_argument("--output", type=Path, default=Path("found.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="the same: it takes less than a second")
    chosen = parser.parse_args(words)
    folder = os.environ.get("FASTCV_YOLOV3_TINY")
    if folder is None:
        print("FASTCV_YOLOV3_TINY is not set: the folder with yolov3-tiny.weights, of pjreddie.com/darknet/yolo")
        return
    model = create_model("yolov3_tiny", weights=Path(folder) / "yolov3-tiny.weights").eval()
    photo = open_image(chosen.photo or str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    with torch.inference_mode():
        (answer,) = model([to_tensor(photo)])
    found = fastcv.Detections.from_model(answer, model, image=photo).filter(score=LEAST_SCORE)
    print(found)
    found.save(chosen.output)
    print(f"{chosen.output}: objects with a score of {LEAST_SCORE} or more")


if __name__ == "__main__":
    main()
