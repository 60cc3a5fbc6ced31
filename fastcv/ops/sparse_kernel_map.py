"""The kernel map of a sparse convolution: which input site feeds which output site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_ints
from fastcv.ops._define import define, size_from_data

__all__ = ["Geometry", "kernel_map", "output_shape", "sparse_kernel_map"]


class Geometry(NamedTuple):
    """How a kernel moves over a grid: what layers, the operator and its kernels know of it, in this order.

    Sizes along z, y and x. The compiled functions check them.
    """

    spatial_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    output_padding: tuple[int, ...]
    subm: bool
    transposed: bool


def _fake(
    indices: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    subm: bool,
    transposed: bool,
    with_reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    volume, sites = math.prod(kernel_size), indices.shape[0]
    if subm:
        has_reverse = with_reverse or volume % 2 == 0
        return (
            indices.new_empty((0, 4)),
            indices.new_empty((volume, sites)),
            indices.new_empty((volume if has_reverse else 0, sites)),
        )
    outputs = size_from_data(indices)
    return (
        indices.new_empty((outputs, 4)),
        indices.new_empty((volume, outputs)),
        indices.new_empty((volume, sites)),
    )


_sparse_kernel_map = define(
    "sparse_kernel_map(Tensor indices, int batch_size, int[] spatial_shape, int[] kernel_size, int[] stride, "
    "int[] padding, int[] dilation, int[] output_padding, bool subm, bool transposed, bool with_reverse) "
    "-> (Tensor, Tensor, Tensor)",
    fake=_fake,
)


def kernel_map(
    indices: Tensor, batch_size: int, geometry: Geometry, with_reverse: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``out_indices``, ``neighbours`` and ``reverse`` as :func:`sparse_kernel_map` does.

    A submanifold map with an odd number of kernel elements is its own mirror image: ``reverse`` is
    ``neighbours.flip(0)``. ``with_reverse=False`` leaves it empty there.
    """
    maps: tuple[Tensor, Tensor, Tensor] = _sparse_kernel_map(indices, batch_size, *geometry, with_reverse)
    return (indices, maps[1], maps[2]) if geometry.subm else maps


def output_shape(geometry: Geometry) -> tuple[int, ...]:
    """Return the size of the output's grid, as of ``F.conv3d`` and ``F.conv_transpose3d``."""
    return _output_shape(*geometry)


def _output_shape(*geometry: Any) -> tuple[int, ...]:
    return _C.sparse_output_shape(*geometry)


# Marked as torch.compiler.assume_constant_result does it, which would import the compiler with fastcv.
_output_shape._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _triple(value: int | Sequence[int], name: str) -> tuple[int, ...]:
    return as_ints(value, 3, name, -(2**63), "(z, y, x)")  # the compiled function checks the values


def sparse_kernel_map(
    indices: Tensor,
    spatial_shape: Sequence[int],
    batch_size: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    output_padding: int | Sequence[int] = 0,
    subm: bool = False,
    transposed: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the output sites of a sparse 3-D convolution, and which input site feeds which of them.

    A site of the output is active when any active site of the input feeds it. Along each axis a convolution reads
    ``input = output * stride - padding + k * dilation``, as ``torch.nn.functional.conv3d`` does, and a transposed one
    writes ``output = input * stride - padding + k * dilation``, as ``conv_transpose3d`` does.

    Parameters
    ----------
    indices : Tensor (N, 4)
        int32: batch, z, y, x of each active input site, in any order, no two alike.
    spatial_shape : (int, int, int)
        Cells along z, y and x. There is no dense grid: only the bits of the coordinates count, at most 62 for batch,
        z, y and x together.
    batch_size : int
        Upper limit of the batch indices.
    kernel_size, stride, padding, dilation : int or (int, int, int)
        Of the convolution, along z, y and x. K is the product of the kernel sizes, at most 32768.
    output_padding : int or (int, int, int)
        Cells added to the end of the output of a transposed convolution.
    subm : bool
        Submanifold: the output sites are the input sites, whatever feeds them. ``stride`` counts as 1, ``padding`` as
        ``kernel_size // 2 * dilation``.
    transposed : bool
        Transposed convolution.

    Returns
    -------
    out_indices : Tensor (M, 4)
        int32: the output sites in ascending order of batch, z, y, x. With ``subm``, ``indices`` itself.
    neighbours : Tensor (K, M)
        int32: the row of ``indices`` that feeds output m through kernel element
        ``k = (kz * KY + ky) * KX + kx``, or -1.
    reverse : Tensor (K, N)
        int32: the row of ``out_indices`` that input n feeds through kernel element k, or -1.

    Raises
    ------
    ValueError
        For a site outside ``spatial_shape`` or ``batch_size``, a site that comes twice, sizes that are not positive,
        an output that would have no cells, or coordinates that need more than 62 bits.
    TypeError
        For indices that are no int32 tensor, or sizes that are not integers.

    Notes
    -----
    The result is the same on every device, and for every number of threads. On CUDA the call waits for the device once,
    for the number of outputs and for what is wrong with ``indices``. Under ``torch.compile(fullgraph=True)`` the number
    of outputs needs ``torch._dynamo.config.capture_dynamic_output_shape_ops = True`` unless ``subm``.

    References
    ----------
    Graham, Engelcke, van der Maaten: 3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (2018),
    section 3. Yan, Mao, Li: SECOND (2018), section 3.1.3.

    Examples
    --------
    >>> indices = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
    >>> _, neighbours, _ = sparse_kernel_map(indices, (1, 1, 4), 1, (1, 1, 3), subm=True)
    >>> neighbours
    tensor([[-1,  0],
            [ 0,  1],
            [ 1, -1]], dtype=torch.int32)
    """
    geometry = Geometry(
        _triple(spatial_shape, "spatial_shape"),
        _triple(kernel_size, "kernel_size"),
        _triple(stride, "stride"),
        _triple(padding, "padding"),
        _triple(dilation, "dilation"),
        _triple(output_padding, "output_padding"),
        subm,
        transposed,
    )
    return kernel_map(indices, batch_size, geometry)
