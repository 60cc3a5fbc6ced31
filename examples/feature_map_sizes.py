"""Sizes of feature maps with and without padding: by the formula, and by running the layers; draws the maps.

python examples/feature_map_sizes.py              # AlexNet's convolutions on 227 x 227
python examples/feature_map_sizes.py --short      # on 99 x 99
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from matplotlib.cbook import get_sample_data
from torch import Tensor
from torch.nn import functional as F

from fastcv.data.images import open_image, to_tensor
from fastcv.ops import conv2d, roi_align

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# name, channels, kernel, stride, padding; a pooling has no channels
LAYERS = (
    ("conv1", 96, 11, 4, 0), ("pool1", 0, 3, 2, 0), ("conv2", 256, 5, 1, 2), ("pool2", 0, 3, 2, 0),
    ("conv3", 384, 3, 1, 1), ("conv4", 384, 3, 1, 1), ("conv5", 256, 3, 1, 1), ("pool5", 0, 3, 2, 0),
)  # fmt: skip


def main(words: list[str] | None = None) -> None:
    """Print the table, and draw both rows of maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("sizes.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="a small image")
    chosen = parser.parse_args(words)
    photo = to_tensor(open_image(str(get_sample_data("grace_hopper.jpg", asfileobj=False))))
    image = roi_align(photo[None], [torch.tensor([[96.0, 0.0, 416.0, 320.0]])], 99 if chosen.short else 227)
    rows = {"padded as in AlexNet": maps(image, True), "no padding": maps(image, False)}
    print(f"{'layer':8}{'kernel':>8}{'stride':>8}{'padding':>9}" + "".join(f"{title:>28}" for title in rows))
    for index, (name, _, kernel, stride, padding) in enumerate(LAYERS, start=1):
        sizes = [f"{row[index].shape[1]} x {row[index].shape[2]}" if index < len(row) else "–" for row in rows.values()]
        print(f"{name:8}{kernel:8}{stride:8}{padding:9}" + "".join(f"{text:>28}" for text in sizes))
    draw(rows, chosen.output)


@torch.inference_mode()
def maps(x: Tensor, padded: bool) -> list[Tensor]:
    """Return the image and the map (C, H, W) of every layer, with random weights, until nothing is left."""
    torch.manual_seed(0)
    found = [x[0]]
    for _, channels, kernel, stride, padding in LAYERS:
        padding = padding if padded else 0
        places = (x.shape[-1] + 2 * padding - kernel) // stride + 1  # of the kernel, which moves by the stride
        if places < 1:
            break
        weight = torch.randn(channels, x.shape[1], kernel, kernel) / (x.shape[1] * kernel**2) ** 0.5
        x = conv2d(x, weight, None, stride, padding).relu() if channels else F.max_pool2d(x, kernel, stride)
        assert x.shape[-2:] == (places, places)
        found.append(x[0])
    return found


def draw(rows: dict[str, list[Tensor]], path: Path) -> None:
    """Draw one channel of each map."""
    figure, axes = plt.subplots(2, len(LAYERS) + 1, figsize=(18, 4.6), layout="constrained")
    for line, (title, row) in zip(axes, rows.items(), strict=True):
        for axis, one, name in zip(line, row, ["image", *(layer[0] for layer in LAYERS)], strict=False):
            axis.imshow(one.permute(1, 2, 0) if len(one) == 3 else one[one.sum((1, 2)).argmax()], cmap="turbo")
            axis.set_title(f"{name}\n{one.shape[1]} x {one.shape[2]}", fontsize=10)
        line[0].set_ylabel(title)
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
    figure.savefig(path, dpi=70)
    plt.close(figure)
    print(f"{path}: the strongest channel of each map")


if __name__ == "__main__":
    main()
