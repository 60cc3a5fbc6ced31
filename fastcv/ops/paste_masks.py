"""Instance masks pasted into the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv.ops._arguments import as_size
from fastcv.ops._define import define

__all__ = ["paste_masks"]


def _fake(masks: Tensor, boxes: Tensor, height: int, width: int, padding: int, threshold: float | None) -> Tensor:
    return masks.new_empty((masks.shape[0], 1, height, width), dtype=masks.dtype if threshold is None else torch.bool)


_paste_masks = define(
    "paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, int padding, float? threshold) -> Tensor",
    fake=_fake,
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
        For an argument that is not a tensor or of an unsupported dtype.

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
    height, width = as_size(image_size, "image_size")
    pasted: Tensor = _paste_masks(masks, boxes, height, width, padding, threshold)
    return pasted
