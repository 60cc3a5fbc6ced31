"""Pooling over a kernel map: the largest, or the mean, of the sites under a kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv import _C
from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import Gradient, Operator

__all__ = ["sparse_avg_pool", "sparse_max_pool"]


def _allocate(features: Tensor, neighbours: Tensor, reverse: Tensor, *_: Any) -> Tensor:
    shape, sites, back = features.shape, neighbours.shape, reverse.shape
    if len(shape) != 2:
        raise ValueError(f"features must have shape (N, C), got {describe_shape(features)}")
    if len(sites) != 2:
        raise ValueError(f"neighbours must have shape (K, M), got {describe_shape(neighbours)}")
    if len(back) != 2:
        raise ValueError(f"reverse must have shape (K, N), got {describe_shape(reverse)}")
    rows, channels = shape
    if type(rows) is int and type(back[1]) is int:
        if back[1] != rows:
            raise ValueError(f"reverse must have shape (K, N) with N = {rows}, got {describe_shape(reverse)}")
    else:  # the number of sites is not known yet
        torch._check_value(back[1] == rows, lambda: "reverse must have one column per row of features")
    return features.new_empty_strided((sites[1], channels), (channels, 1))


def _allocate_both(features: Tensor, neighbours: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    output = _allocate(features, neighbours, reverse)
    return output, torch.empty_like(output, dtype=torch.int32)


def _max_forward(features: Tensor, neighbours: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    output, argmax = _allocate_both(features, neighbours, reverse)
    _C.sparse_max_pool_forward(output, argmax, features.contiguous(), neighbours.contiguous())
    return output, argmax


def _max_values(features: Tensor, neighbours: Tensor, reverse: Tensor) -> tuple[Tensor]:
    output = _allocate(features, neighbours, reverse)
    _C.sparse_max_pool_values(output, features.contiguous(), neighbours.contiguous())
    return (output,)


def _allocate_gradient(grad_output: Tensor, _: Tensor, reverse: Tensor, *__: Any) -> Tensor:
    return grad_output.new_empty(reverse.shape[1], grad_output.shape[1])


def _max_gradient(grad_output: Tensor, argmax: Tensor, reverse: Tensor) -> Tensor:
    grad = _allocate_gradient(grad_output, argmax, reverse)
    _C.sparse_max_pool_backward(grad, grad_output.contiguous(), argmax.contiguous(), reverse.contiguous())
    return grad


def _gather(values: Tensor, argmax: Tensor) -> Tensor:
    """Return what (N, C) holds in row argmax (M, C), 0 where that is -1: the transpose of the backward."""
    if values.shape[0] == 0:
        return values.sum() * 0 + values.new_zeros(argmax.shape)
    return values.gather(0, argmax.clamp(min=0).long()) * (argmax >= 0)


# Given argmax the largest is linear: a gather, whose transpose is the backward.


def _save(arguments: tuple[Any, ...], outputs: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, ...], Any]:
    return (outputs[1], arguments[2]), None


def _backward(tensors: Any, _: Any, needs: Any, grad_output: Tensor, __: Any) -> tuple[Tensor]:
    return (_sparse_max_pool_backward(grad_output, *tensors),)


def _jvp(tensors: Any, _: Any, tangent: Tensor) -> Any:
    return _gather(tangent, tensors[0]), None


def _max_adjoint(grad: Tensor, shape: Any, argmax: Tensor, reverse: Tensor) -> Tensor:
    return _gather(grad, argmax)


_sparse_max_pool = Operator(
    "sparse_max_pool(Tensor features, Tensor neighbours, Tensor reverse) -> (Tensor, Tensor)",
    forward=_max_forward,
    fake=_allocate_both,
    gradient=Gradient(("features",), _save, _backward, _jvp),
    inference=_max_values,
)

_sparse_max_pool_backward = Operator(
    "sparse_max_pool_backward(Tensor grad_output, Tensor argmax, Tensor reverse) -> Tensor",
    forward=_max_gradient,
    fake=_allocate_gradient,
    adjoint=_max_adjoint,
)


def _avg_forward(features: Tensor, neighbours: Tensor, reverse: Tensor, count_include_missing: bool) -> Tensor:
    output = _allocate(features, neighbours, reverse)
    _C.sparse_avg_pool_forward(output, features.contiguous(), neighbours.contiguous(), count_include_missing)
    return output


def _avg_gradient(grad_output: Tensor, neighbours: Tensor, reverse: Tensor, count_include_missing: bool) -> Tensor:
    grad = _allocate_gradient(grad_output, neighbours, reverse)
    counts = neighbours.new_empty(grad_output.shape[0])
    maps = neighbours.contiguous(), reverse.contiguous()
    _C.sparse_avg_pool_backward(grad, grad_output.contiguous(), counts, *maps, count_include_missing)
    return grad


# The mean is linear, and each of the pair is the transpose of the other.


def _avg_adjoint(grad: Tensor, shape: Any, *rest: Any) -> Any:
    return _sparse_avg_pool_backward(grad, *rest)


def _avg_adjoint_gradient(grad: Tensor, shape: Any, *rest: Any) -> Any:
    return _sparse_avg_pool(grad, *rest)


_sparse_avg_pool = Operator(
    "sparse_avg_pool(Tensor features, Tensor neighbours, Tensor reverse, bool count_include_missing) -> Tensor",
    forward=_avg_forward,
    fake=_allocate,
    adjoint=_avg_adjoint,
)

_sparse_avg_pool_backward = Operator(
    "sparse_avg_pool_backward(Tensor grad_output, Tensor neighbours, Tensor reverse, bool count_include_missing) "
    "-> Tensor",
    forward=_avg_gradient,
    fake=_allocate_gradient,
    adjoint=_avg_adjoint_gradient,
)


def sparse_max_pool(features: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
    """Take the largest of each site's neighbours, channel by channel.

    Parameters
    ----------
    features : Tensor (N, C)
        One row per input site: float16, bfloat16, float32 or float64.
    neighbours : Tensor (K, M)
        int32: the row of ``features`` that each output site sees through each kernel offset; negative where there is
        none. See ``sparse_kernel_map``.
    reverse : Tensor (K, N)
        int32: the same the other way round, the output row that sees each input row through each kernel offset; needed
        for the gradient. Two rows are linked through one offset at most. The two maps may have different numbers of
        offsets.

    Returns
    -------
    Tensor (M, C)
        In the dtype of ``features``. A site without neighbours gives 0. As in ``torch.nn.functional.max_pool3d``, NaN
        is larger than all.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or a map that names a row beyond the last. On
        CUDA, where looking would cost a synchronisation, such a row counts as missing.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode. The gradient goes to the first along K of equal values;
    it is deterministic.

    References
    ----------
    Graham, Engelcke, van der Maaten: 3D Semantic Segmentation with Submanifold Sparse Convolutional Networks (2018).

    Examples
    --------
    >>> features = torch.tensor([[-1.0], [-2.0], [-3.0]])
    >>> neighbours = torch.tensor([[0, 2], [1, -1]], dtype=torch.int32)
    >>> reverse = torch.tensor([[0, -1, 1], [-1, 0, -1]], dtype=torch.int32)
    >>> sparse_max_pool(features, neighbours, reverse)
    tensor([[-1.],
            [-3.]])
    """
    check_tensor(features, "features")
    check_tensor(neighbours, "neighbours")
    check_tensor(reverse, "reverse")
    output: Tensor = _sparse_max_pool(features, neighbours, reverse)[0]
    return output


def sparse_avg_pool(
    features: Tensor, neighbours: Tensor, reverse: Tensor, count_include_missing: bool = False
) -> Tensor:
    """Average each site's neighbours.

    Parameters
    ----------
    features : Tensor (N, C)
        One row per input site: float16, bfloat16, float32 or float64. Sums are kept in float32, or in float64 for
        float64.
    neighbours : Tensor (K, M)
        int32: the row of ``features`` that each output site sees through each kernel offset; negative where there is
        none. See ``sparse_kernel_map``.
    reverse : Tensor (K, N)
        int32: the same the other way round; needed for the gradient. The two maps may have different numbers of
        offsets.
    count_include_missing : bool
        Divide by K, as if missing neighbours were zeros; otherwise by the number of neighbours that are there.

    Returns
    -------
    Tensor (M, C)
        In the dtype of ``features``. A site without neighbours gives 0.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or a map that names a row beyond the last. On
        CUDA, where looking would cost a synchronisation, such a row counts as missing.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Linear in ``features``: differentiable any number of times and in forward mode, and deterministic.

    Examples
    --------
    >>> features = torch.tensor([[1.0], [2.0], [3.0]])
    >>> neighbours = torch.tensor([[0, 2], [1, -1]], dtype=torch.int32)
    >>> reverse = torch.tensor([[0, -1, 1], [-1, 0, -1]], dtype=torch.int32)
    >>> sparse_avg_pool(features, neighbours, reverse)
    tensor([[1.5000],
            [3.0000]])
    """
    check_tensor(features, "features")
    check_tensor(neighbours, "neighbours")
    check_tensor(reverse, "reverse")
    output: Tensor = _sparse_avg_pool(features, neighbours, reverse, bool(count_include_missing))
    return output
