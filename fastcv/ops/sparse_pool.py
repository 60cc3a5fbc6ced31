"""Pooling over a kernel map: the largest, or the mean, of the sites under a kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcv.ops._define import Gradient, define

__all__ = ["sparse_avg_pool", "sparse_max_pool"]


def _fake(features: Tensor, neighbours: Tensor, *_: Any) -> Tensor:
    return features.new_empty((neighbours.shape[1], features.shape[1]))


def _fake_max(features: Tensor, neighbours: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    output = _fake(features, neighbours)
    return output, torch.empty_like(output, dtype=torch.int32)


def _fake_backward(grad_output: Tensor, _: Tensor, reverse: Tensor, *__: Any) -> Tensor:
    return grad_output.new_empty((reverse.shape[1], grad_output.shape[1]))


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


_sparse_max_pool = define(
    "sparse_max_pool(Tensor features, Tensor neighbours, Tensor reverse) -> (Tensor, Tensor)",
    fake=_fake_max,
    gradient=Gradient(("features",), _save, _backward, _jvp),
    inference="sparse_max_pool_values",
)

_sparse_max_pool_backward = define(
    "sparse_max_pool_backward(Tensor grad_output, Tensor argmax, Tensor reverse) -> Tensor",
    fake=_fake_backward,
    adjoint=_max_adjoint,
)


# The mean is linear, and each of the pair is the transpose of the other.


def _avg_adjoint(grad: Tensor, shape: Any, *rest: Any) -> Any:
    return _sparse_avg_pool_backward(grad, *rest)


def _avg_adjoint_gradient(grad: Tensor, shape: Any, *rest: Any) -> Any:
    return _sparse_avg_pool(grad, *rest)


_sparse_avg_pool = define(
    "sparse_avg_pool(Tensor features, Tensor neighbours, Tensor reverse, bool count_include_missing) -> Tensor",
    fake=_fake,
    adjoint=_avg_adjoint,
)

_sparse_avg_pool_backward = define(
    "sparse_avg_pool_backward(Tensor grad_output, Tensor neighbours, Tensor reverse, bool count_include_missing) "
    "-> Tensor",
    fake=_fake_backward,
    adjoint=_avg_adjoint_gradient,
)


def sparse_max_pool(features: Tensor, neighbours: Tensor, reverse: Tensor) -> Tensor:
    """Take the largest of each site's neighbours, channel by channel.

    Parameters
    ----------
    features : Tensor (N, C)
        One row per input site: float16, bfloat16, float32 or float64.
    neighbours : Tensor (K, M)
        int32: the row of ``features`` that each output site sees through each kernel element; negative where there is
        none. See ``sparse_kernel_map``.
    reverse : Tensor (K, N), or (0, N) where no gradient will be wanted
        int32: the same the other way round, the output row that sees each input row through each kernel element; needed
        for the gradient. Two rows are linked through one element at most. The two maps may have different K.

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
        For an argument that is not a tensor or of an unsupported dtype.

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
        int32: the row of ``features`` that each output site sees through each kernel element; negative where there is
        none. See ``sparse_kernel_map``.
    reverse : Tensor (K, N), or (0, N) where no gradient will be wanted
        int32: the same the other way round; needed for the gradient. The two maps may have different K.
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
        For an argument that is not a tensor or of an unsupported dtype.

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
    output: Tensor = _sparse_avg_pool(features, neighbours, reverse, count_include_missing)
    return output
