"""RoIAlign as a module."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.roi_align import roi_align

__all__ = ["RoIAlign"]

fx.wrap("roi_align")  # symbolic traces record the call, as those of torchvision do


class RoIAlign(nn.Module):
    """:func:`fastcv.ops.roi_align` with fixed options.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio, aligned
        As in :func:`fastcv.ops.roi_align`.
    """

    def __init__(
        self, output_size: int | Sequence[int], spatial_scale: float, sampling_ratio: int, aligned: bool = False
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool ``rois``, (K, 5) or a list of (L, 4), from ``input`` (N, C, H, W) to (K, C, P, Q)."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
