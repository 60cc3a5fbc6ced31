"""RoIAlign of rotated boxes as a module."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.roi_align_rotated import roi_align_rotated

__all__ = ["RoIAlignRotated"]

fx.wrap("roi_align_rotated")  # symbolic traces record the call


class RoIAlignRotated(nn.Module):
    """:func:`fastcv.ops.roi_align_rotated` with fixed options, as ``ROIAlignRotated`` of detectron2.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio
        As in :func:`fastcv.ops.roi_align_rotated`.
    """

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool ``rois``, (K, 6) or a list of (L, 5), from ``input`` (N, C, H, W) to (K, C, P, Q)."""
        return roi_align_rotated(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
        )
