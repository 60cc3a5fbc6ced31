"""Sparse convolution layers, with spconv's names, arguments and weight layout."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from fastcv.ops.sparse_kernel_map import Size
from fastcv.sparse.convolution import SparseConvolution
from fastcv.sparse.inference import PLAIN_CONVOLUTIONS

__all__ = [
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConvTranspose1d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseConvolution",
    "SparseInverseConv1d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SubMConv1d",
    "SubMConv2d",
    "SubMConv3d",
]


class _Convolution(SparseConvolution):
    _ndim: ClassVar[int]
    _transposed: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: Any = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        output_padding: Size = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rest: dict[str, Any] = {"indice_key": indice_key, "algo": algo, "fp32_accum": fp32_accum, "name": name}
        rest |= {"output_padding": output_padding, "transposed": self._transposed, "device": device, "dtype": dtype}
        sizes = (kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(self._ndim, in_channels, out_channels, *sizes, record_voxel_count=record_voxel_count, **rest)
        if any(self.output_padding) and not self._transposed:
            raise ValueError(f"output_padding is for transposed convolutions, got {output_padding!r}")


class _SubMConvolution(SparseConvolution):
    _ndim: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: Any = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rest: dict[str, Any] = {"indice_key": indice_key, "algo": algo, "fp32_accum": fp32_accum, "name": name}
        sizes = (kernel_size, stride, padding, dilation, groups, bias, True)
        super().__init__(self._ndim, in_channels, out_channels, *sizes, **rest, device=device, dtype=dtype)


class _InverseConvolution(SparseConvolution):
    _ndim: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        indice_key: str,
        bias: bool = True,
        algo: Any = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        groups: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        rest: dict[str, Any] = {"indice_key": indice_key, "algo": algo, "fp32_accum": fp32_accum, "name": name}
        rest |= {"groups": groups, "bias": bias, "inverse": True, "device": device, "dtype": dtype}
        super().__init__(self._ndim, in_channels, out_channels, kernel_size, **rest)


class SparseConv1d(_Convolution):
    """Sparse 1-D convolution: active wherever an active site is in reach (:class:`SparseConvolution`)."""

    _ndim = 1


class SparseConv2d(_Convolution):
    """Sparse 2-D convolution: active wherever an active site is in reach (:class:`SparseConvolution`)."""

    _ndim = 2


class SparseConv3d(_Convolution):
    """Sparse 3-D convolution: active wherever an active site is in reach (:class:`SparseConvolution`)."""

    _ndim = 3


class SparseConvTranspose1d(_Convolution):
    """Sparse transposed 1-D convolution (:class:`SparseConvolution`)."""

    _ndim = 1
    _transposed = True


class SparseConvTranspose2d(_Convolution):
    """Sparse transposed 2-D convolution (:class:`SparseConvolution`)."""

    _ndim = 2
    _transposed = True


class SparseConvTranspose3d(_Convolution):
    """Sparse transposed 3-D convolution (:class:`SparseConvolution`)."""

    _ndim = 3
    _transposed = True


class SubMConv1d(_SubMConvolution):
    """Submanifold 1-D convolution: the sites stay as they are (:class:`SparseConvolution`)."""

    _ndim = 1


class SubMConv2d(_SubMConvolution):
    """Submanifold 2-D convolution: the sites stay as they are (:class:`SparseConvolution`)."""

    _ndim = 2


class SubMConv3d(_SubMConvolution):
    """Submanifold 3-D convolution: the sites stay as they are (:class:`SparseConvolution`)."""

    _ndim = 3


class SparseInverseConv1d(_InverseConvolution):
    """1-D convolution back to the sites before the layer of its ``indice_key`` (:class:`SparseConvolution`)."""

    _ndim = 1


class SparseInverseConv2d(_InverseConvolution):
    """2-D convolution back to the sites before the layer of its ``indice_key`` (:class:`SparseConvolution`)."""

    _ndim = 2


class SparseInverseConv3d(_InverseConvolution):
    """3-D convolution back to the sites before the layer of its ``indice_key`` (:class:`SparseConvolution`)."""

    _ndim = 3


PLAIN_CONVOLUTIONS.update([SparseConv1d, SparseConv2d, SparseConv3d, SubMConv1d, SubMConv2d, SubMConv3d])
PLAIN_CONVOLUTIONS.update([SparseConvTranspose1d, SparseConvTranspose2d, SparseConvTranspose3d])
PLAIN_CONVOLUTIONS.update([SparseInverseConv1d, SparseInverseConv2d, SparseInverseConv3d])
