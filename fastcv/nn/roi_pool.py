"""RoIPool as a module."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.roi_pool import roi_pool

__all__ = ["RoIPool"]

fx.wrap("roi_pool")  # symbolic traces record the call, as those of torchvision do


class RoIPool(nn.Module):
    """:func:`fastcv.ops.roi_pool` with fixed options.

    Parameters
    ----------
    output_size, spatial_scale
        As in :func:`fastcv.ops.roi_pool`.
    """

    def __init__(self, output_size: int | Sequence[int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Pool ``rois``, (K, 5) or a list of (L, 4), from ``input`` (N, C, H, W) to (K, C, P, Q)."""
        return roi_pool(input, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, spatial_scale={self.spatial_scale}"
