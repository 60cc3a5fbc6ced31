"""Bilinear interpolation as a module."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.upsample_bilinear2d import upsample_bilinear2d

__all__ = ["UpsampleBilinear2d"]

# Symbolic traces record the call, as those of torchvision do.
fx.wrap("upsample_bilinear2d")


class UpsampleBilinear2d(nn.Module):
    """:func:`fastcv.ops.upsample_bilinear2d` with fixed options.

    Parameters
    ----------
    output_size, scale_factor, align_corners
        As in :func:`fastcv.ops.upsample_bilinear2d`. (``torch.nn.UpsamplingBilinear2d`` always aligns corners.)
    """

    def __init__(
        self,
        output_size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.scale_factor = scale_factor
        self.align_corners = align_corners

    def forward(self, input: Tensor) -> Tensor:
        """Interpolate (N, C, H, W) to (N, C, P, Q)."""
        return upsample_bilinear2d(input, self.output_size, self.scale_factor, self.align_corners)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, scale_factor={self.scale_factor}, align_corners={self.align_corners}"
