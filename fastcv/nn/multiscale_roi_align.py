"""RoIAlign from a feature pyramid, as a module."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from fastcv.ops._arguments import as_pair
from fastcv.ops.boxes import box_area
from fastcv.ops.multiscale_roi_align import multiscale_roi_align

__all__ = ["LevelMapper", "MultiScaleRoIAlign"]


class LevelMapper:
    """The level of a pyramid that suits the size of a box. A drop-in for ``torchvision.ops.poolers.LevelMapper``.

    Parameters
    ----------
    k_min, k_max : int
        Levels of the finest and of the coarsest map: 2 for a scale of 1/4.
    canonical_scale, canonical_level : int
        Side of a box that suits that level.
    eps : float
        Added before rounding down.

    References
    ----------
    Lin, Dollar, Girshick, He, Hariharan, Belongie: Feature Pyramid Networks (2017), equation 1.
    """

    def __init__(
        self, k_min: int, k_max: int, canonical_scale: int = 224, canonical_level: int = 4, eps: float = 1e-6
    ) -> None:
        self.k_min = k_min
        self.k_max = k_max
        self.s0 = canonical_scale
        self.lvl0 = canonical_level
        self.eps = eps

    def __call__(self, boxlists: Sequence[Tensor]) -> Tensor:
        """Return the level, less ``k_min``, of each box (x1, y1, x2, y2) of tensors (L, 4): (K,), int64."""
        side = torch.cat([box_area(boxes) for boxes in boxlists]).sqrt()
        level = (self.lvl0 + (side / self.s0).log2() + self.eps).floor()
        return level.clamp(self.k_min, self.k_max).long() - self.k_min


class MultiScaleRoIAlign(nn.Module):
    """:func:`fastcv.ops.multiscale_roi_align` on a dictionary of feature maps, with scales found from their sizes.

    Parameters
    ----------
    featmap_names : list of str
        Names of the maps to pool from. Their order in the dictionary is the order of the levels, finest first.
    output_size : int or (int, int)
        Bins per box, P and Q (height, width).
    sampling_ratio : int
        Samples along each axis of a bin; if not positive, ``ceil(box side / bins)`` of them.
    canonical_scale, canonical_level : int
        As in :func:`fastcv.ops.multiscale_roi_align`.
    """

    def __init__(
        self,
        featmap_names: list[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names = featmap_names
        self.output_size = as_pair(output_size, "output_size")
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool boxes from the maps, (K, C, P, Q) in the order of the boxes.

        Parameters
        ----------
        x : dict of str to Tensor (N, C, H_l, W_l)
            Feature maps; those that are not named in ``featmap_names`` are ignored.
        boxes : list of N tensors (L, 4)
            Boxes of each image: x1, y1, x2, y2 in its pixels.
        image_shapes : list of (height, width)
            Sizes of the images that the maps were computed from. The scale of a map is the power of two nearest to its
            height divided by the largest height of an image.
        """
        return pool_levels(
            x,
            boxes,
            image_shapes,
            self.featmap_names,
            self.output_size,
            self.sampling_ratio,
            self.canonical_scale,
            self.canonical_level,
        )

    def extra_repr(self) -> str:
        return (
            f"featmap_names={self.featmap_names}, output_size={self.output_size}, sampling_ratio={self.sampling_ratio}"
        )


def pool_levels(
    x: dict[str, Tensor],
    boxes: list[Tensor],
    image_shapes: list[tuple[int, int]],
    featmap_names: list[str],
    output_size: Sequence[int],
    sampling_ratio: int,
    canonical_scale: int,
    canonical_level: int,
) -> Tensor:
    """Pool as :meth:`MultiScaleRoIAlign.forward` does. A symbolic trace cannot iterate ``x`` and records the call."""
    if not image_shapes:
        raise ValueError("image_shapes must not be empty")
    features = [feature for name, feature in x.items() if name in featmap_names]
    if not features:
        raise ValueError(f"x must hold a map of featmap_names {featmap_names}, got {list(x)}")
    height = max(shape[0] for shape in image_shapes)
    scales = [2.0 ** round(math.log2(feature.shape[2] / height)) for feature in features]
    dtype = features[0].dtype  # autocast may give levels different ones
    features = [feature if feature.dtype is dtype else feature.to(dtype) for feature in features]
    return multiscale_roi_align(
        features, boxes, output_size, scales, sampling_ratio, False, canonical_scale, canonical_level
    )


fx.wrap("pool_levels")
