"""The deformable convolution module against torchvision's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastcv.nn import DeformConv2d

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((6, 4, 3), {}),
    ((6, 4, (3, 2)), {"stride": 2, "padding": (0, 1), "dilation": (2, 1), "groups": 2, "bias": False}),
]


@pytest.mark.parametrize(("arguments", "options"), ARGUMENTS)
def test_constructor_state_and_values_are_those_of_torchvision(
    backend: Any, torchvision_ops: Any, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    ours = DeformConv2d(*arguments, **options)
    torch.manual_seed(0)
    theirs = torchvision_ops.DeformConv2d(*arguments, **options)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(ours, name) == getattr(theirs, name)
    ours.load_state_dict(theirs.state_dict())
    ours.to(backend.device)
    input = torch.randn(2, 6, 7, 8)
    size = torch.nn.functional.conv2d(
        input[:, :1], theirs.weight[:1, :1], None, theirs.stride, theirs.padding, theirs.dilation
    ).shape
    taps = theirs.kernel_size[0] * theirs.kernel_size[1]
    offset, mask = torch.randn(2, 2 * taps, *size[2:]), torch.rand(2, taps, *size[2:])
    for masks in (None, mask):
        moved = None if masks is None else masks.to(backend.device)
        output = ours(input.to(backend.device), offset.to(backend.device), moved)
        torch.testing.assert_close(output.cpu(), theirs(input, offset, masks), rtol=1e-5, atol=1e-5)


def test_bad_groups() -> None:
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        DeformConv2d(5, 4, 3, groups=2)
    with pytest.raises(ValueError, match="out_channels must be divisible by groups"):
        DeformConv2d(4, 5, 3, groups=2)


def test_symbolic_trace_records_the_call() -> None:
    traced = torch.fx.symbolic_trace(DeformConv2d(2, 3, 3))
    names = [node.target.__name__ for node in traced.graph.nodes if node.op == "call_function"]
    assert names == ["deform_conv2d"]
