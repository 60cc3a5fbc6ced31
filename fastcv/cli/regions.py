"""Selection and cropping of the regions that the demo shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8)  # side of a region, relative to the shorter side of the image
CANDIDATES = 200  # per scale
MOST_COVERED = 0.45  # fraction of the smaller of two regions that the other may cover
LEAST_SIDE = 8


def choose_regions(photo: Tensor, count: int, seed: int = 0) -> Tensor:
    """Choose square regions with much detail.

    The first is the largest centred square. The others are the most detailed of random candidates, of each size in
    turn, and overlap little as long as there is room.

    Parameters
    ----------
    photo
        (3, H, W).
    count
        Number of regions.
    seed
        Random seed of the candidates; the same seed gives the same regions.

    Returns
    -------
    Tensor
        (count, 4) float32 boxes x1, y1, x2, y2, on whole pixels.
    """
    height, width = photo.shape[-2:]
    short = min(height, width)
    left, top = (width - short) // 2, (height - short) // 2
    chosen = [torch.tensor([left, top, left + short, top + short])]
    generator = torch.Generator().manual_seed(seed)
    detail = detail_integral(photo)
    waiting = [sorted_candidates(detail, max(LEAST_SIDE, int(short * scale)), generator) for scale in SCALES]
    while len(chosen) < count:
        before = len(chosen)
        for candidates in waiting:
            # the first region covers everything: only the others must be apart
            apart = next_apart(candidates, chosen[1:])
            if apart is not None:
                chosen.append(apart)
        if len(chosen) == before:
            # no room is left: further regions overlap
            chosen.extend(candidates.pop(0) for candidates in waiting if candidates)
    return torch.stack(chosen[:count]).float()


def detail_integral(photo: Tensor) -> Tensor:
    """Return the integral image (H+1, W+1) of brightness differences between neighbouring pixels."""
    grey = photo.float().mean(0)
    steps = F.pad(grey.diff(dim=0).abs(), (0, 0, 0, 1)) + F.pad(grey.diff(dim=1).abs(), (0, 1))
    return F.pad(steps.double().cumsum(0).cumsum(1), (1, 0, 1, 0))


def sorted_candidates(integral: Tensor, side: int, generator: torch.Generator) -> list[Tensor]:
    """Return random squares of one size, the most detailed first."""
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    x = torch.randint(width - side + 1, (CANDIDATES,), generator=generator)
    y = torch.randint(height - side + 1, (CANDIDATES,), generator=generator)
    boxes = torch.stack([x, y, x + side, y + side], dim=1)
    quarter = side // 4
    middle = boxes + torch.tensor([quarter, quarter, -quarter, -quarter])
    # detail in the middle counts more, so that objects are shown whole
    score = total_inside(integral, boxes) + 2 * total_inside(integral, middle)
    return list(boxes[score.argsort(descending=True, stable=True)])


def total_inside(integral: Tensor, boxes: Tensor) -> Tensor:
    """Return the sum over each box (K, 4) from the integral image."""
    x1, y1, x2, y2 = boxes.unbind(1)
    return integral[y2, x2] - integral[y1, x2] - integral[y2, x1] + integral[y1, x1]


def next_apart(candidates: list[Tensor], chosen: list[Tensor]) -> Tensor | None:
    """Remove and return the first candidate that overlaps little with the chosen regions, or None."""
    for index, candidate in enumerate(candidates):
        if all(covered(candidate, other) <= MOST_COVERED for other in chosen):
            return candidates.pop(index)
    return None


def covered(a: Tensor, b: Tensor) -> float:
    """Return the fraction of the smaller box that the other one covers."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    areas = [int((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return int(sides.prod()) / min(areas)


def cut_out(photo: Tensor, regions: Tensor, size: int) -> Tensor:
    """Crop the regions and resize all of them to one size, in one call of ``roi_align``.

    Parameters
    ----------
    photo
        (3, H, W), values 0 to 1.
    regions
        (K, 4) boxes x1, y1, x2, y2 in pixels.
    size
        Height and width of the results.

    Returns
    -------
    Tensor
        (K, 3, size, size). Each pixel is the mean over the area that it covers.
    """
    from fastcv.ops import roi_align

    # aligned: integer coordinates are the edges of pixels, as in a crop
    return roi_align(photo[None], [regions], size, aligned=True)
