"""What nvcc made of the kernels gives the bits of their twins in plain C++."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import native_modules
from op_case import OpCase, all_cases, map_tensors, tensors_of
from ptx.build import nvcc
from torch import Tensor

from fastcv.ops import conv_transpose2d, sparse_conv
from fastcv.ops._call import COMPILED

pytestmark = [pytest.mark.ptx, pytest.mark.skipif(nvcc() is None, reason="needs nvcc")]

CASES = list(all_cases())
DTYPES = (torch.float64, torch.float32, torch.float16)
# nvcc fuses multiply_add (core/types.h), the twin has no such instruction: sums are rounded less often.
FUSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sparse_conv", "deform_conv2d"}
FUSED |= {"roi_align", "roi_align_rotated", "ps_roi_align", "three_interpolate"}
# exp, log, pow and atan are those of CUDA's library.
LIBRARY = {"encode_boxes", "decode_boxes", "decode_yolo", "sigmoid_focal_loss"}
LIBRARY |= {"complete_box_iou", "complete_box_iou_loss"}
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 2e-3}
Both = Callable[[Callable[[], Any]], list[list[Tensor]]]


@contextmanager
def compiled(module: ModuleType) -> Iterator[None]:
    """The operators call this module."""
    with pytest.MonkeyPatch.context() as patch:
        for operators in native_modules():
            patch.setattr(operators, "_C", module)
        patch.setitem(COMPILED, "_C", module)
        yield


@pytest.fixture
def both(emulated_module: ModuleType, ptx_module: ModuleType) -> Both:
    """Calls a function with the one module and with the other."""

    def call(function: Callable[[], Any]) -> list[list[Tensor]]:
        results = []
        for module in (emulated_module, ptx_module):
            with compiled(module):
                results.append(tensors_of(function()))
        return results

    return call


def assert_same(results: list[list[Tensor]], tolerance: float = 0.0) -> None:
    """Any NaN equals any other."""
    for one, other in zip(*results, strict=True):
        assert one.dtype is other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def arguments_of(case: OpCase, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """The sample, with floats of that dtype, and a gradient where there is one."""
    changed = map_tensors(case.sample(seed), lambda t: t.to(dtype) if t.dtype is torch.float64 else t)
    for name in case.differentiable if case.order else ():
        changed[name] = map_tensors(changed[name], lambda t: t.detach().clone().requires_grad_())
    return dict(changed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_bits(both: Both, case: OpCase, dtype: torch.dtype) -> None:
    def run() -> list[Tensor]:
        arguments = arguments_of(case, dtype, 0)
        results = tensors_of(case.function(**arguments))
        leaves = [leaf for name in case.differentiable if case.order for leaf in tensors_of(arguments[name])]
        with_gradient = [tensor for tensor in results if tensor.requires_grad]
        if not with_gradient:
            return results
        grads = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).reshape(t.shape) for t in with_gradient]
        gradients = torch.autograd.grad(with_gradient, leaves, grads, allow_unused=True)
        return [tensor.detach() for tensor in results] + [gradient for gradient in gradients if gradient is not None]

    assert_same(both(run), TOLERANCE[dtype] if case.name in FUSED | LIBRARY else 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tensor_cores_give_the_same_bits(both: Both, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers, whose sums are rounded: the sums run in one order."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    maps = torch.stack([torch.randperm(70, generator=generator)[:66] for _ in range(6)]).int()
    reverse = torch.full((6, 70), -1, dtype=torch.int32)
    for k in range(6):
        reverse[k, maps[k].long()] = torch.arange(66, dtype=torch.int32)
    image, weight = random(2, 40, 5, 9).to(memory_format=torch.channels_last), random(40, 72, 3, 3)
    features, kernel = random(70, 40), random(72, 1, 1, 6, 40)
    grads = random(2, 72, 9, 17), random(66, 72)

    def run() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (image, weight, features, kernel)]
        results = [conv_transpose2d(leaves[0], leaves[1], stride=2, padding=1)]
        results.append(sparse_conv(leaves[2], leaves[3], None, maps, reverse))
        return [*results, *torch.autograd.grad(results, leaves, grads)]

    assert_same(both(run))
