"""Convolutions that keep their weight in its packed form alone: whoever asks for it gets it, bit by bit."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcv import _C
from fastcv.models.detection import create
from fastcv.nn import Conv2d


def released(*arguments: Any, **options: Any) -> tuple[Conv2d, Tensor, Tensor]:
    """A module that has let its weight go, the weight, and an input."""
    torch.manual_seed(0)
    conv = Conv2d(*arguments, **options).optimize()
    conv.release_weight()
    weight = conv.weight.detach().clone()
    x = torch.randn(2, arguments[0], 9, 11)
    conv(x)
    return conv, weight, x


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((5, 70, 1), {}), ((3, 7, 3), {"stride": 2}), ((6, 10, 3), {"groups": 2, "dilation": 2}), ((4, 130, (2, 5)), {})],
)
@pytest.mark.parametrize("variant", ["baseline", "avx2", "avx512"])
def test_the_weight_comes_back(variant: str, arguments: Any, options: Any) -> None:
    try:
        _C.set_cpu_variant(variant)
    except (ValueError, RuntimeError):
        pytest.skip(f"this processor has no {variant}")
    try:
        conv, weight, x = released(*arguments, **options)
        assert conv._is_released
        assert conv._parameters["weight"].isnan().all()
        assert conv._parameters["weight"].shape == weight.shape
        y = conv(x)
        assert torch.equal(y, conv(x))
        assert torch.equal(conv.weight, weight)
        assert not conv._is_released
        assert torch.equal(conv(x), y)
        assert conv._is_released
    finally:
        _C.set_cpu_variant(str(_C.build_info()["cpu_variants"][-1]))


def test_state_copies_and_other_places() -> None:
    conv, weight, x = released(6, 9, 1)
    y = conv(x)
    assert torch.equal(conv.state_dict()["weight"], weight)
    conv(x)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other.weight, weight)
        assert torch.equal(other(x), y)
    conv(x)
    conv.to("cpu")
    assert conv._is_released, "nothing moved"
    conv.load_state_dict({"weight": 2 * weight, "bias": torch.zeros(9)})
    assert torch.equal(conv.weight, 2 * weight)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, 2 * weight), rtol=1e-5, atol=1e-5)
    conv.double()
    assert torch.equal(conv.weight, 2 * weight.double())
    torch.testing.assert_close(conv(x.double()), nn.functional.conv2d(x.double(), 2 * weight.double()))
    assert not conv._is_released


def test_functions_that_write_are_seen() -> None:
    conv, weight, x = released(6, 9, 1)
    conv._apply(lambda tensor: tensor.mul_(2))
    assert torch.equal(conv.weight, 2 * weight)
    conv(x)
    with torch.no_grad():
        conv.weight.mul_(2)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, 4 * weight, conv.bias), rtol=1e-5, atol=1e-5)


def test_without_version_counters() -> None:
    """torch.inference_mode: what is made in it stays ordinary tensors."""
    torch.manual_seed(0)
    conv = Conv2d(6, 9, 1).optimize()
    conv.release_weight()
    weight, x = conv.weight.detach().clone(), torch.randn(2, 6, 5, 5)
    with torch.inference_mode():
        y = conv(x)
        assert conv._is_released
        assert torch.equal(conv.weight, weight)
        assert torch.equal(conv(x), y)
    assert not conv.weight.is_inference()
    with torch.no_grad():
        conv.weight.mul_(2)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, 2 * weight, conv.bias), rtol=1e-5, atol=1e-5)


def test_from_many_threads() -> None:
    """Some ask for the weight while others run and let it go."""
    conv, weight, x = released(6, 9, 1)
    y, wrong = conv(x), []

    def work() -> None:
        for turn in range(200):
            if turn % 3 == 0 and not torch.equal(conv.weight, weight):
                wrong.append("weight")
            if not torch.equal(conv(x), y):
                wrong.append("result")

    threads = [threading.Thread(target=work) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_other_ways_have_the_weight() -> None:
    """Gradients, traces, other dtypes of the input: torch's convolution."""
    conv, weight, x = released(6, 9, 1)
    conv(x.requires_grad_()).sum().backward()
    expected = x.detach().clone().requires_grad_()
    nn.functional.conv2d(expected, weight).sum().backward()
    torch.testing.assert_close(x.grad, expected.grad, rtol=1e-5, atol=1e-5)
    x = x.detach()
    y = conv(x)
    assert conv._is_released
    traced = torch.jit.trace(conv, x)
    torch.testing.assert_close(traced(x), y, rtol=1e-5, atol=1e-5)
    conv(x)
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), y, rtol=1e-5, atol=1e-5)


def test_where_nothing_is_released() -> None:
    for arguments, options in (((8, 8, 3), {"padding": 1}), ((8, 8, 3), {"groups": 8})):
        conv, _, x = released(*arguments, **options)
        conv(x)
        assert not conv._is_released
    half = Conv2d(8, 8, 1).bfloat16().optimize()
    half.release_weight()
    half(torch.randn(1, 8, 4, 4).bfloat16())
    assert not half._is_released


def test_detectors() -> None:
    """They give the same detections, the state they had, and take less memory."""
    torch.manual_seed(0)
    model = create("fasterrcnn_tiny_fpn", num_classes=3, min_size=64).eval().optimize()
    images = [torch.rand(3, 64, 64)]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        (first,) = model(images)
        (second,) = model.to("cpu")(images)
    parts = [module for module in model.modules() if isinstance(module, Conv2d)]
    assert sum(part._is_released for part in parts) > 10
    assert model.roi_heads.box_head.fc6._is_released
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    with torch.no_grad():
        (third,) = model(images)
    for name, value in first.items():
        assert torch.equal(second[name], value)
        assert torch.equal(third[name], value)
