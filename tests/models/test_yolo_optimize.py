"""YOLO's optimize: the same results from folded, fused and reordered weights."""

from __future__ import annotations

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from fastcv.models.yolo import YOLO, DarknetNetwork, make_config, yolo_v1, yolov2_tiny, yolov3_tiny
from fastcv.models.yolo.layers import _ACTIVATIONS
from fastcv.nn import Conv2d

ACTIVATIONS = ("linear", "leaky", "relu", "logistic", "tanh", "swish", "mish", "elu")


def randomised(model: YOLO) -> YOLO:
    """With statistics as training leaves them."""
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if "norm" in name and value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.5)
    return model


@pytest.mark.parametrize(
    ("build", "options"),
    [(yolov3_tiny, {"size": 64}), (yolov2_tiny, {"size": 64}), (yolo_v1, {"size": 64, "resize": "letterbox"})],
)
def test_results_are_the_same(build: Any, options: dict[str, Any]) -> None:
    model = randomised(build(classes=3, width=0.25, score_thresh=0.0, nms_thresh=1.0, **options))
    images = torch.rand(2, 3, 50, 70)
    batch, _ = model.preprocess(list(images))
    with torch.inference_mode():
        before = model.network(batch)
        found = model(images)
        optimized = deepcopy(model).optimize()
        after = optimized.network(batch)
        again = pickle.loads(pickle.dumps(optimized)).network(batch)
    for old, new, copied in zip(before, after, again, strict=True):
        assert old.std() > 1e-6
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4 * float(old.abs().max()))
        assert torch.equal(copied, new)
    assert optimized.optimized
    assert not model.optimized
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in optimized.modules())
    for old_image, new_image in zip(found, optimized(images), strict=True):
        torch.testing.assert_close(new_image["scores"], old_image["scores"], rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="an optimized network cannot be trained"):
        optimized.train()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_all_activations_and_other_shapes(activation: str, groups: int) -> None:
    """Also batches of other sizes, one after the other, with gradients on, and in other dtypes."""
    options = {"filters": 8, "size": 3, "stride": 2, "pad": 1, "groups": groups, "batch_normalize": 1}
    sections = [("net", {"channels": 4, "height": 9, "width": 7}), ("conv", {**options, "activation": activation})]
    torch.manual_seed(0)
    network = DarknetNetwork(make_config(sections)).eval()
    for value in network.state_dict().values():
        if value.dim() == 1:
            value.copy_(torch.rand(value.shape) + 0.5)
    optimized = deepcopy(network).optimize()
    for count in (1, 2, 3, 4, 5, 6, 1, 0):
        images = torch.randn(count, 4, 9, 7)
        (wanted,) = network(images)
        with torch.inference_mode():
            torch.testing.assert_close(optimized(images)[0], wanted.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(optimized(images)[0], wanted.detach(), rtol=1e-4, atol=1e-5)
    (exact,) = deepcopy(optimized).double()(torch.randn(1, 4, 9, 7).double())
    assert exact.dtype is torch.float64
    images = torch.randn(1, 4, 9, 7)
    optimized.load_state_dict({name: value * 2 for name, value in optimized.state_dict().items()})
    conv: Any = optimized.layers[0]
    with torch.inference_mode():
        plain = torch.nn.functional.conv2d(images, conv.conv.weight, conv.conv.bias, 2, 1, groups=groups)
        torch.testing.assert_close(optimized(images)[0], _ACTIVATIONS[activation](plain), rtol=1e-4, atol=1e-5)


def test_lower_precision_and_refusals(tmp_path: Path) -> None:
    model = yolov2_tiny(classes=2, width=0.125, size=32, score_thresh=0.0)
    with pytest.raises(
        TypeError, match=r"dtype must be torch.float32, torch.bfloat16 or torch.float16, got torch.int8"
    ):
        model.optimize(torch.int8)
    model.optimize(torch.bfloat16)
    with torch.inference_mode():
        (found,) = model([torch.rand(3, 40, 40)])
    assert found["boxes"].dtype is torch.float32
    assert len(found["boxes"]) > 0
    for call in (
        model.optimize,
        lambda: model.network.save_weights(tmp_path / "a.weights"),
        lambda: model.load_weights(tmp_path / "a.weights"),
    ):
        with pytest.raises(RuntimeError, match="the network is optimized: load and save its weights before"):
            call()


class Halved(torch.nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) / 2


@pytest.mark.parametrize("what", ["hooks on normalisations", "hooks on convolutions", "layers put in place"])
def test_layers_that_are_watched_or_changed_stay(what: str) -> None:
    model = randomised(yolov3_tiny(classes=3, width=0.25, size=64))
    seen: list[torch.nn.Module] = []
    kind = torch.nn.BatchNorm2d if "norm" in what else torch.nn.Conv2d
    parts = [module for module in model.modules() if isinstance(module, kind)][1:4]
    for part in parts:
        if "hooks" in what:
            part.register_forward_hook(lambda module, inputs, output: seen.append(module))
        else:
            part.__class__ = Halved
    batch = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        before = model.network(batch)
        seen.clear()
        after = model.optimize().network(batch)
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4 * float(old.abs().max()))
    assert len(seen) == (3 if "hooks" in what else 0)


def test_a_fused_layer_has_no_place_for_hooks() -> None:
    norm = torch.nn.BatchNorm2d(4).eval()
    norm.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="norm must have no hooks"):
        Conv2d.from_conv(torch.nn.Conv2d(3, 4, 1), norm)
