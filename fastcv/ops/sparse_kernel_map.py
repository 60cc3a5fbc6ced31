"""The kernel map of a sparse convolution: which input site feeds which output site.

Layers make it once per geometry, and share it through ``indice_key``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import as_ints, check_tensor, describe_shape
from fastcv.ops._define import define, size_from_data

__all__ = [
    "Geometry",
    "KernelMap",
    "Size",
    "build_kernel_map",
    "layer_geometry",
    "output_shape",
    "sparse_kernel_map",
    "sparse_reverse_map",
    "sparse_row_order",
]

Size = int | Sequence[int]


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
    outputs = sites if subm else size_from_data(indices)
    return (
        indices.new_empty((0 if subm else outputs, 4)),
        indices.new_empty((volume, outputs)),
        indices.new_empty((volume if with_reverse else 0, sites)),
    )


_sparse_kernel_map = define(
    "sparse_kernel_map(Tensor indices, int batch_size, int[] spatial_shape, int[] kernel_size, int[] stride, "
    "int[] padding, int[] dilation, int[] output_padding, bool subm, bool transposed, bool with_reverse) "
    "-> (Tensor, Tensor, Tensor)",
    fake=_fake,
)

_sparse_reverse_map = define(
    "sparse_reverse_map(Tensor neighbours, SymInt inputs) -> Tensor",
    fake=lambda neighbours, inputs: neighbours.new_empty((neighbours.shape[0], inputs)),
)


def output_shape(*geometry: Any) -> tuple[int, ...]:
    """Return the size of the output's grid, as of ``F.conv3d`` and ``F.conv_transpose3d``."""
    return _C.sparse_output_shape(*geometry)


# Marked as torch.compiler.assume_constant_result does it, which would import the compiler with fastcv.
output_shape._dynamo_marked_constant = True  # type: ignore[attr-defined]


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
    with_reverse: bool = True,
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
    with_reverse : bool
        Whether ``reverse`` is made. Only gradients to the features and inverse convolutions need it;
        :func:`sparse_reverse_map` makes it later.

    Returns
    -------
    out_indices : Tensor (M, 4)
        int32: the output sites in ascending order of batch, z, y, x. With ``subm``, ``indices`` itself.
    neighbours : Tensor (K, M)
        int32: the row of ``indices`` that feeds output m through kernel element
        ``k = (kz * KY + ky) * KX + kx``, or -1.
    reverse : Tensor (K, N)
        int32: the row of ``out_indices`` that input n feeds through kernel element k, or -1. (0, N) without
        ``with_reverse``.

    Raises
    ------
    ValueError
        For a site outside ``spatial_shape`` or ``batch_size``, a site that comes twice, sizes that are not positive,
        an output that would have no cells, or coordinates that need more than 62 bits.
    TypeError
        For indices that are not an int32 tensor, or sizes that are not integers.

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
    out_indices, neighbours, reverse = _sparse_kernel_map(indices, batch_size, *geometry, with_reverse)
    return indices if subm else out_indices, neighbours, reverse


def sparse_reverse_map(neighbours: Tensor, inputs: int) -> Tensor:
    """Return a kernel map as it is seen from the input.

    Parameters
    ----------
    neighbours : Tensor (K, M)
        int32: the input row that feeds output m through kernel element k, or less than 0, as of
        :func:`sparse_kernel_map`. No input feeds two outputs through the same element.
    inputs : int
        N, the number of input rows.

    Returns
    -------
    Tensor (K, N)
        int32: the output row that input n feeds through kernel element k, or -1.

    Raises
    ------
    ValueError
        For a tensor of another shape, or a neighbour of N or more. (On CUDA, where looking would cost a
        synchronisation, that is left out.)
    TypeError
        For an argument that is not an int32 tensor, or no int.

    Examples
    --------
    >>> sparse_reverse_map(torch.tensor([[2, -1], [0, 1]], dtype=torch.int32), 3)
    tensor([[-1, -1,  0],
            [ 0,  1, -1]], dtype=torch.int32)
    """
    reverse: Tensor = _sparse_reverse_map(neighbours, inputs)
    return reverse


def sparse_row_order(neighbours: Tensor) -> Tensor:
    """Order the rows of a kernel map by which of their kernel elements have a neighbour.

    Parameters
    ----------
    neighbours : Tensor (K, M)
        int32: a kernel map as of :func:`sparse_kernel_map`.

    Returns
    -------
    Tensor (M,)
        int32: a permutation of the rows, for ``order`` of :func:`sparse_conv`; rows with the same elements follow one
        another. The same for every run.

    Notes
    -----
    Of the 27 elements of a submanifold convolution on a surface, some of 64 rows together have 24 in the order of
    coordinates, 10 in this one, where each row has 9: the kernels skip what none of their rows has.
    """
    check_tensor(neighbours, "neighbours")
    if neighbours.dim() != 2:
        raise ValueError(f"neighbours must have shape (K, M), got {describe_shape(neighbours)}")
    volume = neighbours.shape[0]
    # One bit for each element, 31 at most: above that neighbouring elements share them, which sorts nearly as well.
    places = torch.arange(volume, dtype=torch.int32, device=neighbours.device) * 31 // max(volume, 31)
    masks = ((neighbours >= 0) * (1 << places)[:, None]).sum(0, dtype=torch.int32)
    return masks.argsort(stable=True).int()


# ---- what layers keep of a map ----


@dataclass
class KernelMap:
    """The links between input and output sites of a layer.

    Attributes
    ----------
    indices, out_indices : Tensor (N, 1 + D), (M, 1 + D)
        Sites before and after.
    neighbours : Tensor (K, M)
        The input row that feeds each output row through each kernel element, or -1.
    stored_reverse : Tensor (K, N) or (0, N), or None
        The output row that each input row feeds through each kernel element, or -1. Without rows, or None where it
        mirrors ``neighbours``, while nobody has asked for it: only gradients and inverse layers do.
    order : Tensor (M,), or None
        On CUDA, in which order the kernels take the rows of ``neighbours``: see
        :func:`fastcv.ops.sparse_row_order`.
    """

    geometry: Geometry
    indices: Tensor
    out_indices: Tensor
    neighbours: Tensor
    stored_reverse: Tensor | None
    spatial_shape: list[int]
    out_spatial_shape: list[int]
    order: Tensor | None = None
    stored_reverse_order: Tensor | None = None

    @property
    def is_subm(self) -> bool:
        """Whether it was made by a submanifold layer."""
        return self.geometry.subm

    # What programs written for spconv read, by its names.

    def _along_axes(self, sizes: tuple[int, ...]) -> list[int]:
        return list(sizes[-len(self.spatial_shape) :])

    ksize = property(lambda self: self._along_axes(self.geometry.kernel_size))
    stride = property(lambda self: self._along_axes(self.geometry.stride))
    padding = property(lambda self: self._along_axes(self.geometry.padding))
    dilation = property(lambda self: self._along_axes(self.geometry.dilation))
    pair_fwd = property(lambda self: self.neighbours)
    pair_bwd = property(lambda self: self.reverse)
    indice_pair_num = property(lambda self: (self.neighbours >= 0).sum(1, dtype=torch.int32))

    @property
    def indice_pairs(self) -> Tensor:
        """(2, K, N) int32: the input and the output row of each pair of a kernel element, then -1."""
        linked = self.neighbours >= 0
        element, output = linked.nonzero().unbind(1)  # by element, and there in ascending order
        place = (linked.cumsum(1) - 1)[linked]
        pairs = self.neighbours.new_full((2, len(linked), max(self.indices.shape[0], 1)), -1)
        pairs[0, element, place] = self.neighbours[linked]
        pairs[1, element, place] = output.int()
        return pairs[:, :, : self.indices.shape[0]]

    @property
    def reverse(self) -> Tensor:
        """The map seen from the input, made now if nobody has asked before."""
        if self.stored_reverse is None:
            self.stored_reverse = self.neighbours.flip(0)
        elif self.stored_reverse.shape[0] == 0:
            self.stored_reverse = sparse_reverse_map(self.neighbours, self.indices.shape[0])
        return self.stored_reverse

    @property
    def reverse_order(self) -> Tensor | None:
        """The order of the rows of ``reverse``, where there is one of ``neighbours``; made when it is asked for."""
        if self.order is not None and self.stored_reverse_order is None:
            self.stored_reverse_order = sparse_row_order(self.reverse)
        return self.stored_reverse_order


def layer_geometry(
    ndim: int,
    kernel_size: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    output_padding: Size = 0,
    subm: bool = False,
    transposed: bool = False,
) -> Geometry:
    """Return the geometry of a layer, which knows of no grid yet. Missing axes come first and have size one."""
    if not 1 <= ndim <= 4:
        raise ValueError(f"ndim must be 1 to 4, got {ndim}")
    ones, zeros = (1,) * (3 - ndim), (0,) * (3 - ndim)
    return Geometry(
        (),
        ones + as_ints(kernel_size, ndim, "kernel_size", 1),
        ones + as_ints(stride, ndim, "stride", 1),
        zeros + as_ints(padding, ndim, "padding", 0),
        ones + as_ints(dilation, ndim, "dilation", 1),
        zeros + as_ints(output_padding, ndim, "output_padding", 0),
        subm,
        transposed,
    )


def build_kernel_map(indices: Tensor, batch_size: int, geometry: Geometry, with_reverse: bool) -> KernelMap:
    """Return the map of sites (N, 1 + D) in a grid whose first 3 - D axes have size one.

    ``with_reverse`` tells whether the map seen from the input will be wanted, which is cheapest made at once.
    """
    missing, volume = 4 - indices.shape[1], math.prod(geometry.kernel_size)
    shapes = list(geometry.spatial_shape[missing:]), list(output_shape(*geometry)[missing:])
    if volume == 1 and (geometry.subm or not _moves(geometry)):
        rows = torch.arange(indices.shape[0], dtype=torch.int32, device=indices.device)[None]
        return KernelMap(geometry, indices, indices, rows, rows, *shapes)
    sites, mirrors = indices, geometry.subm and volume % 2 == 1
    if missing:
        zeros = indices.new_zeros(indices.shape[0], missing)
        sites = torch.cat([indices[:, :1], zeros, indices[:, 1:]], 1)
    out_indices, neighbours, reverse = _sparse_kernel_map(sites, batch_size, *geometry, with_reverse and not mirrors)
    if geometry.subm:
        out_indices = indices
    elif missing:
        out_indices = torch.cat([out_indices[:, :1], out_indices[:, 1 + missing :]], 1)
    links = KernelMap(geometry, indices, out_indices, neighbours, None if mirrors else reverse, *shapes)
    if _uses_row_order(neighbours):
        links.order = sparse_row_order(neighbours)
        if mirrors:  # the same elements mirrored: equal rows stay together
            links.stored_reverse_order = links.order
    return links


def _moves(geometry: Geometry) -> bool:
    """Whether a kernel of one element takes sites elsewhere."""
    return set(geometry.stride) != {1} or any(geometry.padding) or any(geometry.output_padding)


def _uses_row_order(neighbours: Tensor) -> bool:
    return neighbours.is_cuda
