"""nms of so many boxes that the CUDA kernels look for neighbours by where they are; the CPU takes the same tests."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nms_by_class import by_class
from torch import Tensor

from fastcv.ops import batched_nms, batched_nms_padded, nms

NAN, INF = float("nan"), float("inf")


def spread_problem(kind: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """More than 6144 boxes, from which on the CUDA kernels find neighbours by where they are."""
    count = 6500
    generator = torch.Generator().manual_seed(len(kind))
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 3000 - 1500
    sides = 4 + 200 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    if kind == "of all sizes":
        sides *= 2.0 ** torch.randint(-12, 4, (count, 1), generator=generator)
    elif kind == "whole numbers":  # corners on the edges of cells, sides that are powers of two
        corner, sides = (corner / 32).round() * 32, 2.0 ** torch.randint(3, 8, (count, 2), generator=generator)
    elif kind == "pairs":  # each beside another, whose IoU is one step around the threshold
        corner[1::2], sides[1::2] = corner[::2], sides[::2]
        shift = sides[1::2, 0] * (1 - 0.5) / (1 + 0.5) * (1 + 1e-6 * torch.randn(count // 2, generator=generator))
        corner[1::2, 0] += shift
    elif kind == "far away":
        corner += 3e6
    elif kind == "a crowd":  # so dense that all behind a tile are looked at
        corner /= 10
    boxes = torch.cat([corner, corner + sides], dim=1)
    if kind == "wild":
        boxes[::50] *= 1e-14  # areas near the least that there are
        boxes[25::50] *= 1e15
        boxes[7::90] = torch.tensor([NAN, INF, -INF, 0.0, 3e38, -3e38]).double()[torch.randint(6, (73, 4))][:73]
        boxes[9::90, 2:] = boxes[9::90, :2]
    return boxes.to(dtype), torch.rand(count, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("threshold", [1 / 16, 0.5, 0.9])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("of one size", torch.float32),
        ("of all sizes", torch.float64),
        ("whole numbers", torch.float32),
        ("pairs", torch.float32),
        ("far away", torch.float32),
        ("a crowd", torch.float32),
        ("wild", torch.float32),
        ("wild", torch.float64),
    ],
)
def test_boxes_found_by_where_they_are(
    backend: Any, torchvision_ops: Any, kind: str, dtype: torch.dtype, threshold: float
) -> None:
    if backend.is_emulated and threshold != 0.5 and kind != "of all sizes":
        pytest.skip("one threshold is enough of what takes so long")
    boxes, scores = spread_problem(kind, dtype)
    expected = torchvision_ops.nms(boxes, scores, threshold)
    assert torch.equal(nms(boxes.to(backend.device), scores.to(backend.device), threshold).cpu(), expected)


def test_classes_found_by_where_they_are(backend: Any, torchvision_ops: Any) -> None:
    """Two long classes, many short ones, and two images at once."""
    boxes, scores = spread_problem("of one size", torch.float32)
    count = len(boxes) + 4000
    boxes, scores = torch.cat([boxes, boxes[:4000] + 1]), torch.cat([scores, scores[:4000] / 2])
    idxs = (torch.arange(count) % 9 // 4) * (1 + torch.arange(count) % 2000 // 1900 * torch.arange(count) % 70)
    expected = by_class(torchvision_ops, boxes, scores, idxs, 0.4)
    moved = [tensor.to(backend.device) for tensor in (boxes, scores, idxs)]
    assert torch.equal(batched_nms(*moved, 0.4).cpu(), expected)
    both = [torch.stack([tensor, tensor.flip(0)]) for tensor in moved]
    indices, counts = batched_nms_padded(*both, 0.4, count)
    for image, tensors in enumerate(zip(*both, strict=True)):
        expected = by_class(torchvision_ops, *(tensor.cpu() for tensor in tensors), 0.4)
        assert counts[image] == len(expected)
        assert torch.equal(indices[image, : len(expected)].cpu(), expected)
