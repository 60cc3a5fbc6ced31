"""Upsampling without weights as modules."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.unpool import unpool_bed_of_nails, unpool_nearest

__all__ = ["UnpoolBedOfNails", "UnpoolNearest"]

# Symbolic traces record the call, as those of torchvision do.
fx.wrap("unpool_bed_of_nails")
fx.wrap("unpool_nearest")


class _Unpool(nn.Module):
    def __init__(self, scale: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.scale = scale

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class UnpoolNearest(_Unpool):
    """:func:`fastcv.ops.unpool_nearest` with a fixed scale.

    Parameters
    ----------
    scale : int or (int, int)
        As in :func:`fastcv.ops.unpool_nearest`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Upsample (N, C, H, W) to (N, C, H * scale, W * scale)."""
        return unpool_nearest(input, self.scale)


class UnpoolBedOfNails(_Unpool):
    """:func:`fastcv.ops.unpool_bed_of_nails` with a fixed scale.

    Parameters
    ----------
    scale : int or (int, int)
        As in :func:`fastcv.ops.unpool_bed_of_nails`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Upsample (N, C, H, W) to (N, C, H * scale, W * scale)."""
        return unpool_bed_of_nails(input, self.scale)
