"""Batch normalisation with fixed statistics, and folding it into the convolution before it."""

from typing import Any

import torch
from torch import Tensor, nn

from fastcv.nn._plain import is_plain_convolution, is_untouched

__all__ = ["FrozenBatchNorm2d", "fold_batch_norm", "has_fixed_statistics", "scale_and_shift"]


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics and affine parameters are buffers, which training does not change.

    A drop-in for ``torchvision.ops.FrozenBatchNorm2d``.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # BatchNorm2d has it
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, H, W)."""
        scale, shift = scale_and_shift(self)
        return x * scale[:, None, None] + shift[:, None, None]

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


def scale_and_shift(norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale (C,) and shift (C,) of a normalisation with its running statistics."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else norm.weight * scale
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def has_fixed_statistics(norm: nn.Module) -> bool:
    """Whether a normalisation is a linear map in its current mode."""
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    return type(norm) is nn.BatchNorm2d and not norm.training and norm.running_mean is not None


@torch.no_grad()
def fold_batch_norm(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Multiply a normalisation into the convolution before it, permanently and in place, and return its replacement.

    Where one of them is not torch's own, or has hooks, both stay as they are.
    """
    if isinstance(norm, nn.Identity) or not is_plain_convolution(conv) or not is_untouched(norm):
        return norm
    if not has_fixed_statistics(norm):
        raise ValueError(f"norm must be a batch normalisation in evaluation mode, got {norm}")
    # In float64, so that the product is rounded only once.
    scale, shift = (value.double() for value in scale_and_shift(norm))  # type: ignore[arg-type]
    weight: Any = conv.weight
    bias: Any = conv.bias
    folded = shift if bias is None else shift + bias.double() * scale
    conv.weight = nn.Parameter((weight.double() * scale[:, None, None, None]).to(weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(folded.to(weight.dtype), requires_grad=False)
    return nn.Identity()
