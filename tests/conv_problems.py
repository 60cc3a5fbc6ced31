"""What the tests of transposed convolution share: its peers in torch, random tensors, comparisons."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv.ops import conv_transpose1d, conv_transpose2d, conv_transpose3d

OPS = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}
TORCH = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
# Of the norm of the result: one rounding of the result for halves, whose sums are kept in float32.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def distance(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert actual.shape == expected.shape
    return float((actual.double().cpu() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))


def check(backend: Any, input: Tensor, weight: Tensor, bias: Tensor | None, options: dict[str, Any], peer: Any) -> None:
    """Compare values and all gradients with ``peer`` in float64."""
    dims = input.dim() - 2
    leaves = [t.clone().requires_grad_() if t is not None else None for t in (input, weight, bias)]
    moved = [t.detach().to(backend.device).requires_grad_() if t is not None else None for t in leaves]
    expected = peer(*leaves, **options)
    actual = OPS[dims](*moved, **options)
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-10, atol=1e-10)
    seed = random(*expected.shape, seed=3)
    wanted = [t for t in leaves if t is not None]
    expected_gradients = torch.autograd.grad(expected, wanted, seed)
    gradients = torch.autograd.grad(actual, [t for t in moved if t is not None], seed.to(backend.device))
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-10, atol=1e-10)
