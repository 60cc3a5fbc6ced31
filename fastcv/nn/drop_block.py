"""DropBlock as modules."""

from torch import Tensor, fx, nn

from fastcv.ops.drop_block import drop_block2d, drop_block3d

__all__ = ["DropBlock2d", "DropBlock3d"]

fx.wrap("drop_block2d")  # symbolic traces record the call, as those of torchvision do
fx.wrap("drop_block3d")


class DropBlock2d(nn.Module):
    """:func:`fastcv.ops.drop_block2d` with fixed options.

    Parameters
    ----------
    p, block_size, inplace, eps
        As in :func:`fastcv.ops.drop_block2d`.
    """

    def __init__(self, p: float, block_size: int, inplace: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = p
        self.block_size = block_size
        self.inplace = inplace
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        """Drop squares of ``input`` (N, C, H, W), in training."""
        return drop_block2d(input, self.p, self.block_size, self.inplace, self.eps, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, block_size={self.block_size}, inplace={self.inplace}"


class DropBlock3d(DropBlock2d):
    """:func:`fastcv.ops.drop_block3d` with fixed options.

    Parameters
    ----------
    p, block_size, inplace, eps
        As in :func:`fastcv.ops.drop_block3d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop cubes of ``input`` (N, C, D, H, W), in training."""
        return drop_block3d(input, self.p, self.block_size, self.inplace, self.eps, self.training)
