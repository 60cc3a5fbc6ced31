"""Boxes as offsets, anchors, masks and the small box functions."""

from __future__ import annotations

from typing import Any

import torch
from op_case import Bad, Empty, OpCase, uniform
from torch import Tensor

from fastcv.ops import (
    anchor_grid,
    box_area,
    box_convert,
    clip_boxes_to_image,
    decode_anchors,
    decode_boxes,
    encode_boxes,
    masks_to_boxes,
    paste_masks,
    remove_small_boxes,
)

FLOATING = "must be float16, bfloat16, float32 or float64"
COO = "must be a dense tensor, got one of layout torch.sparse_coo"
zeros = torch.zeros


def boxes(seed: int, count: int = 5, side: float = 30.0) -> Tensor:
    """Rows of x1, y1, x2, y2."""
    corner = uniform(seed, count, 2, high=side)
    return torch.cat([corner, corner + uniform(seed + 9, count, 2, low=2, high=side)], 1)


def bad_weights(*others: Any) -> tuple[Bad, ...]:
    """What cannot be four floats."""
    wrong = (None, 3.0, (1.0, 2.0), (1.0, None, 1.0, 1.0), "four", *others)
    return tuple(Bad({"weights": value}, TypeError, f"weights must be 4 floats, got {value!r}") for value in wrong)


# ---- offsets ---------------------------------------------------------------------------------------------------------


def encoding(seed: int, count: int = 5) -> dict[str, Any]:
    return {
        "reference_boxes": boxes(seed, count),
        "proposals": boxes(seed + 1, count),
        "weights": (10.0, 8.0, 5.0, 4.0),
    }


def decoding(seed: int, count: int = 5, classes: int = 2) -> dict[str, Any]:
    deltas = uniform(seed, count, 4 * classes, low=-1, high=1)
    return {"deltas": deltas, "boxes": boxes(seed, count), "weights": (2.0, 3.0, 1.0, 1.5), "clip": 0.4}


ENCODE = OpCase(
    encode_boxes,
    encoding,
    large=lambda: encoding(0, 9000),
    differentiable=("reference_boxes", "proposals"),
    order=2,
    bad=(
        Bad({"reference_boxes": [1.0]}, TypeError, "reference_boxes must be a torch.Tensor, got list"),
        Bad({"proposals": 1}, TypeError, "proposals must be a torch.Tensor, got int"),
        Bad({"reference_boxes": zeros(5, 4).to_sparse()}, TypeError, f"reference_boxes {COO}"),
        Bad({"reference_boxes": zeros(5, 5)}, ValueError, "reference_boxes must have shape (N, 4), got (5, 5)"),
        Bad({"reference_boxes": zeros(5, 4).int()}, TypeError, f"reference_boxes {FLOATING}, got int32"),
        Bad({"proposals": zeros(2, 4)}, ValueError, "proposals must have shape (N, 4) = (5, 4), got (2, 4)"),
        Bad(
            {"proposals": zeros(5, 4)},
            TypeError,
            "proposals must have the dtype of reference_boxes (float64), got float32",
        ),
        Bad(
            {"proposals": zeros(5, 4, device="meta").double()},
            ValueError,
            "proposals must be on the device of reference_boxes (cpu), got meta",
        ),
        *bad_weights(),
    ),
    empty=(Empty({"reference_boxes": zeros(0, 4), "proposals": zeros(0, 4)}, (0, 4)),),
)
DECODE = OpCase(
    decode_boxes,
    decoding,
    large=lambda: decoding(0, 9000, 9),
    differentiable=("deltas", "boxes"),
    order=2,
    bad=(
        Bad({"deltas": None}, TypeError, "deltas must be a torch.Tensor, got NoneType"),
        Bad({"boxes": [[1.0]]}, TypeError, "boxes must be a torch.Tensor, got list"),
        Bad({"deltas": zeros(5, 6)}, ValueError, "deltas must have shape (N, 4 C), got (5, 6)"),
        Bad({"deltas": zeros(5)}, ValueError, "deltas must have shape (N, 4 C), got (5,)"),
        Bad({"deltas": zeros(5, 8).int()}, TypeError, f"deltas {FLOATING}, got int32"),
        Bad(
            {"deltas": zeros(1, 1).expand(2**16, 2**17)},
            ValueError,
            "deltas must have fewer than 2147483648 boxes, got 2147483648",
        ),
        Bad({"boxes": zeros(2, 4)}, ValueError, "boxes must have shape (N, 4) = (5, 4), got (2, 4)"),
        Bad({"boxes": zeros(5, 4).int()}, TypeError, "boxes must have the dtype of deltas (float64), got int32"),
        Bad({"boxes": zeros(5, 4, device="meta")}, ValueError, "boxes must be on the device of deltas (cpu), got meta"),
        *bad_weights(),
    ),
    empty=(
        Empty({"deltas": zeros(0, 12), "boxes": zeros(0, 4)}, (0, 12)),
        Empty({"deltas": zeros(5, 0)}, (5, 0)),
        Empty({"deltas": zeros(0, 0), "boxes": zeros(0, 4)}, (0, 0)),
    ),
)

# ---- anchors ---------------------------------------------------------------------------------------------------------


def levels(seed: int, scale: int = 1) -> dict[str, Any]:
    """Two levels of 3 and 2 anchors per place, 26 anchors for a scale of 1."""
    cells = [boxes(seed, 3), boxes(seed + 3, 2)]
    sizes = [(2 * scale, 3 * scale), (scale, 4 * scale)]
    return {"feature_sizes": sizes, "strides": [(8, 9), 16], "cell_anchors": cells}


COUNTS = "feature_sizes, strides and cell_anchors must have one entry per level, 1 to 16, got"
ONE = zeros(1, 4).double()
BAD_LEVELS = (
    Bad({"feature_sizes": [(2, 3)]}, ValueError, f"{COUNTS} 1, 2 and 2"),
    Bad({"feature_sizes": [], "strides": [], "cell_anchors": []}, ValueError, f"{COUNTS} 0, 0 and 0"),
    Bad(
        {"feature_sizes": [(1, 1)] * 17, "strides": [1] * 17, "cell_anchors": [ONE] * 17},
        ValueError,
        f"{COUNTS} 17, 17 and 17",
    ),
    Bad({"feature_sizes": 5}, TypeError, "feature_sizes must have one entry per level, got int"),
    Bad({"strides": None}, TypeError, "strides must have one entry per level, got NoneType"),
    Bad({"feature_sizes": [(2, 3), 5]}, TypeError, "feature_sizes[1] must be two ints (height, width), got 5"),
    Bad(
        {"feature_sizes": [(2, 3), (1.5, 2)]},
        TypeError,
        "feature_sizes[1] must be two ints (height, width), got (1.5, 2)",
    ),
    Bad({"feature_sizes": [(2, 3), (-1, 2)]}, ValueError, "feature_sizes[1] must be from 0 to 2147483647, got (-1, 2)"),
    Bad(
        {"feature_sizes": [(2, 3), (2**30, 2**30)]},
        ValueError,
        "feature_sizes must give fewer than 2147483648 anchors, got more at level 1, (1073741824, 1073741824) with 2 "
        "anchors per place",
    ),
    Bad(
        {"strides": ["wide", 1]}, TypeError, "strides[0] must be an int or two ints (vertical, horizontal), got 'wide'"
    ),
    Bad({"strides": [1, (2**40, 1)]}, ValueError, "strides[1] must be from 0 to 2147483647, got (1099511627776, 1)"),
    Bad({"cell_anchors": 3}, TypeError, "cell_anchors must be one (S, 4) tensor per level, got int"),
    Bad({"cell_anchors": [ONE, None]}, TypeError, "cell_anchors[1] must be a torch.Tensor, got NoneType"),
    Bad({"cell_anchors": [ONE, ONE[0]]}, ValueError, "cell_anchors[1] must have shape (S, 4), got (4,)"),
    Bad({"cell_anchors": [ONE.int(), ONE]}, TypeError, f"cell_anchors[0] {FLOATING}, got int32"),
    Bad(
        {"cell_anchors": [ONE, ONE.half()]},
        TypeError,
        "cell_anchors[1] must have the dtype of cell_anchors[0] (float64), got float16",
    ),
    Bad(
        {"cell_anchors": [ONE, ONE.to("meta")]},
        ValueError,
        "cell_anchors[1] must be on the device of cell_anchors[0] (cpu), got meta",
    ),
)
GRID = OpCase(
    anchor_grid,
    lambda seed: {**levels(seed), "images": 2},
    large=lambda: levels(0, 40),
    bad=(*BAD_LEVELS, Bad({"images": -1}, ValueError, "images must be at least 0, got -1")),
    empty=(
        Empty({"images": 0}, (0, 26, 4)),
        Empty({"feature_sizes": [(0, 3), (2, 0)]}, (2, 0, 4)),
        Empty({"cell_anchors": [zeros(0, 4)] * 2, "images": None}, (0, 4)),
    ),
)


def anchor_decoding(seed: int, count: int = 6, scale: int = 1) -> dict[str, Any]:
    indices = (uniform(seed + 1, count) * 26 * scale**2).long()
    deltas = uniform(seed, count, 4, low=-1, high=1)
    coding = {"weights": (2.0, 3.0, 1.0, 1.5), "clip": 0.4, "image_size": (20, 33)}
    return {"deltas": deltas, "indices": indices, **levels(seed, scale), **coding}


DECODE_ANCHORS = OpCase(
    decode_anchors,
    anchor_decoding,
    large=lambda: anchor_decoding(0, 9000, 40),
    bad=(
        Bad({"deltas": 3}, TypeError, "deltas must be a torch.Tensor, got int"),
        Bad({"deltas": zeros(6, 5)}, ValueError, "deltas must have shape (K, 4) or (B, K, 4), got (6, 5)"),
        Bad({"deltas": zeros(1, 6, 5)}, ValueError, "deltas must have shape (B, K, 4), got (1, 6, 5)"),
        Bad({"deltas": zeros(6, 4)}, TypeError, "deltas must have the dtype of cell_anchors[0] (float64), got float32"),
        Bad({"indices": [1]}, TypeError, "indices must be a torch.Tensor, got list"),
        Bad({"indices": zeros(6)}, TypeError, "indices must be int64, got float32"),
        Bad({"indices": zeros(6).int()}, TypeError, "indices must be int64, got int32"),
        Bad({"indices": zeros(2).long()}, ValueError, "indices must have shape (K,) = (6), got (2,)"),
        Bad(
            {"indices": zeros(6, device="meta").long()},
            ValueError,
            "indices must be on the device of cell_anchors[0] (cpu), got meta",
        ),
        Bad(
            {"indices": torch.tensor([0, 1, 26, 0, 0, -1])},
            ValueError,
            "indices must be places in the grid of 26 anchors, got 26 (number 2)",
            in_traces=False,
        ),
        Bad({"image_size": 5}, TypeError, "image_size must be two ints (height, width), got 5"),
        *bad_weights(),
        *BAD_LEVELS,
    ),
    empty=(
        Empty({"deltas": zeros(0, 4).double(), "indices": zeros(0).long()}, (0, 4)),
        Empty({"deltas": zeros(2, 0, 4).double(), "indices": zeros(2, 0).long()}, (2, 0, 4)),
        Empty({"deltas": zeros(0, 4).double(), "indices": zeros(0).long(), "feature_sizes": [(0, 3), (2, 0)]}, (0, 4)),
    ),
)

# ---- masks -----------------------------------------------------------------------------------------------------------

MASKS_TO_BOXES = OpCase(
    masks_to_boxes,
    lambda seed: {"masks": uniform(seed, 3, 8, 9) < 0.1},
    large=lambda: {"masks": uniform(0, 40, 60, 70) < 0.001},
    bad=(
        Bad({"masks": None}, TypeError, "masks must be a torch.Tensor, got NoneType"),
        Bad({"masks": zeros(2, 3, 4).to_sparse()}, TypeError, f"masks {COO}"),
        Bad({"masks": zeros(2, 4)}, ValueError, "masks must have shape (N, H, W), got (2, 4)"),
        Bad({"masks": zeros(1, 2, 3).cfloat()}, TypeError, "masks must be of a real dtype, got complex64"),
        Bad(
            {"masks": torch.ones(1, 1, 1, dtype=torch.bool).expand(1, 2**31, 1)},
            ValueError,
            "masks must have fewer than 2147483648 rows, got 2147483648",
        ),
    ),
    empty=tuple(
        Empty({"masks": zeros(shape)}, (shape[0], 4)) for shape in ((0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0, 0))
    ),
)


def pasting(seed: int, count: int = 3, size: tuple[int, int] = (20, 30)) -> dict[str, Any]:
    masks = uniform(seed, count, 1, 5, 5)
    return {"masks": masks, "boxes": boxes(seed, count, 15.0), "image_size": size, "padding": 1, "threshold": None}


BAD_PASTING = (
    Bad({"masks": [1.0]}, TypeError, "masks must be a torch.Tensor, got list"),
    Bad({"boxes": None}, TypeError, "boxes must be a torch.Tensor, got NoneType"),
    Bad({"masks": zeros(3, 4, 4)}, ValueError, "masks must have shape (N, 1, P, Q), got (3, 4, 4)"),
    Bad({"masks": zeros(3, 3, 4, 4)}, ValueError, "masks must have shape (N, 1, P, Q), got (3, 3, 4, 4)"),
    Bad({"masks": zeros(3, 1, 4, 4).int()}, TypeError, f"masks {FLOATING}, got int32"),
    Bad(
        {"masks": zeros(1, 1, 1, 1).expand(3, 1, 2**29, 1)},
        ValueError,
        "masks must have fewer than 268435457 rows, got 536870912",
    ),
    Bad({"boxes": zeros(2, 4)}, ValueError, "boxes must have shape (N, 4) = (3, 4), got (2, 4)"),
    Bad({"boxes": zeros(3, 5)}, ValueError, "boxes must have shape (N, 4) = (3, 4), got (3, 5)"),
    Bad({"boxes": zeros(3, 4).long()}, TypeError, f"boxes {FLOATING}, got int64"),
    Bad({"boxes": zeros(3, 4, device="meta")}, ValueError, "boxes must be on the device of masks (cpu), got meta"),
    Bad({"image_size": 5}, TypeError, "image_size must be two ints (height, width), got 5"),
    Bad({"image_size": ("a", 1)}, TypeError, "image_size must be two ints (height, width), got ('a', 1)"),
    Bad({"image_size": (5, -1)}, ValueError, "image_size must be at least 0, got (5, -1)"),
    Bad(
        {"image_size": (2**16, 2**15)},
        ValueError,
        "image_size must have fewer than 2147483648 pixels, got (65536, 32768)",
    ),
    Bad({"padding": -1}, ValueError, "padding must be from 0 to 268435456, got -1"),
    Bad({"padding": 1 << 40}, ValueError, "padding must be from 0 to 268435456, got 1099511627776"),
    Bad({"threshold": "half"}, TypeError, "threshold must be a float, got 'half'"),
)
PASTE_MASKS = OpCase(
    paste_masks,
    pasting,
    large=lambda: pasting(0, 3, (300, 500)),
    bad=BAD_PASTING,
    empty=(
        Empty({"masks": zeros(0, 1, 28, 28), "boxes": zeros(0, 4)}, (0, 1, 20, 30)),
        Empty({"image_size": (0, 7)}, (3, 1, 0, 7)),
        Empty({"image_size": (7, 0), "threshold": 0.5}, (3, 1, 7, 0)),
        *(Empty({"masks": zeros(shape)}, (3, 1, 20, 30)) for shape in ((3, 1, 0, 0), (3, 1, 3, 0), (3, 1, 0, 3))),
    ),
)
PASTE_MASKS_DECIDED = OpCase(paste_masks, lambda seed: {**pasting(seed), "threshold": 0.5})

# ---- functions made of torch's operations ----------------------------------------------------------------------------

BAD_BOXES = (
    Bad({"boxes": [1]}, TypeError, "boxes must be a torch.Tensor, got list"),
    Bad({"boxes": zeros(5, 4).to_sparse()}, TypeError, f"boxes {COO}"),
    Bad({"boxes": zeros(2, 3)}, ValueError, "boxes must have shape (..., 4), got (2, 3)"),
    Bad({"boxes": zeros(())}, ValueError, "boxes must have shape (..., 4), got ()"),
    Bad({"boxes": zeros(2, 4).bool()}, TypeError, "boxes must be of a floating or an integer dtype, got bool"),
    Bad({"boxes": zeros(2, 4).cfloat()}, TypeError, "boxes must be of a floating or an integer dtype, got complex64"),
)
FORMATS = "must be one of xyxy, xywh, cxcywh, got"
ALL_FORMATS = "must be one of xyxy, xywh, cxcywh, cxcywhr, xywhr, xyxyxyxy, got"
NO_BOXES = {"boxes": zeros(0, 4).double()}
SIZE = "size must be two ints (height, width), got"
CASES = [
    ENCODE,
    DECODE,
    GRID,
    DECODE_ANCHORS,
    MASKS_TO_BOXES,
    PASTE_MASKS,
    PASTE_MASKS_DECIDED,
    OpCase(
        box_area,
        lambda seed: {"boxes": boxes(seed), "fmt": "xyxy"},
        differentiable=("boxes",),
        order=2,
        bad=(
            *BAD_BOXES,
            Bad({"fmt": "xy"}, ValueError, f"fmt {FORMATS} 'xy'"),
            Bad({"fmt": None}, ValueError, f"fmt {FORMATS} None"),
        ),
        empty=(Empty(NO_BOXES, (0,)),),
    ),
    OpCase(
        box_convert,
        lambda seed: {"boxes": boxes(seed), "in_fmt": "xyxy", "out_fmt": "cxcywh"},
        differentiable=("boxes",),
        order=2,
        bad=(
            *BAD_BOXES,
            Bad({"in_fmt": "xywhrr"}, ValueError, f"in_fmt {ALL_FORMATS} 'xywhrr'"),
            Bad({"out_fmt": 3}, ValueError, f"out_fmt {ALL_FORMATS} 3"),
            Bad({"in_fmt": "xywhr"}, ValueError, "boxes must have shape (..., 5), got (5, 4)"),
            Bad(
                {"out_fmt": "xywhr"},
                NotImplementedError,
                "in_fmt and out_fmt must both be rotated or neither, got 'xyxy' and 'xywhr'",
            ),
        ),
        empty=(Empty(NO_BOXES, (0, 4)),),
    ),
    OpCase(
        clip_boxes_to_image,
        lambda seed: {"boxes": boxes(seed), "size": (25, 40)},
        differentiable=("boxes",),
        order=2,
        bad=(
            *BAD_BOXES,
            Bad({"size": 3}, TypeError, f"{SIZE} 3"),
            Bad({"size": (3, None)}, TypeError, f"{SIZE} (3, None)"),
            Bad({"size": (1, 2, 3)}, TypeError, f"{SIZE} (1, 2, 3)"),
            Bad({"size": (2**70, 3)}, ValueError, f"size must be an int of 64 bits, got {2**70}"),
        ),
        empty=(Empty(NO_BOXES, (0, 4)),),
    ),
    OpCase(
        remove_small_boxes,
        lambda seed: {"boxes": boxes(seed), "min_size": 12.0},
        bad=BAD_BOXES,
        empty=(Empty(NO_BOXES, (0,)),),
        size_depends_on_data=True,
    ),
]
