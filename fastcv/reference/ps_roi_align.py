"""Position-sensitive RoIAlign in plain torch (Dai et al. 2016, "R-FCN"; Li et al. 2017, "Light-Head R-CNN")."""

from __future__ import annotations

from torch import Tensor

from fastcv.reference.roi_align import roi_align


def ps_roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Pool boxes (K, 5) from input (N, C * P * Q, H, W) to (K, C, P, Q); differentiable in ``input``."""
    bins_y, bins_x = (output_size, output_size) if isinstance(output_size, int) else output_size
    every = roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned=True) + input.sum() * 0
    # Bin b of all channels is there; only that of channel (c, b) is wanted.
    flat = every.reshape(len(boxes), input.shape[1] // (bins_y * bins_x), bins_y * bins_x, bins_y * bins_x)
    pooled: Tensor = flat.diagonal(dim1=2, dim2=3).unflatten(2, (bins_y, bins_x))
    return pooled
