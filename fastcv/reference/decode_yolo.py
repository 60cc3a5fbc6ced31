"""YOLO's heads, one number at a time (Redmon et al. 2016, section 2; Redmon, Farhadi 2016, 2018, section 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Found = tuple[list[float], float, int]


def decode_yolo(
    output: Tensor,
    anchors: Sequence[Sequence[float]],
    image_size: Sequence[int],
    score_threshold: float,
    max_output: int,
    softmax: bool = False,
    scale_xy: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decode maps (N, A (5 + K), H, W)."""
    rows, columns = output.shape[2:]

    def boxes(image: Tensor) -> Iterator[Found]:
        numbers = image.reshape(len(anchors), -1, rows, columns).tolist()
        for y in range(rows):
            for x in range(columns):
                for anchor, values in zip(anchors, numbers, strict=True):
                    cx, cy, w, h, confidence, *classes = (value[y][x] for value in values)
                    centre = [
                        (cell + scale_xy * _logistic(value) - (scale_xy - 1) / 2) * size / cells
                        for cell, value, size, cells in (
                            (x, cx, image_size[1], columns),
                            (y, cy, image_size[0], rows),
                        )
                    ]
                    half = [_exp(w) * anchor[0] / 2, _exp(h) * anchor[1] / 2]
                    chances = _softmax(classes) if softmax else [_logistic(value) for value in classes]
                    for label, chance in enumerate(chances):
                        yield _corners(centre, half), _logistic(confidence) * chance, label

    return _collect(output, boxes, score_threshold, max_output)


def decode_yolo_v1(
    output: Tensor,
    side: int,
    boxes: int,
    image_size: Sequence[int],
    score_threshold: float,
    max_output: int,
    softmax: bool = False,
    square: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decode numbers (N, S S (K + 5 B))."""
    cells = side * side
    classes = output.shape[1] // cells - 5 * boxes

    def found(image: Tensor) -> Iterator[Found]:
        numbers = image.tolist()
        for cell in range(cells):
            chances = numbers[cell * classes : (cell + 1) * classes]
            for box in range(cell * boxes, (cell + 1) * boxes):
                confidence = numbers[cells * classes + box]
                x, y, w, h = numbers[cells * (classes + boxes) + 4 * box :][:4]
                centre = [(cell % side + x) * image_size[1] / side, (cell // side + y) * image_size[0] / side]
                w, h = (w * w, h * h) if square else (max(w, 0.0), max(h, 0.0))
                for label, chance in enumerate(_softmax(chances) if softmax else chances):
                    yield _corners(centre, [w * image_size[1] / 2, h * image_size[0] / 2]), confidence * chance, label

    return _collect(output, found, score_threshold, max_output)


def _collect(output: Tensor, boxes: object, threshold: float, capacity: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if output.dtype is torch.float64 else torch.float32
    size = (len(output), capacity)
    results = (
        torch.zeros(*size, 4, dtype=dtype),
        torch.full(size, -torch.inf, dtype=dtype),
        torch.full(size, -1),
        torch.zeros(len(output), dtype=torch.int64),
    )
    for index, image in enumerate(output):
        kept = [found for found in boxes(image) if found[1] >= threshold]  # type: ignore[operator]
        best = sorted(range(len(kept)), key=lambda i: -kept[i][1])[:capacity]  # stable
        for place, i in enumerate(sorted(best)):
            for result, value in zip(results, kept[i], strict=False):
                result[index, place] = torch.as_tensor(value, dtype=result.dtype)
        results[3][index] = len(best)
    return results


def _corners(centre: list[float], half: list[float]) -> list[float]:
    return [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _logistic(x: float) -> float:
    return 1 / (1 + _exp(-x))


def _softmax(values: list[float]) -> list[float]:
    powers = [_exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]
