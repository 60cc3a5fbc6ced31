"""The regions that the demo crops: squares around what is found."""

from __future__ import annotations

import torch
from torch import Tensor

ROOM = 1.15  # side of a region, relative to the longer side of its box


def squares_around(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return a square around each box, moved into the image and at most as large as its shorter side.

    Parameters
    ----------
    boxes
        (K, 4), x1, y1, x2, y2 in pixels.
    height, width
        Of the image.
    """
    side = (ROOM * (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)).clamp(min=1, max=min(height, width))
    corner = (boxes[:, :2] + boxes[:, 2:] - side) / 2
    corner = torch.minimum(corner.clamp(min=0), torch.tensor([width, height]) - side)
    return torch.cat([corner, corner + side], 1)


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
