"""Transposed convolution as a matrix: the matrix of a convolution, its transpose, and what both do; draws them.

python examples/transposed_convolution_matrix.py              # kernel 4, stride 2, padding 1
python examples/transposed_convolution_matrix.py --short      # the same: it takes no time
python examples/transposed_convolution_matrix.py --stride 3   # another one
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcv.ops import conv_transpose1d, conv_transpose_matrix

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(words: list[str] | None = None) -> None:
    """Compare, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--padding", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=6, help="length of the small signal")
    parser.add_argument("--output", type=Path, default=Path("matrix.png"), help="PNG file for the picture")
    parser.add_argument("--short", action="store_true", help="the same")
    chosen = parser.parse_args(words)
    weight = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    stride, padding = chosen.stride, chosen.padding
    upward = conv_transpose_matrix(weight, stride, padding, chosen.inputs)  # (large, small)
    downward = upward.T  # the matrix of the convolution with that stride and padding

    large = torch.sin(torch.linspace(0, 6.3, upward.shape[0]))
    small = F.conv1d(large[None, None], weight[None, None], stride=stride, padding=padding)[0, 0]
    torch.testing.assert_close(downward @ large, small)
    print(f"convolution:            {len(large)} -> {len(small)} values, a matrix of {tuple(downward.shape)}")

    grown = conv_transpose1d(small[None, None], weight[None, None], stride=stride, padding=padding)[0, 0]
    torch.testing.assert_close(upward @ small, grown)
    print(f"transposed convolution: {len(small)} -> {len(grown)} values, its transpose: {tuple(upward.shape)}")
    print(f"it undoes the shape, not the values: they differ by {float((grown - large).abs().max()):.2f} at most")
    draw(downward, upward, {"signal": large, "convolved": small, "and transposed": grown}, chosen.output)


def draw(downward: Tensor, upward: Tensor, signals: dict[str, Tensor], path: Path) -> None:
    """Draw both matrices, with their numbers, and the three signals."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.5), layout="constrained")
    for axis, matrix, title in zip(axes, (downward, upward), ("convolution", "transposed"), strict=False):
        axis.imshow(matrix, cmap="YlGnBu", vmin=0, vmax=1.2)
        for row, column in torch.nonzero(matrix).tolist():
            axis.text(column, row, f"{float(matrix[row, column]):g}", ha="center", va="center", fontsize=8)
        axis.set(title=f"{title}: {matrix.shape[0]} x {matrix.shape[1]}", xlabel="input", ylabel="output")
    for (name, signal), colour in zip(signals.items(), ("#1f5f99", "#b23a48", "#2a9d8f"), strict=True):
        axes[2].plot(torch.linspace(0, 1, len(signal)), signal, "o-", color=colour, label=f"{name}: {len(signal)}")
    axes[2].legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)
    print(f"{path}: both matrices; a signal, convolved, and brought back to its length")


if __name__ == "__main__":
    main()
