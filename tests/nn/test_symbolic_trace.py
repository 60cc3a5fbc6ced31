"""Layers under ``torch.fx.symbolic_trace``: as torchvision's, they show as one call."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from fastcv import nn, optimize
from fastcv.models.detection import backbone_utils
from fastcv.models.detection.resnet import ResNet

FEATURES = torch.rand(2, 8, 12, 12)
ROIS = torch.tensor([[0.0, 1, 1, 6, 6], [1, 2, 2, 9, 9]])
LISTED = [ROIS[:1, 1:], ROIS[1:, 1:]]
MAPS = {"0": torch.rand(2, 8, 16, 16), "1": torch.rand(2, 8, 8, 8), "other": torch.rand(2, 8, 4, 4)}


@pytest.mark.parametrize(("layer", "inputs"), [
    (nn.RoIAlign(2, 1.0, 2), (FEATURES, ROIS)), (nn.RoIAlign((2, 3), 0.5, -1, True), (FEATURES, LISTED)),
    (nn.RoIPool(2, 1.0), (FEATURES, ROIS)), (nn.RoIPool(2, 1.0), (FEATURES, LISTED)),
    (nn.PSRoIAlign(2, 1.0, 2), (FEATURES, ROIS)), (nn.PSRoIPool(2, 1.0), (FEATURES, LISTED)),
    (nn.MultiScaleRoIAlign(["0", "1"], 2, 2), (MAPS, LISTED, [(64, 64), (64, 64)])),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_layers(layer: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
    traced = torch.fx.symbolic_trace(layer)
    assert [node.op for node in traced.graph.nodes if node.op not in ("placeholder", "output")] == ["call_function"]
    expected = layer(*inputs)
    assert torch.equal(traced(*inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(traced))(*inputs), expected)


def test_inside_a_model() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.FrozenBatchNorm2d(8)
            self.pool = nn.RoIAlign(2, 1.0, 2)

        def forward(self, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
            pooled: torch.Tensor = self.pool(self.norm(x) * 2, rois)
            return pooled.flatten(1)

    model = Model()
    assert torch.equal(torch.fx.symbolic_trace(model)(FEATURES, ROIS), model(FEATURES, ROIS))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_large"])
def test_backbones(name: str) -> None:
    """As programs trace them to take features, or to change layers; ReLU and pooling show, too."""
    peers = pytest.importorskip("torchvision").models.detection.backbone_utils
    kind = "mobilenet_backbone" if name.startswith("mobilenet") else "resnet_fpn_backbone"
    options = {"backbone_name": name, "weights": None} | ({"fpn": True} if kind == "mobilenet_backbone" else {})
    model, theirs = getattr(backbone_utils, kind)(**options), getattr(peers, kind)(**options)
    theirs.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    traced = torch.fx.symbolic_trace(model.eval())
    expected = theirs.eval()(x)
    with torch.no_grad():
        for key, value in traced(x).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-4)
    called = {node.target for node in traced.graph.nodes if node.op == "call_module"}
    assert {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Conv2d)} <= called
    assert {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.ReLU)} <= called


def test_no_annotation_of_a_layer_is_a_string() -> None:
    """Before torch 2.14 a trace of such a layer cannot be pickled: its file has no ``from __future__ import``."""
    public = [getattr(nn, name) for name in nn.__all__] + [ResNet, backbone_utils.BackboneWithFPN]
    layers = [layer for layer in public if isinstance(layer, type) and issubclass(layer, torch.nn.Module)]
    assert len(layers) > 20
    strings = [
        layer.__name__ for layer in layers if any(isinstance(a, str) for a in layer.forward.__annotations__.values())
    ]
    assert not strings


class WithStringAnnotations(torch.nn.Module):
    """Its annotations are strings, as in many programs: see the first import of this file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


def test_an_optimized_network_is_pickled_beside_every_torch() -> None:
    network = WithStringAnnotations().eval()
    assert network.forward.__annotations__["x"] == "torch.Tensor"
    fast = optimize(network)
    assert isinstance(fast, torch.fx.GraphModule)
    again, x = pickle.loads(pickle.dumps(fast)), torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(again(x), fast(x))
