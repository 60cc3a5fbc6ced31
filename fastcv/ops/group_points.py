"""Features of points gathered by index, and weighted sums of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastcv.ops._arguments import check_tensor, describe_shape
from fastcv.ops._define import define

__all__ = ["gather_points", "group_points", "three_interpolate"]


def _fake(features: Tensor, indices: Tensor, weights: Tensor | None) -> Tensor:
    groups = indices.shape if weights is None else indices.shape[:-1]
    return features.new_empty((*groups, features.shape[2]))


def _fake_backward(grad_output: Tensor, indices: Tensor, weights: Tensor | None, count: int) -> Tensor:
    return grad_output.new_empty((grad_output.shape[0], count, grad_output.shape[-1]))


# The op is linear in the features, and each of the pair is the transpose of the other.


def _adjoint(grad_output: Tensor, shape: Any, indices: Tensor, weights: Tensor | None) -> Any:
    return _group_points_backward(grad_output, indices, weights, shape[1])


def _adjoint_backward(grad: Tensor, shape: Any, indices: Tensor, weights: Tensor | None, *_: Any) -> Any:
    return _group_points(grad, indices, weights)


_group_points = define(
    "group_points(Tensor features, Tensor indices, Tensor? weights) -> Tensor",
    fake=_fake,
    adjoint=_adjoint,
)

_group_points_backward = define(
    "group_points_backward(Tensor grad_output, Tensor indices, Tensor? weights, SymInt count) -> Tensor",
    fake=_fake_backward,
    adjoint=_adjoint_backward,
)


def group_points(features: Tensor, indices: Tensor) -> Tensor:
    """Gather the features of points by index, as of the neighbours that :func:`knn` or :func:`ball_query` found.

    Parameters
    ----------
    features : Tensor (B, N, C)
        Features of the points, or their coordinates: float16, bfloat16, float32 or float64. Channels come last.
    indices : Tensor (B, ...), int64 or int32
        Indices into the cloud, such as (B, Q, k), of 2 to 7 axes; -1 for no point.

    Returns
    -------
    Tensor (B, ..., C)
        ``features[b, indices[b, ...]]``; zeros for -1.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or an index outside of [-1, N). On CUDA, where
        looking would cost a synchronisation, such an index gives zeros.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode. The gradient sums in a fixed order, without atomics: the
    same bits on every run.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.2, "Grouping layer".

    Examples
    --------
    >>> group_points(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[1, -1]]))
    tensor([[[3., 4.],
             [0., 0.]]])
    """
    grouped: Tensor = _group_points(features, indices, None)
    return grouped


def gather_points(features: Tensor, indices: Tensor) -> Tensor:
    """Gather the features of chosen points, channels first.

    Parameters
    ----------
    features : Tensor (B, C, N)
        float16, bfloat16, float32 or float64.
    indices : Tensor (B, M), int64 or int32
        Of :func:`farthest_point_sample`, for instance; -1 for no point.

    Returns
    -------
    Tensor (B, C, M)
        ``features[b, :, indices[b, m]]``, contiguous; zeros for -1.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or an index outside of [-1, N). On CUDA, where
        looking would cost a synchronisation, such an index gives zeros.
    TypeError
        For an argument that is no tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode; the gradient is deterministic.

    References
    ----------
    Chen et al.: MMCV (2018), ``gather_points``; Qi, Yi, Su, Guibas: PointNet++ (2017).

    Examples
    --------
    >>> gather_points(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[2, 0]]))
    tensor([[[3., 1.]]])
    """
    check_tensor(features, "features")
    check_tensor(indices, "indices")
    if features.dim() != 3:
        raise ValueError(f"features must have shape (B, C, N), got {describe_shape(features)}")
    if indices.dim() != 2:
        raise ValueError(f"indices must have shape (B, M), got {describe_shape(indices)}")
    return group_points(features.transpose(1, 2), indices).transpose(1, 2).contiguous()


def three_interpolate(features: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Interpolate features from three (or any number of) known points each.

    Parameters
    ----------
    features : Tensor (B, M, C)
        Features of the known points: float16, bfloat16, float32 or float64. Channels come last.
    indices : Tensor (B, N, K), int64 or int32
        The known points of each of the N wanted ones, in PointNet++ the three nearest; -1 for no point.
    weights : Tensor (B, N, K)
        Their weights, of any floating dtype, used in float32 (float64 when ``features`` is float64); in PointNet++ the
        inverse squared distances, normalised to sum one.

    Returns
    -------
    Tensor (B, N, C)
        ``sum_j weights[b, n, j] * features[b, indices[b, n, j]]``, summed in float32 (float64 for float64) in the order
        of j.

    Raises
    ------
    ValueError
        For a tensor of another shape, tensors on different devices, or an index outside of [-1, M). On CUDA, where
        looking would cost a synchronisation, such an index counts as -1.
    TypeError
        For an argument that is not a tensor or of an unsupported dtype.

    Notes
    -----
    Differentiable in ``features``, twice and in forward mode; the gradient is deterministic. ``weights`` get no
    gradient.

    References
    ----------
    Qi, Yi, Su, Guibas: PointNet++ (2017), section 3.4, equation 2.

    Examples
    --------
    >>> features = torch.tensor([[[0.0], [10.0]]])
    >>> three_interpolate(features, torch.tensor([[[0, 1, -1]]]), torch.tensor([[[0.25, 0.75, 0.0]]]))
    tensor([[[7.5000]]])
    """
    check_tensor(weights, "weights")  # None would group
    output: Tensor = _group_points(features, indices, weights)
    return output
