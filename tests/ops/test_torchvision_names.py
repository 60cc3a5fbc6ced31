"""Every name and path of torchvision.ops, and the functions and layers that are made of torch's operations."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcv import ops

theirs = pytest.importorskip("torchvision.ops")

PATHS = sorted(info.name for info in pkgutil.iter_modules(theirs.__path__) if not info.name.startswith("_"))
LATER = {name for name in ("deform_conv2d", "DeformConv2d") if not hasattr(ops, name)}
OTHERS = {"initLevelMapper", "lazy_compile", "bilinear_interpolate", "maybe_cast", "roi_align_pure"}  # helpers


def test_every_name() -> None:
    missing = [name for name in theirs.__all__ if not hasattr(ops, name)]
    assert set(missing) <= {"deform_conv2d", "DeformConv2d"}
    assert not hasattr(ops, "RoIAline")


@pytest.mark.parametrize("path", PATHS)
def test_every_path(path: str) -> None:
    """What a module of torchvision defines for others is found in ours of the same path, and is the same thing."""
    peer, module = importlib.import_module(f"torchvision.ops.{path}"), importlib.import_module(f"fastcv.ops.{path}")
    for name, value in vars(peer).items():
        own = inspect.isfunction(value) or inspect.isclass(value)
        if not own or name.startswith("_") or value.__module__ != peer.__name__ or name in OTHERS | LATER:
            continue
        assert callable(getattr(module, name)), name
        if hasattr(ops, name):
            assert getattr(module, name) is getattr(ops, name)
    with pytest.raises(AttributeError, match=f"module 'fastcv.ops.{path}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_function_goes_before_its_path(in_new_process: Callable[[str], str]) -> None:
    script = """
        import fastcv.ops.roi_align, fastcv.ops.stochastic_depth, fastcv.ops.boxes
        from fastcv import ops
        from fastcv.ops.roi_align import RoIAlign
        assert ops.RoIAlign is RoIAlign is fastcv.nn.RoIAlign
        for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "nms", "stochastic_depth"):
            assert type(getattr(ops, name)).__name__ == "function", name
        assert ops.boxes.nms is ops.nms and ops.misc.FrozenBatchNorm2d is fastcv.nn.FrozenBatchNorm2d
    """
    in_new_process(script)


def same(call: Callable[[Any], Any]) -> None:
    """``call`` makes the same of our package as of torchvision's, from the same seed."""
    results = []
    for package in (theirs, ops):
        torch.manual_seed(0)
        results.append(call(package))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0, 0.3, 1])
def test_stochastic_depth(p: float, dtype: torch.dtype) -> None:
    for mode in ("row", "batch"):
        for shape in ((64, 2, 3), (5,), (0, 3)):
            x = torch.rand(shape, dtype=dtype)
            same(lambda package, x=x, mode=mode: package.stochastic_depth(x, p, mode))
            same(lambda package, x=x, mode=mode: package.StochasticDepth(p, mode).train()(x))
            assert ops.StochasticDepth(p, mode).eval()(x) is x


@pytest.mark.parametrize("p", [0, 0.2, 1])
def test_drop_block(p: float) -> None:
    for axes, side in ((2, 3), (3, 5), (2, 99)):
        x = torch.rand(2, 3, *(7, 9, 11)[:axes])
        name = f"drop_block{axes}d"
        layer = f"DropBlock{axes}d"
        same(lambda package, x=x, name=name, side=side: getattr(package, name)(x, p, side))
        same(lambda package, x=x, layer=layer, side=side: getattr(package, layer)(p, side, eps=1e-3)(x))
        same(lambda package, x=x, layer=layer, side=side: getattr(package, layer)(p, side, True)(x.clone()))
        assert getattr(ops, layer)(p, side).eval()(x) is x


@pytest.mark.parametrize(("call", "text"), [
    (lambda: ops.stochastic_depth(torch.rand(2), 1.5, "row"), "p must be in [0, 1], got 1.5"),
    (lambda: ops.stochastic_depth(torch.rand(2), 0.5, "col"), "mode must be 'batch' or 'row', got 'col'"),
    (lambda: ops.drop_block2d(torch.rand(2, 3, 4), 0.5, 3), "input must have 4 axes, got (2, 3, 4)"),
    (lambda: ops.drop_block3d(torch.rand(2, 3, 4, 5), 0.5, 3), "input must have 5 axes, got (2, 3, 4, 5)"),
    (lambda: ops.drop_block2d(torch.rand(2, 3, 9, 9), 0.5, 4), "block_size must be odd, got 4"),
    (lambda: ops.drop_block2d(torch.rand(2, 3, 9, 9), -1, 3), "p must be in [0, 1], got -1"),
])  # fmt: skip
def test_bad_arguments(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()


LAYERS: dict[str, tuple[Callable[[Any], nn.Module], Tensor]] = {
    "plain": (lambda o: o.Conv2dNormActivation(3, 8), torch.rand(2, 3, 9, 8)),
    "pairs": (lambda o: o.Conv2dNormActivation(4, 8, (3, 5), (1, 2), None, 2, dilation=(2, 1)), torch.rand(2, 4, 9, 8)),
    "dilated": (lambda o: o.Conv2dNormActivation(3, 8, 5, dilation=2, bias=True), torch.rand(2, 3, 9, 8)),
    "mixed": (lambda o: o.Conv2dNormActivation(3, 8, 5, dilation=(2, 3)), torch.rand(2, 3, 19, 18)),
    "without": (
        lambda o: o.Conv2dNormActivation(3, 8, norm_layer=None, activation_layer=nn.Hardswish, inplace=None),
        torch.rand(2, 3, 9, 8),
    ),
    "bare": (lambda o: o.misc.ConvNormActivation(3, 8, 1, norm_layer=None, activation_layer=None), torch.rand(3, 4, 4)),
    "solid": (lambda o: o.Conv3dNormActivation(3, 8, (3, 1, 1), padding="same"), torch.rand(2, 3, 5, 6, 7)),
    "squeezed": (lambda o: o.SqueezeExcitation(8, 2), torch.rand(2, 8, 5, 6)),
    "hard": (lambda o: o.SqueezeExcitation(8, 2, nn.SiLU, nn.Hardsigmoid), torch.rand(2, 8, 5, 6)),
    "perceptron": (lambda o: o.MLP(6, [5, 4, 3], nn.LayerNorm, nn.GELU, dropout=0.3), torch.rand(7, 6)),
    "linear": (lambda o: o.MLP(6, [5], bias=False, inplace=True), torch.rand(7, 6)),
    "permuted": (lambda o: o.Permute([0, 2, 1]), torch.rand(2, 3, 4)),
    "p6p7": (lambda o: next(o.feature_pyramid_network.LastLevelP6P7(4, 8).children()), torch.rand(1, 4, 8, 8)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Don't use ConvNormActivation", "ignore:`torch.jit")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    make, x = LAYERS[name]
    models = []
    for package in (theirs, ops):
        torch.manual_seed(1)
        models.append(make(package))
    peer, ours = models
    assert list(ours.state_dict()) == list(peer.state_dict())
    for key, value in peer.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    results = []
    for model in models:
        torch.manual_seed(2)
        results.append([model.train()(x.clone()), model.eval()(x.clone()), model.state_dict()])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert getattr(ours, "out_channels", None) == getattr(peer, "out_channels", None)
    torch.testing.assert_close(torch.jit.script(ours)(x.clone()), results[0][1])


def test_level_mapper() -> None:
    boxes = [torch.rand(50, 4).cumsum(1) * 400, torch.rand(9, 4).cumsum(1) * 90, torch.zeros(0, 4)]
    for options in ((2, 5), (3, 4, 112, 3)):
        expected, actual = (package.poolers.LevelMapper(*options)(boxes) for package in (theirs, ops))
        assert torch.equal(actual, expected)
        assert len(set(actual.tolist())) > 1


@pytest.mark.parametrize("name", ["StochasticDepth(0.2, 'row')", "DropBlock2d(0.2, 3)", "Permute([0, 1])"])
def test_what_a_layer_prints(name: str) -> None:
    printed = [repr(eval(f"package.{name}", {"package": package})) for package in (theirs, ops)]
    assert printed[0] == printed[1]


@pytest.mark.parametrize("layer", ["StochasticDepth(0.2, 'row')", "DropBlock2d(0.2, 3)", "RoIAlign(2, 1.0, 2)"])
def test_symbolic_traces_record_the_call(layer: str) -> None:
    graph = torch.fx.symbolic_trace(eval(f"ops.{layer}")).graph
    assert [node.op for node in graph.nodes if node.op == "call_function"] == ["call_function"]
