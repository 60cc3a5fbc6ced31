"""Max pooling with indices, and unpooling, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: tuple[int, int],
    stride: tuple[int, int] | None = None,
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Take the largest value of each window of (N, C, H, W), and its place ``y * W + x``."""
    n, c, height, width = input.shape
    steps = stride or kernel_size
    rows = _windows(height, kernel_size[0], steps[0], padding[0], dilation[0], ceil_mode)
    columns = _windows(width, kernel_size[1], steps[1], padding[1], dilation[1], ceil_mode)
    indices = torch.empty(n, c, len(rows), len(columns), dtype=torch.int64)
    planes = input.reshape(n * c, height, width)
    for plane in range(n * c):
        pixels = planes[plane].tolist()
        for p, ys in enumerate(rows):
            for q, xs in enumerate(columns):
                indices.view(n * c, len(rows), len(columns))[plane, p, q] = _leader(pixels, ys, xs, width)
    values = input.flatten(2).gather(2, indices.flatten(2).to(input.device))
    return values.reshape(indices.shape), indices


def _windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> list[list[int]]:
    """Return the places of each window along an axis, those inside the map."""
    windows: list[list[int]] = []
    start = -padding
    while True:
        places = [start + k * dilation for k in range(kernel)]
        if ceil_mode:
            # whole windows, and one more unless all of the map has been seen or it would begin behind the map
            if windows and (start >= size or places[-1] - (stride - 1) >= size + padding):
                return windows
        elif places[-1] >= size + padding:
            return windows
        windows.append([place for place in places if 0 <= place < size])
        start += stride


def _leader(plane: list[list[float]], ys: list[int], xs: list[int], width: int) -> int:
    leader, place = float("-inf"), ys[0] * width + xs[0]
    for y in ys:
        for x in xs:
            if plane[y][x] > leader or plane[y][x] != plane[y][x]:
                leader, place = plane[y][x], y * width + x
    return place


def max_unpool2d(values: Tensor, indices: Tensor, output_size: tuple[int, int]) -> Tensor:
    """Put values (N, C, P, Q) at their places in zeros (N, C, H, W), in order."""
    n, c = values.shape[:2]
    height, width = output_size
    output = values.new_zeros(n, c, height * width)
    flat_values, flat_indices = values.flatten(2), indices.flatten(2)
    for i in range(flat_values.shape[2]):
        output = output.scatter(2, flat_indices[:, :, i : i + 1], flat_values[:, :, i : i + 1])
    return output.reshape(n, c, height, width)
