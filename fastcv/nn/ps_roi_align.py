"""Position-sensitive RoIAlign as a module."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.ps_roi_align import ps_roi_align

__all__ = ["PSRoIAlign"]

fx.wrap("ps_roi_align")  # symbolic traces record the call, as those of torchvision do


class PSRoIAlign(nn.Module):
    """:func:`fastcv.ops.ps_roi_align` with fixed options.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio
        As in :func:`fastcv.ops.ps_roi_align`.
    """

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool ``rois``, (K, 5) or a list of (L, 4), from ``input`` (N, C * P * Q, H, W) to (K, C, P, Q)."""
        return ps_roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
        )
