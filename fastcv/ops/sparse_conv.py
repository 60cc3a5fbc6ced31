"""Sparse convolution: the features of active sites, gathered over a kernel map."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastcv.ops._arguments import describe_shape
from fastcv.ops._call import COMPILED
from fastcv.ops._define import Gradient, define
from fastcv.ops.ordered_sum import ordered_sum

__all__ = ["sparse_conv"]


def _fake(features: Tensor, weight: Tensor, bias: Tensor | None, neighbours: Tensor, *_: Any) -> Tensor:
    return features.new_empty((neighbours.shape[1], weight.shape[0]))


def _exchanged(weight: Tensor, groups: int) -> Tensor:
    """Return the weight (C_in, kz, ky, kx, C_out / groups) of the transposed operation."""
    if groups == 1:
        return weight.permute(4, 1, 2, 3, 0)
    out_channels, *kernel, depth = weight.shape
    grouped = weight.reshape(groups, out_channels // groups, *kernel, depth).permute(0, 5, 2, 3, 4, 1)
    return grouped.reshape(groups * depth, *kernel, out_channels // groups)


def _mirrored(neighbours: Tensor, reverse: Tensor | None) -> Tensor:
    """Return the map seen from the input."""
    if reverse is None:
        return neighbours.flip(0)
    if reverse.shape[0] == 0:
        raise ValueError(
            f"reverse must be the map seen from the input where features want a gradient, got {describe_shape(reverse)}"
        )
    return reverse


def _save(arguments: Any, output: Any) -> tuple[Any, Any]:
    features, weight, _, neighbours, reverse, groups, order, reverse_order = arguments
    return (features, weight, neighbours, reverse, order, reverse_order), groups


def _backward(tensors: Any, groups: int, needs: Any, grad_output: Tensor) -> tuple[Any, Any, Any]:
    features, weight, neighbours, reverse, order, reverse_order = tensors
    grad_features = grad_weight = grad_bias = None
    if needs[0]:
        maps = (_mirrored(neighbours, reverse), neighbours, groups, reverse_order, order)
        grad_features = _sparse_conv(grad_output, _exchanged(weight, groups), None, *maps)
    if needs[1]:
        grad_weight = _sparse_conv_weight(features, grad_output, neighbours, reverse, *weight.shape[1:4], groups)
    if needs[2]:
        grad_bias = ordered_sum(grad_output, axis=1)
    return grad_features, grad_weight, grad_bias


def _jvp(tensors: Any, groups: int, t_features: Any, t_weight: Any, t_bias: Any) -> Tensor:
    features, weight, neighbours, reverse, *orders = tensors
    maps = (neighbours, reverse, groups, *orders)
    tangent: Tensor | None = None
    if t_features is not None:
        tangent = _sparse_conv(t_features, weight, t_bias, *maps)
    if t_weight is not None:
        bias = t_bias if tangent is None else None
        part = _sparse_conv(features, t_weight, bias, *maps)
        tangent = part if tangent is None else tangent + part
    if tangent is None:
        tangent = features.new_zeros((neighbours.shape[1], weight.shape[0])) + t_bias
    return tangent


_sparse_conv = define(
    "sparse_conv(Tensor features, Tensor weight, Tensor? bias, Tensor neighbours, Tensor? reverse, int groups, "
    "Tensor? order, Tensor? reverse_order) -> Tensor",
    fake=_fake,
    gradient=Gradient(("features", "weight", "bias"), _save, _backward, _jvp),
)


# The gradient to the weight is linear in the features and in the gradient to the output.


def _fake_weight(
    features: Tensor,
    grad_output: Tensor,
    neighbours: Tensor,
    reverse: Tensor | None,
    kz: int,
    ky: int,
    kx: int,
    groups: int,
) -> Tensor:
    return features.new_empty((grad_output.shape[1], kz, ky, kx, features.shape[1] // groups))


def _save_weight(arguments: Any, output: Any) -> tuple[tuple[Tensor, ...], Any]:
    return tuple(arguments[:4]), tuple(arguments[4:])


def _backward_weight(tensors: Any, constants: Any, needs: Any, grad: Tensor) -> tuple[Any, Any]:
    features, grad_output, neighbours, reverse = tensors
    groups = constants[-1]
    grad_features = grad_grad_output = None
    if needs[0]:
        maps = (_mirrored(neighbours, reverse), neighbours, groups, None, None)
        grad_features = _sparse_conv(grad_output, _exchanged(grad, groups), None, *maps)
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


_sparse_conv_weight = define(
    "sparse_conv_weight(Tensor features, Tensor grad_output, Tensor neighbours, Tensor? reverse, SymInt kz, SymInt ky, "
    "SymInt kx, int groups) -> Tensor",
    fake=_fake_weight,
    gradient=Gradient(("features", "grad_output"), _save_weight, _backward_weight, _jvp_weight),
)


def sparse_conv(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    reverse: Tensor | None,
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
    reverse : Tensor (K, N) or (0, N), or None
        int32: the same map seen from the input, with which the gradient to ``features`` is computed; without rows
        where none will be wanted. An inverse convolution has the two exchanged. None stands for
        ``neighbours.flip(0)``, what the map of a submanifold convolution with odd K has; it is made where a gradient
        needs it.
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
        For an argument that is not a tensor or of another dtype.

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
    output: Tensor = _sparse_conv(features, weight, bias, neighbours, reverse, groups, order, reverse_order)
    return output


# ---- for inference, what layers ask for: no derivatives, plain tensors ----


def pack(weight: Tensor, groups: int, has_beside: bool) -> Tensor | None:
    """Return a weight as :func:`infer` reads it, or None on CUDA. Its layout depends on the processor."""
    packed: Tensor | None = COMPILED["_C"].sparse_conv_pack(weight, groups, has_beside)
    return packed


def infer(
    features: Tensor,
    beside: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor,
    groups: int,
    order: Tensor | None,
    residual: Tensor | None,
    activation: str | None,
    negative_slope: float,
    packed: Tensor | None,
) -> Tensor:
    """Return ``activation(sparse_conv(...) + residual)`` in one pass.

    ``beside`` (N, C_in) are further channels, whose weights follow those of ``features`` (N, C_in). With ``packed``
    only the shape of ``weight`` counts.
    """
    options = (groups, order, residual, activation, negative_slope, packed)
    output: Tensor = COMPILED["_C"].sparse_conv_inference(features, beside, weight, bias, neighbours, *options)
    return output
