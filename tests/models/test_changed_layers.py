"""Detectors whose layers somebody watches or has changed: hooks, weight normalisation, pruning, layers put in place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from fastcv.models.detection import create
from fastcv.models.detection.backbone import resnet_fpn_backbone
from fastcv.nn import Conv2d
from fastcv.nn.conv2d import replace_convolutions

torchvision = pytest.importorskip("torchvision")
PARTS = ("backbone.body", "backbone.fpn", "rpn.head", "roi_heads.box_head", "roi_heads.mask_head")


def both(name: str = "maskrcnn_resnet50_fpn") -> tuple[Any, Any]:
    """fastcv's detector and torchvision's, with the same weights, in float64."""
    torch.manual_seed(0)
    options = {"min_size": 64, "max_size": 64, "rpn_post_nms_top_n_test": 20, "num_classes": 3}
    ours = create(name, **options).eval().double()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    theirs = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None, **options).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.eval()


def image() -> Tensor:
    return torch.rand(3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def watched(model: nn.Module, names: list[str], keeps: bool) -> dict[str, list[Tensor]]:
    """What the named layers return: the tensors themselves, as programs keep them, or else copies."""
    kept: dict[str, list[Tensor]] = {name: [] for name in names}

    def hook(module: nn.Module, inputs: Any, output: Any, name: str) -> None:
        if isinstance(output, Tensor):
            kept[name].append(output if keeps else output.clone())

    handles = [model.get_submodule(name).register_forward_hook(partial(hook, name=name)) for name in names]
    with torch.no_grad():
        model([image().to(next(model.parameters()).dtype)])
    for handle in handles:
        handle.remove()
    return kept


def assert_near(ours: dict[str, list[Tensor]], theirs: dict[str, list[Tensor]], tolerance: float) -> None:
    for name, tensors in theirs.items():
        assert len(ours[name]) == len(tensors), name
        for a, b in zip(ours[name], tensors, strict=True):
            assert (a.double() - b).abs().max() <= tolerance * b.abs().max(), name


@pytest.mark.parametrize("kind", ["all", "convolutions", "normalisations", "blocks", "stages"])
def test_hooks_see_what_torchvisions_see(kind: str) -> None:
    ours, theirs = both()
    kinds: dict[str, Callable[[str, nn.Module], bool]] = {
        "all": lambda name, module: True,
        "convolutions": lambda name, module: isinstance(module, nn.Conv2d),
        "normalisations": lambda name, module: "bn" in name or name.endswith("downsample.1"),
        "blocks": lambda name, module: hasattr(module, "conv3") or type(module).__name__ == "Conv2dNormActivation",
        "stages": lambda name, module: type(module) is nn.Sequential,
    }
    known = dict(ours.named_modules())
    names = [
        name
        for name, module in theirs.named_modules()
        if name in known and name.startswith(PARTS) and kinds[kind](name, module) and not isinstance(module, nn.ReLU)
    ]
    assert len(names) >= 5
    keeps = kind in ("blocks", "stages")  # behind others torchvision writes, too: their ReLUs work in place
    assert_near(watched(ours, names, keeps), watched(theirs, names, False), 1e-4)


def test_hooks_on_some_layers_of_an_optimized_detector() -> None:
    """A block may be written over by the next one: not where somebody has kept it."""
    ours, theirs = both()
    names = ["backbone.body.layer1.0", "backbone.body.layer3.2", "backbone.fpn.inner_blocks.2", "rpn.head.cls_logits"]
    expected = watched(theirs, names, False)
    assert_near(watched(ours.float(), names, True), expected, 1e-3)
    assert_near(watched(ours.optimize(), names, True), expected, 1e-3)


def backbone(optimized: bool) -> Any:
    torch.manual_seed(0)
    model = resnet_fpn_backbone("resnet18", trainable_layers=5).eval()
    if optimized:
        model.body.fold()
        replace_convolutions(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize("optimized", [False, True])
def test_hooks_of_all_modules_and_wrapped_forwards(optimized: bool) -> None:
    """They may keep the result of a block as well, and see every layer."""
    body = backbone(optimized).body
    x = torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(result: Any) -> Any:
        if isinstance(result, Tensor):
            kept.append((result, result.clone()))
        return result

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        keep(output)

    expected = body(x)
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        body(x)
    finally:
        handle.remove()
    assert len(kept) > 20, "convolutions, too"
    body.layer2[0].forward = lambda x, of=body.layer2[0].forward: keep(of(x))
    body.layer3[1].conv2.forward = lambda x, of=body.layer3[1].conv2.forward: keep(of(x)) * 0
    actual = body(x)
    blocks = [pair for pair in kept if (pair[0] >= 0).all()]  # theirs; behind others ReLUs work in place
    assert len(blocks) >= 8
    assert all(torch.equal(now, before) for now, before in blocks)
    torch.testing.assert_close(actual["1"], expected["1"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(actual["2"], expected["2"])


@torch.no_grad()
@pytest.mark.parametrize("optimized", [False, True])
def test_transforms_of_a_backbone(optimized: bool) -> None:
    model = backbone(optimized)
    x = torch.rand(2, 3, 64, 64)
    actual = torch.vmap(lambda image: model(image[None])["1"][0])(x)
    torch.testing.assert_close(actual, model(x)["1"], rtol=1e-3, atol=1e-3)


def test_gradients_of_heads_that_are_joined() -> None:
    """Somebody trains the last layers of an optimized detector after all."""
    ours = create("fasterrcnn_tiny_fpn", num_classes=3).eval()
    channels = ours.backbone.out_channels
    found = []
    for model in (ours, copy.deepcopy(ours).optimize()):
        model.requires_grad_(False)
        head = model.rpn.head
        head.cls_logits.weight.requires_grad_(True)
        head.bbox_pred.bias.requires_grad_(True)
        logits, offsets = head([torch.ones(1, channels, 4, 4)])
        (logits[0].square().sum() + offsets[0].square().sum()).backward()
        found.append((head.cls_logits.weight.grad, head.bbox_pred.bias.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


def test_a_block_alone_leaves_its_input() -> None:
    ours, _ = both()
    block = ours.float().optimize().backbone.body.layer1[1]
    x = torch.rand(1, 256, 8, 8).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    with torch.no_grad():
        block(x)
    assert torch.equal(x, before)


class Doubled(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _double(model: Any, name: str) -> None:
    conv = model.get_submodule(name)
    made = copy.deepcopy(conv)
    made.__class__ = Doubled
    model.get_submodule(name.rpartition(".")[0])._modules[name.rpartition(".")[2]] = made


def _normalize(model: Any, name: str) -> None:
    parametrizations.weight_norm(model.get_submodule(name))
    with torch.no_grad():
        model.get_submodule(name).parametrizations.weight.original0.mul_(1.5)


def _normalize_by_hook(model: Any, name: str) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model.get_submodule(name))
    with torch.no_grad():
        model.get_submodule(name).weight_g.mul_(1.5)  # takes effect in the hook of the next call


def _prune(model: Any, name: str) -> None:
    conv = model.get_submodule(name)
    prune.l1_unstructured(conv, "weight", 0.5)
    with torch.no_grad():
        conv.weight_orig.mul_(1.5)


@pytest.mark.parametrize("change", [_double, _normalize, _normalize_by_hook, _prune])
def test_changed_layers(change: Callable[[Any, str], None]) -> None:
    ours, theirs = both()
    names = ["backbone.body.layer2.1.conv2", "backbone.body.layer1.0.conv3", "backbone.body.layer2.0.downsample.0",
             "backbone.fpn.layer_blocks.1.0", "rpn.head.conv.0.0", "roi_heads.mask_head.1.0"]  # fmt: skip
    for model in (ours, theirs):
        for name in names:
            change(model, name)
    with torch.no_grad():
        (a,), (b,) = ours([image()]), theirs([image()])
        for key, value in b.items():
            torch.testing.assert_close(a[key], value, rtol=1e-3, atol=1e-3)
        expected = theirs.backbone(image()[None])
        for key, value in ours.backbone(image()[None]).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-9)
        fast = ours.float().optimize()
        for key, value in fast.backbone(image()[None].float()).items():
            assert (value.double() - expected[key]).abs().max() <= 1e-3 * expected[key].abs().max()
    assert not isinstance(fast.get_submodule(names[0]), Conv2d)
    assert isinstance(fast.get_submodule("backbone.body.layer2.1.conv1"), Conv2d)


def _replace_activations(model: Any) -> None:
    """As programs do it, in all layers of the kind."""
    for module in list(model.body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.LeakyReLU(0.1))


def _keep_the_size(model: Any) -> None:
    """For small images: the first layers halve them once instead of twice."""
    model.body.maxpool = nn.Identity()


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("change", [_replace_activations, _keep_the_size])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_layers_without_weights(name: str, change: Callable[[Any], None], optimized: bool) -> None:
    """A program may put others in the place of activations and of the pooling, which have torchvision's names."""
    torch.manual_seed(0)
    ours = resnet_fpn_backbone(name, trainable_layers=5).eval().double()
    theirs = torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name=name, weights=None, trainable_layers=5
    )
    theirs = theirs.eval().double()
    theirs.load_state_dict(ours.state_dict())
    assert {key for key, _ in ours.named_modules()} == {key for key, _ in theirs.named_modules()}
    for model in (ours, theirs):
        change(model)
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        if optimized:
            ours.body.fold()
            replace_convolutions(ours)
        actual, expected = ours(x), theirs(x)
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))


def test_hooks_on_activations() -> None:
    """What explains a network by its gradients hangs on the activations: they are called once per use."""
    ours, theirs = both()
    names = [name for name, module in theirs.backbone.body.named_modules() if isinstance(module, nn.ReLU)]
    names = [f"backbone.body.{name}" for name in names]
    expected = watched(theirs, names, False)
    assert_near(watched(ours, names, True), expected, 1e-4)
    assert_near(watched(ours.optimize(), names, True), expected, 1e-3)
