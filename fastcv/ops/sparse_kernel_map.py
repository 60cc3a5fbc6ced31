"""The kernel map of a sparse convolution: which input site feeds which output site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Operator

__all__ = ["sparse_kernel_map"]

_INSERT, _MIRROR, _SPREAD, _COMPACT, _NUMBER, _LINK = range(6)  # SparseMapStep
_MAX_KERNEL_VOLUME = 32768


def _check_indices(indices: Tensor) -> None:
    if indices.dim() != 2 or indices.shape[1] != 4:
        raise ValueError(f"indices must have shape (N, 4), got {describe_shape(indices)}")
    if indices.dtype is not torch.int32:
        raise TypeError(f"indices must be int32, got {indices.dtype}")


def _volume(geometry: Sequence[int]) -> int:
    return geometry[6] * geometry[7] * geometry[8]


def _raise_for(status: list[int], indices: Tensor, geometry: Sequence[int], batch_size: int) -> None:
    """Raise the error that the first step on CUDA has found."""
    outside, repeated = status
    if outside >= 0:
        site = tuple(indices[outside].tolist())
        sizes = (batch_size, *geometry[:3])
        raise ValueError(
            f"indices[{outside}] = {site} lies outside: batch, z, y, x must be at least 0 and below {sizes}"
        )
    if repeated >= 0:
        z, y, x = ((max(size, 1) - 1).bit_length() for size in geometry[:3])
        x = max(x, 6)
        fields = ((repeated >> (z + y + x)), repeated >> (y + x) & (1 << z) - 1, repeated >> x & (1 << y) - 1)
        site = (*fields, repeated & (1 << x) - 1)
        raise ValueError(f"indices has the site (batch, z, y, x) = {site} more than once")


def _slots(keys: int) -> int:
    """How large a table for that many keys is: at most half full."""
    return 1 << max(2 * keys - 1, 1).bit_length()


class _Steps:
    """The steps of the CUDA kernels, with the tensors that they share."""

    def __init__(self, indices: Tensor, geometry: Sequence[int], batch_size: int, *kind: bool) -> None:
        self.indices = indices
        self.problem: tuple[Any, ...] = (geometry, batch_size, *kind)

    def table(self, keys: int) -> tuple[Tensor, Tensor]:
        """An empty table for at most that many keys."""
        slots = _slots(keys)
        return self.indices.new_full((slots,), -1, dtype=torch.int64), self.indices.new_empty((slots,))

    def run(self, step: int, keys: Tensor, outputs: int = 0, **tensors: Tensor | None) -> None:
        names = ("out_indices", "neighbours", "reverse")
        first = [tensors.get(name) for name in names]
        last = [tensors.get(name) for name in ("values", "status", "out_keys", "places")]
        arguments: tuple[Any, ...] = (*self.problem, outputs, *first, keys, *last)
        _C.sparse_kernel_map_step(step, self.indices, *arguments)


def _submanifold_steps(indices: Tensor, geometry: Sequence[int], batch_size: int) -> tuple[Tensor, Tensor]:
    steps = _Steps(indices, geometry, batch_size, True, False)
    volume, sites = _volume(geometry), indices.shape[0]
    neighbours = indices.new_full((volume, sites), -1)
    if sites == 0:
        return neighbours, neighbours.clone()
    keys, values = steps.table(sites)
    status = indices.new_full((2,), -1, dtype=torch.int64)
    steps.run(_INSERT, keys, values=values, status=status)
    reverse = None if volume % 2 else torch.full_like(neighbours, -1)
    steps.run(_MIRROR, keys, sites, values=values, neighbours=neighbours, reverse=reverse)
    _raise_for(status.tolist(), indices, geometry, batch_size)  # the one synchronisation
    return neighbours, neighbours.flip(0) if reverse is None else reverse


def _outputs_per_site(geometry: Sequence[int], transposed: bool) -> int:
    """How many output sites one input site feeds at most."""
    count = 1
    for axis in range(3):
        out_size, kernel, stride, dilation = (geometry[3 * row + axis] for row in (1, 2, 3, 5))
        # Two kernel elements that lead somewhere are a multiple of stride / gcd(stride, dilation) apart.
        apart = 1 if transposed else stride // _gcd(stride, dilation)
        count *= min(out_size, -(-kernel // apart))
    return count


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def _convolution_steps(
    indices: Tensor, geometry: Sequence[int], batch_size: int, transposed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    steps = _Steps(indices, geometry, batch_size, False, transposed)
    volume, sites = _volume(geometry), indices.shape[0]
    if sites == 0:
        empty = indices.new_empty((volume, 0))
        return indices.new_empty((0, 4)), empty, empty.clone()
    status = indices.new_full((2,), -1, dtype=torch.int64)
    keys, values = steps.table(sites)
    steps.run(_INSERT, keys, values=values, status=status)
    cells = batch_size * geometry[3] * geometry[4] * geometry[5]
    keys, values = steps.table(min(sites * _outputs_per_site(geometry, transposed), cells))
    steps.run(_SPREAD, keys)
    places = (keys != -1).cumsum(0, dtype=torch.int32)
    *found, outputs = torch.cat([status, places[-1:].long()]).tolist()  # the one synchronisation
    _raise_for(found, indices, geometry, batch_size)
    out_keys = keys.new_empty((outputs,))
    steps.run(_COMPACT, keys, outputs, out_keys=out_keys, places=places)
    out_keys = out_keys.sort().values
    out_indices = indices.new_empty((outputs, 4))
    steps.run(_NUMBER, keys, outputs, values=values, out_keys=out_keys, out_indices=out_indices)
    neighbours = indices.new_full((volume, outputs), -1)
    reverse = indices.new_empty((volume, sites))
    steps.run(_LINK, keys, outputs, values=values, neighbours=neighbours, reverse=reverse)
    return out_indices, neighbours, reverse


def _forward_submanifold(indices: Tensor, geometry: Sequence[int], batch_size: int) -> tuple[Tensor, Tensor]:
    if indices.is_cuda or not _C.has_cpu_kernels:
        _check_indices(indices)
        return _submanifold_steps(indices.contiguous(), geometry, batch_size)
    shape = (_volume(geometry), indices.shape[0])
    neighbours, reverse = indices.new_empty(shape), indices.new_empty(shape)
    _C.sparse_kernel_map(
        indices.contiguous(), geometry, batch_size, True, False, lambda count: (None, neighbours, reverse)
    )
    return neighbours, reverse


def _fake_submanifold(indices: Tensor, geometry: Sequence[int], batch_size: int) -> tuple[Tensor, Tensor]:
    _check_indices(indices)
    shape = (_volume(geometry), indices.shape[0])
    return indices.new_empty(shape), indices.new_empty(shape)


def _forward(
    indices: Tensor, geometry: Sequence[int], batch_size: int, transposed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if indices.is_cuda or not _C.has_cpu_kernels:
        _check_indices(indices)
        return _convolution_steps(indices.contiguous(), geometry, batch_size, transposed)
    outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def allocate(count: int) -> tuple[Tensor, Tensor, Tensor]:
        volume = _volume(geometry)
        outputs.append(
            (
                indices.new_empty((count, 4)),
                indices.new_empty((volume, count)),
                indices.new_empty((volume, indices.shape[0])),
            )
        )
        return outputs[0]

    _C.sparse_kernel_map(indices.contiguous(), geometry, batch_size, False, transposed, allocate)
    return outputs[0]


def _fake(indices: Tensor, geometry: Sequence[int], batch_size: int, transposed: bool) -> tuple[Tensor, Tensor, Tensor]:
    _check_indices(indices)
    count = torch.library.get_ctx().new_dynamic_size()
    volume = _volume(geometry)
    return (
        indices.new_empty((count, 4)),
        indices.new_empty((volume, count)),
        indices.new_empty((volume, indices.shape[0])),
    )


_submanifold_kernel_map = Operator(
    "sparse_submanifold_kernel_map(Tensor indices, int[] geometry, int batch_size) -> (Tensor, Tensor)",
    forward=_forward_submanifold,
    fake=_fake_submanifold,
)

_kernel_map = Operator(
    "sparse_kernel_map(Tensor indices, int[] geometry, int batch_size, bool transposed) -> (Tensor, Tensor, Tensor)",
    forward=_forward,
    fake=_fake,
)


def _triple(value: Any, name: str, least: int) -> tuple[int, int, int]:
    """Return three integers (z, y, x), none below ``least``; one integer stands for all."""
    if type(value) is int:
        triple = (value, value, value)
    else:
        try:
            z, y, x = value
            triple = (int(z.__index__()), int(y.__index__()), int(x.__index__()))
        except (AttributeError, TypeError, ValueError):
            raise TypeError(f"{name} must be an int or three ints (z, y, x), got {value!r}") from None
    if min(triple) < least:
        raise ValueError(f"{name} must be {'positive' if least else 'at least 0'}, got {value!r}")
    return triple


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
    check_tensor(indices, "indices")
    if type(batch_size) is not int:
        raise TypeError(f"batch_size must be an int, got {batch_size!r}")
    shape = _triple(spatial_shape, "spatial_shape", 0)
    kernel = _triple(kernel_size, "kernel_size", 1)
    steps = _triple(stride, "stride", 1)
    pads = _triple(padding, "padding", 0)
    dilations = _triple(dilation, "dilation", 1)
    if kernel[0] * kernel[1] * kernel[2] > _MAX_KERNEL_VOLUME:
        raise ValueError(f"kernel_size must have at most {_MAX_KERNEL_VOLUME} elements, got {kernel_size!r}")
    if subm:
        if transposed:
            raise ValueError("subm and transposed must not both be true")
        pads = (kernel[0] // 2 * dilations[0], kernel[1] // 2 * dilations[1], kernel[2] // 2 * dilations[2])
        geometry = [*shape, *shape, *kernel, 1, 1, 1, *pads, *dilations]
        neighbours, reverse = _submanifold_kernel_map(indices, geometry, batch_size)
        return indices, neighbours, reverse
    extra = _triple(output_padding, "output_padding", 0)
    out_shape = []
    for size, k, s, p, d, e in zip(shape, kernel, steps, pads, dilations, extra, strict=True):
        reach = d * (k - 1) + 1
        out_size = (size - 1) * s - 2 * p + reach + e if transposed else (size + 2 * p - reach) // s + 1
        if out_size < 1:
            raise ValueError(f"spatial_shape {shape} leaves no output: its size along an axis would be {out_size}")
        out_shape.append(out_size)
    geometry = [*shape, *out_shape, *kernel, *steps, *pads, *dilations]
    out_indices, neighbours, reverse = _kernel_map(indices, geometry, batch_size, transposed)
    return out_indices, neighbours, reverse
