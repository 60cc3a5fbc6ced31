"""PointNet and PointNet++: plain-torch twins with the published module names, parameter counts, order of points."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from point_twins import PointNet2SegmentationTwin, PointNet2Twin, PointNetSegmentationTwin, PointNetTwin
from torch import Tensor, nn

from fastcv.models.pointcloud import (
    PointNet,
    PointNet2,
    PointNet2MSG,
    PointNet2MSGSegmentation,
    PointNet2Segmentation,
    PointNetSegmentation,
    orthogonality_loss,
)

Build = Callable[..., nn.Module]
PAIRS: dict[str, tuple[Build, Build]] = {
    "PointNet": (PointNet, PointNetTwin),
    "PointNetSegmentation": (PointNetSegmentation, PointNetSegmentationTwin),
    "PointNet2": (PointNet2, PointNet2Twin),
    "PointNet2MSG": (PointNet2MSG, partial(PointNet2Twin, msg=True)),
    "PointNet2Segmentation": (PointNet2Segmentation, PointNet2SegmentationTwin),
    "PointNet2MSGSegmentation": (PointNet2MSGSegmentation, partial(PointNet2SegmentationTwin, msg=True)),
}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def clouds(count: int, points: int, columns: int = 3, seed: int = 0) -> Tensor:
    """Points on ellipsoids of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, points, columns, generator=generator)
    x[:, :, :3] = nn.functional.normalize(x[:, :, :3], dim=2) * (
        0.4 + 0.6 * torch.rand(count, 1, 3, generator=generator)
    )
    return x


def pair(name: str, columns: int, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """A model and its twin with the same weights, with statistics that are not those of a new model."""
    torch.manual_seed(1)
    ours, twin = (build(5, columns) for build in PAIRS[name])
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data[::3].neg_()  # the largest is then that of the smallest before
            nn.init.uniform_(module.bias, -0.2, 0.2)
    ours.load_state_dict(twin.state_dict())  # strict: the same names and shapes
    return ours.to(dtype), twin.to(dtype)


def shrink(*models: nn.Module) -> None:
    """Keep a sixteenth of the points at each level, so that a test takes little time."""
    for module in (module for model in models for module in model.modules()):
        if getattr(module, "count", None):
            module.count //= 16


def assert_near(ours: Tensor, theirs: Tensor) -> None:
    """The difference against the largest number of the tensor."""
    assert ours.shape == theirs.shape
    difference, size = float((ours - theirs).detach().abs().max()), float(theirs.abs().max())
    assert difference <= TOLERANCE[ours.dtype] * max(1.0, size)


@pytest.mark.parametrize("size", ["small", pytest.param("published", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("columns", "dtype"), [(3, torch.float32), (6, torch.float64)], ids=["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_inference_agrees_with_the_twin(name: str, columns: int, dtype: torch.dtype, size: str) -> None:
    ours, twin = pair(name, columns, dtype)
    if size == "small":
        shrink(ours, twin)
    ours.eval(), twin.eval()
    points = clouds(2, 120, columns).to(dtype)
    with torch.no_grad():
        expected = twin(points)
        assert_near(ours(points), expected)
    assert_near(ours(points), expected)  # with gradients PointNet++ takes another way


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_training_agrees_with_the_twin(name: str, dtype: torch.dtype) -> None:
    """Logits, gradients of points and all parameters, and the statistics that batch norms keep.

    In float32 a batch norm over few rows makes much of rounding, so the gradient is compared in the evaluation form.
    """
    ours, twin = pair(name, 6, dtype)
    shrink(ours, twin)
    for module in (*ours.modules(), *twin.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ours.train(dtype is torch.float64), twin.train(dtype is torch.float64)
    points = clouds(3, 60, 6).to(dtype)
    gradients = []
    for model in (ours, twin):
        x = points.clone().requires_grad_()
        logits = model(x)
        weight = torch.linspace(-1, 1, logits.numel(), dtype=dtype).view(logits.shape)
        (logits * weight).sum().backward()
        assert x.grad is not None
        gradients.append([logits.detach(), x.grad, *(p.grad for _, p in sorted(model.named_parameters()))])
    for mine, theirs in zip(*gradients, strict=True):
        assert_near(mine, theirs)
    for (_, mine), (_, theirs) in zip(
        sorted(ours.state_dict().items()), sorted(twin.state_dict().items()), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("build", "count"), [(PointNet, 3_471_473), (PointNet2, 1_475_688), (PointNet2MSG, 1_747_368)])
def test_published_parameter_counts(build: Build, count: int) -> None:
    assert sum(parameter.numel() for parameter in build().parameters()) == count


def test_the_order_of_points_is_no_matter_to_pointnet() -> None:
    model, points = pair("PointNet", 3, torch.float32)[0].eval(), clouds(4, 500)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(model(points[:, order]), model(points), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_one_point(name: str) -> None:
    """Fewer points than a level wants: the first stands for those that are missing."""
    ours, twin = pair(name, 3, torch.float64)
    shrink(ours, twin)
    ours.eval(), twin.eval()
    for number in (1, 2, 5):
        points = clouds(2, number).double()
        with torch.no_grad():
            assert_near(ours(points), twin(points))


def test_bad_clouds() -> None:
    model = PointNet2(4)
    with pytest.raises(ValueError, match=r"points must have shape \(B, N, 3\), got \(2, 5, 4\)"):
        model(torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"points must have shape \(B, N, 3\), got \(5, 3\)"):
        PointNet(4)(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="points must have at least one point per cloud"):
        model(torch.zeros(2, 0, 3))
    points = torch.zeros(2, 5, 3)
    points[1, 3, 0] = float("nan")
    with pytest.raises(ValueError, match=r"points must be finite, got \[nan, 0.0, 0.0\] in cloud 1, point 3"):
        model(points)
    with pytest.raises(TypeError, match="points must be of a floating dtype, got int64"):
        model(torch.zeros(2, 5, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"points must be a torch.Tensor, got list"):
        model([1, 2])
    for build in (PointNet, PointNet2, PointNet2MSG, PointNet2Segmentation, PointNetSegmentation):
        with pytest.raises(ValueError, match="in_channels must be at least 3"):
            build(4, 2)
        with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
            build(0)


@pytest.mark.parametrize("build", [PointNet, PointNetSegmentation])
def test_the_regulariser_is_that_of_the_last_pass(build: Build) -> None:
    torch.manual_seed(0)
    model, points = build(4).train(), clouds(3, 40)
    with pytest.raises(RuntimeError, match=r"regulariser\(\) needs a pass in training before it"):
        model.regulariser()
    model(points)
    copy.deepcopy(model)  # as an average of weights does
    found = model.regulariser()
    assert found.requires_grad
    for norm in model.modules():  # the same statistics again
        if isinstance(norm, nn.BatchNorm1d):
            norm.reset_running_stats()
    expected = 0.001 * orthogonality_loss(model.logits_and_transform(points)[1])
    torch.testing.assert_close(found, expected)


def test_without_feature_transform() -> None:
    torch.manual_seed(0)
    model, points = PointNet(4, feature_transform=False).train(), clouds(3, 40)
    model(points).sum().backward()
    assert float(model.regulariser()) == 0
    assert not any(name.startswith("feat.fstn") for name in model.state_dict())
    assert model.eval().logits_and_transform(points)[1] is None


def test_orthogonality_loss() -> None:
    rotation = torch.linalg.qr(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    assert float(orthogonality_loss(rotation)) < 1e-12
    assert float(orthogonality_loss(2 * rotation)) == pytest.approx(3 * 8**0.5)
    with pytest.raises(ValueError, match=r"transform must have shape \(B, K, K\), got \(2, 3\)"):
        orthogonality_loss(torch.zeros(2, 3))
    logits, transform = PointNet(4).eval().logits_and_transform(clouds(2, 50))
    assert logits.shape == (2, 4)
    assert transform.shape == (2, 64, 64)
