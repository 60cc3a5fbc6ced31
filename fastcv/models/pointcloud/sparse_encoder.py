"""The sparse 3-D backbone of voxel detectors: from occupied voxels to a dense bird's-eye-view map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastcv.sparse import SparseConv3d, SparseConvTensor, SparseSequential, SubMConv3d


class SparseEncoder(nn.Module):
    """Four levels of sparse convolutions, each at half the resolution of the previous one.

    Parameters
    ----------
    in_channels : int
        Features per voxel.
    channels : sequence of four ints
        Features of the levels.

    Notes
    -----
    Each level is a convolution (submanifold in the first, strided in the others) and a submanifold one, each with
    batch norm and ReLU.

    References
    ----------
    Yan, Mao, Li: SECOND: Sparsely Embedded Convolutional Detection (2018), section 3.1.2.
    """

    def __init__(self, in_channels: int = 4, channels: Sequence[int] = (16, 32, 64, 64)) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"channels must be four numbers, got {channels!r}")
        levels = []
        for level, width in enumerate(channels):
            key = f"level{level}"
            before = in_channels if level == 0 else channels[level - 1]
            first = (
                SubMConv3d(before, width, 3, bias=False, indice_key=key)
                if level == 0
                else SparseConv3d(before, width, 3, stride=2, padding=1, bias=False)
            )
            second = SubMConv3d(width, width, 3, bias=False, indice_key=key)
            levels.append(
                SparseSequential(first, nn.BatchNorm1d(width), nn.ReLU(), second, nn.BatchNorm1d(width), nn.ReLU())
            )
        self.levels = nn.ModuleList(levels)

    def forward(self, x: SparseConvTensor) -> list[SparseConvTensor]:
        """Return the sparse tensors of the four levels, finest first."""
        outputs = []
        for level in self.levels:
            x = level(x)
            outputs.append(x)
        return outputs

    @staticmethod
    def to_map(x: SparseConvTensor) -> Tensor:
        """Move the height of a sparse tensor into its channels.

        Parameters
        ----------
        x : SparseConvTensor
            C channels in a grid of Z, Y, X.

        Returns
        -------
        Tensor (B, C * Z, Y, X)
            The dense bird's-eye-view map.
        """
        return x.dense().flatten(1, 2)
