"""Max pooling and unpooling as modules."""

from collections.abc import Sequence

from torch import Tensor, fx, nn

from fastcv.ops.max_pool2d import max_pool2d_with_indices, max_unpool2d

__all__ = ["MaxPool2d", "MaxUnpool2d"]

# Symbolic traces record the call, as those of torchvision do.
fx.wrap("max_pool2d_with_indices")
fx.wrap("max_unpool2d")

Size = int | Sequence[int]


class MaxPool2d(nn.Module):
    """:func:`fastcv.ops.max_pool2d_with_indices` with fixed options, as ``torch.nn.MaxPool2d``.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode
        As in :func:`fastcv.ops.max_pool2d_with_indices`.
    return_indices : bool
        Return values and indices, for :class:`MaxUnpool2d`; otherwise the values alone.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Pool (N, C, H, W) to (N, C, P, Q)."""
        pooled = max_pool2d_with_indices(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        return pooled if self.return_indices else pooled[0]

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxUnpool2d(nn.Module):
    """:func:`fastcv.ops.max_unpool2d` with fixed options, as ``torch.nn.MaxUnpool2d``.

    Parameters
    ----------
    kernel_size, stride, padding
        As in :func:`fastcv.ops.max_unpool2d`.
    """

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    def forward(self, values: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Put ``values`` (N, C, P, Q) back to where ``indices`` say."""
        return max_unpool2d(values, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
