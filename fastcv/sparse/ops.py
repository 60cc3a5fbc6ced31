"""What programs call of spconv's operators: the sizes of outputs, and pairs of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastcv.ops.sparse_kernel_map import Size, layer_geometry
from fastcv.sparse.constants import ConvAlgo
from fastcv.sparse.core import SparseConvTensor, expand_nd

__all__ = ["ConvAlgo", "get_conv_output_size", "get_deconv_output_size", "get_indice_pairs"]


def get_conv_output_size(
    input_size: Sequence[int], kernel_size: Size, stride: Size, padding: Size, dilation: Size
) -> list[int]:
    """Return the size of a convolution's output; a kernel size of -1 spans the axis."""
    ndim = len(input_size)
    sizes = []
    kernel = expand_nd(ndim, kernel_size)
    rest = (expand_nd(ndim, value) for value in (stride, padding, dilation))
    for size, k, s, p, d in zip(input_size, kernel, *rest, strict=True):
        sizes.append(1 if k == -1 else (int(size) + 2 * p - d * (k - 1) - 1) // s + 1)
    return sizes


def get_deconv_output_size(
    input_size: Sequence[int], kernel_size: Size, stride: Size, padding: Size, dilation: Size, output_padding: Size
) -> list[int]:
    """Return the size of a transposed convolution's output."""
    ndim = len(input_size)
    geometry = (expand_nd(ndim, value) for value in (kernel_size, stride, padding, dilation, output_padding))
    return [
        (int(size) - 1) * s - 2 * p + d * (k - 1) + more + 1
        for size, k, s, p, d, more in zip(input_size, *geometry, strict=True)
    ]


def get_indice_pairs(
    indices: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    algo: ConvAlgo,
    ksize: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    out_padding: Size,
    subm: bool = False,
    transpose: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output sites (M, 1 + D), the pairs of rows (2, K, N) and their number (K,), all int32.

    ``pairs[0, k]`` are rows of the input and ``pairs[1, k]`` rows of the output, then -1. Pairs and sites come in
    ascending order, which spconv leaves open.
    """
    x = SparseConvTensor(torch.empty(indices.shape[0], 0, device=indices.device), indices, spatial_shape, batch_size)
    geometry = layer_geometry(
        len(x.spatial_shape), ksize, stride, padding, dilation, out_padding, subm=subm, transposed=transpose
    )
    links = x._map_for(geometry, None, False)
    return links.out_indices, links.indice_pairs, links.indice_pair_num
