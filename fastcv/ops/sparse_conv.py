"""Sparse convolution: the features of active sites, gathered over a kernel map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Gradient, Operator
from fastcv.ops._precision import may_use_tf32

__all__ = ["sparse_conv", "sparse_row_order"]


def _allocate(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    reverse: Tensor,
    groups: int,
    order: Tensor | None,
    reverse_order: Tensor | None,
) -> Tensor:
    rows, channels = neighbours.shape[-1], weight.shape[0]
    return features.new_empty_strided((rows, channels), (channels, 1))


def _check_map(neighbours: Tensor, reverse: Tensor, features: Tensor) -> None:
    for name, tensor in (("neighbours", neighbours), ("reverse", reverse)):
        if tensor.dim() != 2:
            raise ValueError(f"{name} must have two axes, got {describe_shape(tensor)}")
        if tensor.dtype is not torch.int32:
            raise TypeError(f"{name} must be int32, got {tensor.dtype}")
    if neighbours.shape[0] != reverse.shape[0]:
        raise ValueError(
            f"neighbours and reverse must have as many rows, got {describe_shape(neighbours)} and "
            f"{describe_shape(reverse)}"
        )
    torch._check_value(
        reverse.shape[1] == features.shape[0], lambda: "reverse must have one column per row of features"
    )


def _fake(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    reverse: Tensor,
    groups: int,
    order: Tensor | None,
    reverse_order: Tensor | None,
) -> Tensor:
    if features.dim() != 2 or weight.dim() != 5:
        raise ValueError(
            "features must have shape (N, C_in) and weight (C_out, kz, ky, kx, C_in / groups), got "
            f"{describe_shape(features)} and {describe_shape(weight)}"
        )
    _check_map(neighbours, reverse, features)
    return _allocate(features, weight, bias, neighbours, reverse, groups, order, reverse_order)


def _forward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    reverse: Tensor,
    groups: int,
    order: Tensor | None,
    reverse_order: Tensor | None,
) -> Tensor:
    if neighbours.dim() != 2 or weight.dim() != 5 or features.dim() != 2:
        _fake(features, weight, bias, neighbours, reverse, groups, order, reverse_order)  # says what is wrong
    if reverse.shape != (neighbours.shape[0], features.shape[0]) or reverse.dtype is not neighbours.dtype:
        _check_map(neighbours, reverse, features)
    output = _allocate(features, weight, bias, neighbours, reverse, groups, order, reverse_order)
    if (features.is_cuda or not _C.has_cpu_kernels) and weight.stride(4) != 1:
        weight = weight.contiguous()  # the kernels copy runs of input channels
    rest = (_contiguous(bias), _contiguous(neighbours), groups, _contiguous(order), may_use_tf32(features))
    try:
        _C.sparse_conv_forward(output, _contiguous(features), weight, *rest)
    except ValueError as error:
        if "kernel axes" not in str(error):
            raise
        _C.sparse_conv_forward(output, _contiguous(features), weight.contiguous(), *rest)
    return output


def _contiguous(tensor: Any) -> Any:
    return tensor if tensor is None or tensor.is_contiguous() else tensor.contiguous()


def _exchanged(weight: Tensor, groups: int) -> Tensor:
    """Return the weight (C_in, kz, ky, kx, C_out / groups) of the transposed operation."""
    if groups == 1:
        return weight.permute(4, 1, 2, 3, 0)
    out_channels, *kernel, depth = weight.shape
    grouped = weight.reshape(groups, out_channels // groups, *kernel, depth).permute(0, 5, 2, 3, 4, 1)
    return grouped.reshape(groups * depth, *kernel, out_channels // groups)


def _save(arguments: Any, output: Any) -> tuple[tuple[Tensor, ...], Any]:
    features, weight, _, neighbours, reverse, groups, order, reverse_order = arguments
    orders = (order is not None, reverse_order is not None)
    return (features, weight, neighbours, reverse, *(t for t in (order, reverse_order) if t is not None)), (
        groups,
        orders,
    )


def _restore(tensors: Any, constants: Any) -> tuple[Any, ...]:
    """Return features, weight, neighbours, reverse, groups and both orders."""
    groups, (ordered, reverse_ordered) = constants
    features, weight, neighbours, reverse, *orders = tensors
    order = orders.pop(0) if ordered else None
    reverse_order = orders.pop(0) if reverse_ordered else None
    return features, weight, neighbours, reverse, groups, order, reverse_order


def _backward(tensors: Any, constants: Any, needs: Any, grad_output: Tensor) -> tuple[Any, Any, Any]:
    features, weight, neighbours, reverse, groups, order, reverse_order = _restore(tensors, constants)
    grad_features = grad_weight = grad_bias = None
    if needs[0]:
        exchanged = _exchanged(weight, groups)
        grad_features = _sparse_conv(grad_output, exchanged, None, reverse, neighbours, groups, reverse_order, order)
    if needs[1]:
        _, kz, ky, kx, _ = weight.shape
        grad_weight = _sparse_conv_weight(features, grad_output, neighbours, reverse, kz, ky, kx, groups)
    if needs[2]:
        grad_bias = _row_sum(grad_output)
    return grad_features, grad_weight, grad_bias


def _row_sum(rows: Tensor) -> Tensor:
    """Return the sum of the rows, the same for every number of threads: the gradient to a weight of ones."""
    ones = rows.new_ones((1, 1))
    zeros = torch.zeros((1, rows.shape[0]), dtype=torch.int32, device=rows.device)
    summed: Tensor = _sparse_conv_weight(ones, rows, zeros, zeros.new_zeros((1, 1)), 1, 1, 1, 1)
    return summed.reshape(rows.shape[1])


def _jvp(tensors: Any, constants: Any, t_features: Any, t_weight: Any, t_bias: Any) -> Tensor:
    features, weight, *rest = _restore(tensors, constants)
    neighbours = rest[0]
    tangent: Tensor | None = None
    if t_features is not None:
        tangent = _sparse_conv(t_features, weight, t_bias, *rest)
    if t_weight is not None:
        bias = t_bias if tangent is None else None
        part = _sparse_conv(features, t_weight, bias, *rest)
        tangent = part if tangent is None else tangent + part
    if tangent is None:
        tangent = features.new_zeros((neighbours.shape[1], weight.shape[0])) + t_bias
    return tangent


_sparse_conv = Operator(
    "sparse_conv(Tensor features, Tensor weight, Tensor? bias, Tensor neighbours, Tensor reverse, int groups, "
    "Tensor? order, Tensor? reverse_order) -> Tensor",
    forward=_forward,
    fake=_fake,
    gradient=Gradient(("features", "weight", "bias"), _save, _backward, _jvp),
)


def _allocate_weight(
    features: Tensor,
    grad_output: Tensor,
    neighbours: Tensor,
    reverse: Tensor,
    kz: int,
    ky: int,
    kx: int,
    groups: int,
) -> Tensor:
    return features.new_empty((grad_output.shape[1], kz, ky, kx, features.shape[1] // groups))


def _forward_weight(
    features: Tensor,
    grad_output: Tensor,
    neighbours: Tensor,
    reverse: Tensor,
    kz: int,
    ky: int,
    kx: int,
    groups: int,
) -> Tensor:
    grad_weight = _allocate_weight(features, grad_output, neighbours, reverse, kz, ky, kx, groups)
    workspace = None
    if features.is_cuda or not _C.has_cpu_kernels:
        dtype = torch.float64 if features.dtype is torch.float64 else torch.float32
        size = grad_weight.numel() * _C.sparse_conv_weight_pieces(neighbours.shape[1])
        workspace = features.new_empty((size,), dtype=dtype)
    flat = grad_weight.view(grad_weight.shape[0], kz * ky * kx, grad_weight.shape[4])
    _C.sparse_conv_weight(
        flat,
        _contiguous(features),
        _contiguous(grad_output),
        _contiguous(neighbours),
        groups,
        workspace,
        may_use_tf32(features),
    )
    return grad_weight


# The gradient to the weight is linear in the features and in the gradient to the output.


def _save_weight(arguments: Any, output: Any) -> tuple[tuple[Tensor, ...], Any]:
    return tuple(arguments[:4]), tuple(arguments[4:])


def _backward_weight(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Any, Any]:
    features, grad_output, neighbours, reverse = tensors
    groups = constants[-1]
    grad_features = grad_grad_output = None
    if needs[0]:
        exchanged = _exchanged(grad, groups)
        grad_features = _sparse_conv(grad_output, exchanged, None, reverse, neighbours, groups, None, None)
    if needs[1]:
        grad_grad_output = _sparse_conv(features, grad, None, neighbours, reverse, groups, None, None)
    return grad_features, grad_grad_output


def _jvp_weight(tensors: Any, constants: Any, t_features: Any, t_grad_output: Any) -> Tensor:
    features, grad_output, *maps = tensors
    parts = []
    if t_features is not None:
        parts.append(_sparse_conv_weight(t_features, grad_output, *maps, *constants))
    if t_grad_output is not None:
        parts.append(_sparse_conv_weight(features, t_grad_output, *maps, *constants))
    total: Tensor = sum(parts[1:], parts[0])
    return total


_sparse_conv_weight = Operator(
    "sparse_conv_weight(Tensor features, Tensor grad_output, Tensor neighbours, Tensor reverse, SymInt kz, SymInt ky, "
    "SymInt kx, int groups) -> Tensor",
    forward=_forward_weight,
    fake=_allocate_weight,
    gradient=Gradient(("features", "grad_output"), _save_weight, _backward_weight, _jvp_weight),
)


def sparse_conv(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    reverse: Tensor,
    groups: int = 1,
    order: Tensor | None = None,
    reverse_order: Tensor | None = None,
) -> Tensor:
    """Convolve the features of active sites over a kernel map.

    ``output[m] = bias + sum_k weight[:, k] @ features[neighbours[k, m]]``, where a neighbour below 0 adds nothing.

    Parameters
    ----------
    features : Tensor (N, C_in)
        float16, bfloat16, float32 or float64, of any strides. Sums are kept in float32, or in float64 for float64.
    weight : Tensor (C_out, kz, ky, kx, C_in / groups)
        In the dtype of ``features``; K = kz * ky * kx.
    bias : Tensor (C_out,) or None
        In the dtype of ``features``.
    neighbours : Tensor (K, M)
        int32: the row of ``features`` that feeds output m through kernel element k, as :func:`sparse_kernel_map` gives
        it. No row may feed two outputs through the same element.
    reverse : Tensor (K, N)
        int32: the same map seen from the input, with which the gradient to ``features`` is computed. An inverse
        convolution has the two exchanged.
    groups : int
        Input channels of one group feed output channels of the same group.
    order, reverse_order : Tensor (M,), Tensor (N,), optional
        int32: permutations of the columns of ``neighbours`` and of ``reverse``. On CUDA, rows that are neighbours in
        this order are computed together, fastest where they have the same kernel elements: :func:`sparse_row_order`
        makes it. No other result depends on it, as long as ``weight`` is finite. Unused on the CPU.

    Returns
    -------
    Tensor (M, C_out)
        In the dtype of ``features``.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or a neighbour of N or more. On CUDA, where looking
        would cost a synchronisation, such a neighbour adds nothing.
    TypeError
        For an argument that is no tensor or of another dtype.

    Notes
    -----
    Differentiable in ``features``, ``weight`` and ``bias``, twice and in forward mode. Results and gradients are the
    same for every run and every number of threads: nothing is summed by atomics. Permuting the rows of ``features``
    permutes the rows of the result and nothing else. On CUDA float32 may be rounded to tf32 where
    ``torch.backends.cudnn`` allows it for convolutions, as torch's own are.

    References
    ----------
    Graham, Engelcke, van der Maaten: 3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (2018),
    section 3.

    Examples
    --------
    >>> from fastcv.ops import sparse_kernel_map
    >>> indices = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
    >>> _, neighbours, reverse = sparse_kernel_map(indices, (1, 1, 4), 1, (1, 1, 3), subm=True)
    >>> sparse_conv(torch.tensor([[1.0], [10.0]]), torch.ones(1, 1, 1, 3, 1), None, neighbours, reverse)
    tensor([[11.],
            [11.]])
    """
    check_tensor(features, "features")
    check_tensor(weight, "weight")
    if bias is not None:
        check_tensor(bias, "bias")
    check_tensor(neighbours, "neighbours")
    check_tensor(reverse, "reverse")
    for given, name in ((order, "order"), (reverse_order, "reverse_order")):
        if given is not None:
            check_tensor(given, name)
    output: Tensor = _sparse_conv(features, weight, bias, neighbours, reverse, groups, order, reverse_order)
    return output


def uses_row_order(neighbours: Tensor) -> bool:
    """Whether the kernels of this tensor's device take the rows in an order that they are given."""
    return neighbours.is_cuda or not _C.has_cpu_kernels


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
        raise ValueError(f"neighbours must have two axes, got {describe_shape(neighbours)}")
    volume = neighbours.shape[0]
    # One bit for each element, 31 at most: above that neighbouring elements share them, which sorts nearly as well.
    places = torch.arange(volume, dtype=torch.int32, device=neighbours.device) * 31 // max(volume, 31)
    masks = ((neighbours >= 0) * (1 << places)[:, None]).sum(0, dtype=torch.int32)
    return masks.argsort(stable=True).int()
