"""Instance masks pasted into the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Operator

__all__ = ["paste_masks"]


def _allocate(
    masks: Tensor, boxes: Tensor, height: int, width: int, padding: int, threshold: float | None = None
) -> Tensor:
    shape = masks.shape
    if len(shape) != 4 or shape[1] != 1:
        raise ValueError(f"masks must have shape (N, 1, P, Q), got {describe_shape(masks)}")
    count = shape[0]
    box_shape = boxes.shape
    if len(box_shape) != 2 or box_shape[1] != 4 or box_shape[0] != count:
        raise ValueError(f"boxes must have shape (N, 4) with N = {count} as in masks, got {describe_shape(boxes)}")
    dtype = masks.dtype if threshold is None else torch.bool
    return masks.new_empty_strided((count, 1, height, width), (height * width, height * width, width, 1), dtype=dtype)


def _forward(
    masks: Tensor, boxes: Tensor, height: int, width: int, padding: int, threshold: float | None = None
) -> Tensor:
    output = _allocate(masks, boxes, height, width, padding, threshold)
    _C.paste_masks(
        output, masks.contiguous(), boxes.contiguous(), padding, threshold is not None, threshold if threshold else 0.0
    )
    return output


_paste_masks = Operator(
    "paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, int padding, float? threshold=None) "
    "-> Tensor",
    forward=_forward,
    fake=_allocate,
)


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    image_size: Sequence[int],
    padding: int = 1,
    threshold: float | None = None,
) -> Tensor:
    """Resize the soft mask of each box to the box and paste it into an image of zeros.

    Parameters
    ----------
    masks : Tensor (N, 1, P, Q)
        Soft masks, one per box: float16, bfloat16, float32 or float64. Interpolated in float32, or in float64 for
        float64.
    boxes : Tensor (N, 4)
        Boxes x1, y1, x2, y2 in pixels of the image, of any floating dtype; half types are used in float32.
    image_size : (int, int)
        Height and width of the image, H and W; fewer than 2**31 pixels.
    padding : int
        Zeros set around each mask before it is resized, so that its border fades; the box grows accordingly.
    threshold : float, optional
        Return ``value > threshold``, decided before rounding to the masks' dtype: a quarter of the memory of float32.

    Returns
    -------
    Tensor (N, 1, H, W)
        In the dtype of ``masks``, or bool with a ``threshold``. Zero outside of the boxes. A box outside of the image,
        inverted, with a corner that is not finite or 2**29 pixels away, gives an empty mask.

    Raises
    ------
    ValueError
        For a tensor of another shape, a negative size or padding, or tensors on different devices.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    The values are those of ``torchvision.models.detection.roi_heads.paste_masks_in_image`` to rounding: the same
    enlarged boxes cut off to integers, the same bilinear interpolation (``align_corners=False``). There is no
    gradient. The threshold decides alike on all devices.

    References
    ----------
    He, Gkioxari, Dollár, Girshick: Mask R-CNN (2017), section 3.1, "Inference".

    Examples
    --------
    >>> masks = torch.rand(3, 1, 28, 28)
    >>> boxes = torch.tensor([[10.0, 20.0, 110.0, 90.0], [0.0, 0.0, 40.0, 40.0], [5.5, 3.2, 60.0, 80.0]])
    >>> paste_masks(masks, boxes, (480, 640), threshold=0.5).shape
    torch.Size([3, 1, 480, 640])
    """
    check_tensor(masks, "masks")
    check_tensor(boxes, "boxes")
    try:
        height, width = image_size
        valid = height >= 0 and width >= 0
    except (TypeError, ValueError):
        raise TypeError(f"image_size must be two ints (height, width), got {image_size!r}") from None
    if not valid:
        raise ValueError(f"image_size must not be negative, got {image_size!r}")
    if padding < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    dtype = boxes.dtype
    if dtype is not torch.float32 and dtype is not torch.float64:
        if not dtype.is_floating_point:
            raise TypeError(f"boxes must be of a floating dtype, got {dtype}")
        boxes = boxes.float()
    pasted: Tensor = _paste_masks(masks, boxes, height, width, padding, threshold)
    return pasted
