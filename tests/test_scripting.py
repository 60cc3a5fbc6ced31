"""torch.jit.script and torch.jit.trace of layers: they work, or say why not."""

from __future__ import annotations

import pytest
import torch
from torch import nn as torch_nn

import fastcv
from fastcv import nn, ops
from fastcv.models import detection

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


@pytest.mark.parametrize("thing", [
    nn.RoIAlign(2, 1.0, 2), nn.RoIPool(2, 1.0), nn.PSRoIAlign(1, 1.0, 2), nn.PSRoIPool(1, 1.0), nn.FrozenBatchNorm2d(3),
    nn.MultiScaleRoIAlign(["0"], 2, 2), nn.FeaturePyramidNetwork([3], 4), nn.ConvTranspose2d(3, 4, 2), nn.MaxPool2d(2),
    nn.DeformConv2d(3, 4, 2), nn.UnpoolNearest(2), nn.UpsampleBilinear2d(2.0), ops.nms, ops.roi_align,
    ops.box_iou, ops.box_area, ops.knn,
], ids=lambda thing: getattr(thing, "__name__", type(thing).__name__))  # fmt: skip
def test_what_cannot_be_scripted_says_so(thing: object) -> None:
    name = getattr(thing, "__name__", type(thing).__name__)
    forms = [thing, torch_nn.Sequential(thing)] if isinstance(thing, torch_nn.Module) else [thing]
    for form in forms:
        with pytest.raises(
            NotImplementedError, match=f"torch.jit.script cannot compile fastcv's {name}, .*torch.export"
        ):
            torch.jit.script(form)


def test_a_detector_says_so() -> None:
    with pytest.raises(NotImplementedError, match="cannot compile fastcv's GeneralizedRCNN"):
        torch.jit.script(detection.create("fasterrcnn_tiny_fpn"))


def test_layers_of_torchs_operations_are_scripted() -> None:
    x = torch.rand(2, 8, 6, 6)
    for layer in (nn.SqueezeExcitation(8, 2), nn.Conv2dNormActivation(8, 4), nn.Permute([0, 2, 3, 1])):
        torch.testing.assert_close(torch.jit.script(layer.eval())(x), layer(x))


@pytest.mark.parametrize("grad", [True, False])
def test_traces(grad: bool) -> None:
    x, rois = torch.rand(1, 3, 16, 16), torch.tensor([[0.0, 1, 2, 9, 11]])
    with torch.set_grad_enabled(grad):
        for layer, arguments in (
            (nn.RoIAlign(2, 1.0, 2), (x, rois)),
            (nn.FrozenBatchNorm2d(3), (x,)),
            (nn.FeaturePyramidNetwork([3, 3], 4), ({"0": x, "1": x[..., ::2, ::2]},)),
            (detection.resnet_fpn_backbone("tiny").eval(), (x.repeat(1, 1, 4, 4),)),
        ):
            traced = torch.jit.trace(layer, arguments, strict=False)
            torch.testing.assert_close(traced(*arguments), layer(*arguments))


def test_nothing_is_left_of_an_acceleration() -> None:
    """Neither in what torch.compile and torch.jit.script made meanwhile nor in TorchScript's cache of classes."""
    torchvision = pytest.importorskip("torchvision")
    from torchvision.models.detection._utils import Matcher

    x, rois = torch.rand(1, 3, 16, 16), torch.tensor([[0.0, 1, 2, 9, 11]])
    called = []
    compiled = torch.compile(lambda x, rois: torchvision.ops.roi_align(x, rois, 2) * 2, backend="eager")
    with pytest.MonkeyPatch.context() as patch, fastcv.accelerate_torchvision() as acceleration:
        own = ops.roi_align
        patch.setattr(ops, "roi_align", lambda *arguments: called.append(1) or own(*arguments))
        expected = compiled(x, rois)
        scripted = [torch.jit.script(torchvision.ops.roi_align), torch.jit.script(torchvision.ops.nms)]
        matcher = torch.jit.script(Matcher)
        acceleration.restore()
        before = len(called)
        torch.testing.assert_close(compiled(x, rois), expected)
        torch.testing.assert_close(scripted[0](x, rois, 2) * 2, expected)
        assert len(called) == before
    assert all("fastcv" not in str(function.graph) for function in scripted)
    assert torch.jit.script(Matcher) is matcher  # from the cache, and torchvision's own:
    quality = torch.rand(3, 9)
    assert torch.equal(torch.jit.script(use_matcher)(quality), Matcher(0.7, 0.3, True)(quality))


def use_matcher(quality: torch.Tensor) -> torch.Tensor:
    return _Matcher(0.7, 0.3, True)(quality)


try:
    from torchvision.models.detection._utils import Matcher as _Matcher
except ImportError:
    _Matcher = None
