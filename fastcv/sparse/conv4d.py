"""Sparse convolution layers for grids with four axes, whose maps torch makes (see map4d.py)."""

from __future__ import annotations

from fastcv.sparse.conv import _Convolution, _InverseConvolution, _SubMConvolution
from fastcv.sparse.inference import PLAIN_CONVOLUTIONS

__all__ = ["SparseConv4d", "SparseConvTranspose4d", "SparseInverseConv4d", "SubMConv4d"]


class SparseConv4d(_Convolution):
    """Sparse 4-D convolution: active wherever an active site is in reach (:class:`SparseConvolution`)."""

    _ndim = 4


class SparseConvTranspose4d(_Convolution):
    """Sparse transposed 4-D convolution (:class:`SparseConvolution`)."""

    _ndim = 4
    _transposed = True


class SubMConv4d(_SubMConvolution):
    """Submanifold 4-D convolution: the sites stay as they are (:class:`SparseConvolution`)."""

    _ndim = 4


class SparseInverseConv4d(_InverseConvolution):
    """4-D convolution back to the sites before the layer of its ``indice_key`` (:class:`SparseConvolution`)."""

    _ndim = 4


PLAIN_CONVOLUTIONS.update([SparseConv4d, SparseConvTranspose4d, SubMConv4d, SparseInverseConv4d])
