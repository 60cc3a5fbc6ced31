"""Detection in large images: tile by tile, so that small objects keep their size."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from fastcv.ops.nms import batched_nms

__all__ = ["predict_sliced", "tiles"]

_PART = 0.7  # a box is a part of another if more of it than this lies inside


def tiles(height: int, width: int, size: int, overlap: float = 0.2) -> list[tuple[int, int, int, int]]:
    """Return the tiles x1, y1, x2, y2 that cover an image, spread evenly, row by row.

    Parameters
    ----------
    height, width : int
        Of the image.
    size : int
        Height and width of a tile; less where the image has less.
    overlap : float
        Least share of a tile that it has in common with the next, from 0 to 0.9.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if not 0 <= overlap <= 0.9:
        raise ValueError(f"overlap must be from 0 to 0.9, got {overlap}")

    def starts(length: int) -> list[int]:
        if length <= size:
            return [0]
        step = max(1, size - ceil(size * overlap))
        count = ceil((length - size) / step) + 1
        return [round(index * (length - size) / (count - 1)) for index in range(count)]

    return [(x, y, min(x + size, width), min(y + size, height)) for y in starts(height) for x in starts(width)]


def predict_sliced(
    model: nn.Module,
    image: Tensor,
    size: int = 640,
    overlap: float = 0.2,
    *,
    iou_threshold: float = 0.5,
    batch: int = 1,
    whole: bool = True,
    mask_threshold: float | None = None,
) -> dict[str, Tensor]:
    """Detect objects in tiles of an image, and once in the whole of it, and merge what is found.

    Parameters
    ----------
    model : nn.Module
        A detector: from a list of images to a list of dictionaries, as those of this package and of torchvision.
    image : Tensor (3, H, W)
        As the model expects it.
    size, overlap
        Of :func:`tiles`. Objects smaller than the overlap, ``size * overlap`` pixels, are whole in some tile.
    iou_threshold : float
        Of two boxes of a class that overlap by more, the one with the lower score is dropped.
    batch : int
        Tiles that go through the model together.
    whole : bool
        Whether to look at the whole image as well, for objects that are larger than a tile.
    mask_threshold : float, optional
        Return masks as ``probability > mask_threshold``: a quarter of the memory, which large images need.

    Returns
    -------
    dict of str to Tensor
        What the model returns for one image, in pixels of the image, by descending score.

    Notes
    -----
    A box of which more than 0.7 lies in a larger box of its class from another tile is a part of that object, and
    dropped, if its score is lower, or if it ends at a border of its own tile. It is not if its own tile has that larger
    object as well: a tile that sees two objects is believed. An image of a single tile goes through the model as it is.

    References
    ----------
    Akyon, Altinuc, Temizel: Slicing Aided Hyper Inference (2022).

    Examples
    --------
    >>> from fastcv.models import load_model
    >>> model, image = load_model("maskrcnn_scenes").eval(), torch.rand(3, 300, 500)
    >>> found = predict_sliced(model, image, size=640, batch=4)
    >>> fastcv.Detections.from_model(found, model, image=image).save("found.png")
    """
    if not isinstance(image, Tensor) or image.dim() != 3:
        got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"image must be a tensor (3, H, W), got {got}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    height, width = image.shape[-2:]
    places = tiles(height, width, size, overlap)
    with torch.no_grad():
        if len(places) == 1:
            return _thresholded(model([image])[0], mask_threshold)
        found: list[dict[str, Tensor]] = []
        for start in range(0, len(places), batch):
            parts = model([image[:, y1:y2, x1:x2] for x1, y1, x2, y2 in places[start : start + batch]])
            found += [_thresholded(part, mask_threshold) for part in parts]
        if whole:
            found.append(_thresholded(model([image])[0], mask_threshold))
            places.append((0, 0, width, height))
        return _merged(found, places, (height, width), iou_threshold)


def _thresholded(found: dict[str, Tensor], threshold: float | None) -> dict[str, Tensor]:
    if threshold is None or "masks" not in found:
        return found
    return found | {"masks": found["masks"] > threshold}


def _merged(
    found: Sequence[dict[str, Tensor]],
    places: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
    iou_threshold: float,
) -> dict[str, Tensor]:
    moved = [part["boxes"] + part["boxes"].new_tensor(place[:2] * 2) for part, place in zip(found, places, strict=True)]
    boxes = torch.cat(moved)
    scores, labels = (torch.cat([part[name] for part in found]) for name in ("scores", "labels"))
    cut = torch.cat([_is_cut(one, place, size) for one, place in zip(moved, places, strict=True)])
    tile = torch.cat([torch.full_like(part["labels"], index) for index, part in enumerate(found)])
    part = _is_part(*(rows.cpu() for rows in (boxes, scores, labels, tile, cut))).to(boxes.device)
    kept = (~part).nonzero()[:, 0]
    kept = kept[batched_nms(boxes[kept], scores[kept], labels[kept], iou_threshold)]
    first = torch.tensor([0, *(len(part["boxes"]) for part in found)], device=kept.device).cumsum(0)
    result = {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
    rows = list(zip(tile[kept].tolist(), (kept - first[tile[kept]]).tolist(), strict=True))
    if "masks" in found[0]:
        example = found[0]["masks"]
        masks = example.new_zeros((len(rows), *example.shape[1:-2], *size))
        for out, (index, row) in enumerate(rows):
            x1, y1, x2, y2 = places[index]
            masks[out, ..., y1:y2, x1:x2] = found[index]["masks"][row]
        result["masks"] = masks
    if "keypoints" in found[0]:
        points = [
            part["keypoints"] + part["keypoints"].new_tensor((*place[:2], 0))
            for part, place in zip(found, places, strict=True)
        ]
        result["keypoints"] = torch.cat(points)[kept]
    for name in found[0]:
        if name not in result:
            result[name] = torch.cat([part[name] for part in found])[kept]
    return result


def _is_cut(boxes: Tensor, place: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    """Whether a box ends at a border of its tile that is none of the image."""
    x1, y1, x2, y2 = place
    near = max(2.0, 0.01 * max(x2 - x1, y2 - y1))  # pixels
    low: list[Any] = [x1 + near if x1 > 0 else -torch.inf, y1 + near if y1 > 0 else -torch.inf]
    high: list[Any] = [x2 - near if x2 < size[1] else torch.inf, y2 - near if y2 < size[0] else torch.inf]
    return ((boxes[:, :2] <= boxes.new_tensor(low)) | (boxes[:, 2:] >= boxes.new_tensor(high))).any(1)


def _is_part(boxes: Tensor, scores: Tensor, labels: Tensor, tile: Tensor, cut: Tensor) -> Tensor:
    """Whether a box is a part of a larger one of its class that another tile has; see the notes."""
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    part = torch.zeros_like(cut)
    for row in range(len(boxes)):
        holds = (labels == labels[row]) & (tile != tile[row]) & (areas > areas[row])
        holds &= _shared(boxes[row], boxes) > _PART * areas[row]
        if not bool(cut[row]):
            holds &= scores > scores[row]
        own = ((tile == tile[row]) & (labels == labels[row])).nonzero()[:, 0]
        own = own[own != row]
        for other in holds.nonzero()[:, 0].tolist():
            shared = _shared(boxes[other], boxes[own])
            if not bool((shared > 0.5 * (areas[own] + areas[other] - shared)).any()):
                part[row] = True
                break
    return part


def _shared(box: Tensor, boxes: Tensor) -> Tensor:
    """Return the area that a box has in common with each of others."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    return (high - low).clamp(min=0).prod(1)
