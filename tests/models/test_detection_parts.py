"""The parts of detectors against torchvision's, one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcv.models.detection.keypoint_head import heatmaps_to_keypoints, keypoints_to_heatmap
from fastcv.models.detection.resnet import resnet
from fastcv.models.detection.sampler import BalancedSampler
from fastcv.models.detection.transform import DetectionTransform
from fastcv.nn.batch_norm import FrozenBatchNorm2d

torchvision = pytest.importorskip("torchvision")
from torchvision.models.detection import _utils, roi_heads, transform  # noqa: E402


def randomize(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("frozen", [False, True])
def test_resnet(name: str, frozen: bool) -> None:
    """Every way through: folded at each call, with gradients, fused on a CPU, folded for good."""
    theirs = getattr(torchvision.models, name)(norm_layer=torchvision.ops.FrozenBatchNorm2d if frozen else None).eval()
    randomize(theirs)
    ours = resnet(name, FrozenBatchNorm2d if frozen else nn.BatchNorm2d).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert ours.state_dict().keys() == state.keys()
    ours.load_state_dict(state)
    stages = torchvision.models._utils.IntermediateLayerGetter(theirs, {f"layer{i + 1}": str(i) for i in range(4)})
    x = torch.rand(2, 3, 65, 80)

    def assert_same(maps: dict[str, Tensor]) -> None:
        assert maps.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(maps[key], value, rtol=1e-4, atol=1e-4 * value.abs().max().item())

    expected = stages(x)
    assert_same(ours(x))
    with torch.no_grad():
        assert_same(ours(x))
        assert_same(ours(x.contiguous(memory_format=torch.channels_last)))
        assert_same(ours(x))  # nothing that is kept was overwritten
    ours.fold()
    with torch.no_grad():
        assert_same(ours(x))
    assert not [module for module in ours.modules() if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d)]


def test_batch_statistics_are_kept_in_training() -> None:
    theirs = torchvision.models.resnet18().train()
    ours = resnet("resnet18").train()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")})
    x = torch.rand(2, 3, 64, 64)
    theirs(x), ours(x)
    for key, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 2], [0] * 50 + [1] * 20 + [-1] * 9, [-1]])
def test_sampler(labels: list[int]) -> None:
    label = torch.tensor(labels, dtype=torch.int64)
    torch.manual_seed(3)
    (positive,), (negative,) = _utils.BalancedPositiveNegativeSampler(16, 0.25)([label])
    torch.manual_seed(3)
    actual = BalancedSampler(16, 0.25)(label)
    assert torch.equal(actual[0], torch.where(positive)[0])
    assert torch.equal(actual[1], torch.where(negative)[0])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [
    {"min_size": 60, "max_size": 90}, {"min_size": (40, 50, 60), "max_size": 70},
    {"min_size": 60, "max_size": 90, "fixed_size": (70, 50)}, {"min_size": 60, "max_size": 90, "size_divisible": 7},
    {"min_size": 60, "max_size": 90, "_skip_resize": True},
])  # fmt: skip
def test_transform(options: dict[str, Any], training: bool) -> None:
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    theirs = transform.GeneralizedRCNNTransform(image_mean=mean, image_std=std, **options).train(training)
    ours = DetectionTransform(image_mean=mean, image_std=std, **options).train(training)
    images = [torch.rand(3, 61, 83), torch.rand(3, 120, 45), torch.rand(3, 60, 60)]
    targets = [
        {
            "boxes": torch.rand(n, 4) * 40,
            "masks": torch.randint(2, (n, *image.shape[1:])).byte(),
            "keypoints": torch.rand(n, 5, 3),
        }
        for n, image in zip((2, 1, 3), images, strict=True)
    ]
    torch.manual_seed(7)
    expected, expected_targets = theirs(images, targets)
    torch.manual_seed(7)
    actual, actual_targets = ours(images, targets)
    assert torch.equal(actual.tensors, expected.tensors)
    assert actual.image_sizes == [tuple(size) for size in expected.image_sizes]
    for left, right in zip(actual_targets, expected_targets, strict=True):
        assert left.keys() == right.keys()
        assert torch.equal(left["boxes"], right["boxes"])
        assert torch.equal(left["masks"], right["masks"])
        torch.testing.assert_close(left["keypoints"], right["keypoints"])


def test_transform_of_no_masks() -> None:
    ours = DetectionTransform(40, 60)
    nothing = {"boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 50, 50, dtype=torch.uint8)}
    _, moved = ours([torch.rand(3, 50, 50)], [nothing])
    assert moved[0]["masks"].shape == (0, 40, 40)


def boxes_of_many_sizes(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(count, 2, generator=generator) * 50
    sides = torch.rand(count, 2, generator=generator) * 90
    sides[0], sides[1] = torch.tensor([0.2, 60.0]), torch.tensor([33.0, 56.0])  # thin, and whole numbers
    return torch.cat([corner, corner + sides], dim=1)


@pytest.mark.parametrize("count", [0, 1, 12])
def test_heatmaps_to_keypoints(count: int) -> None:
    maps = torch.randn(count, 17, 56, 56, generator=torch.Generator().manual_seed(4))
    rois = boxes_of_many_sizes(max(count, 2))[:count]
    expected, scores = roi_heads.heatmaps_to_keypoints(maps, rois)
    for max_size in (None, (150, 160)):
        actual, actual_scores = heatmaps_to_keypoints(maps, rois, max_size)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)
        torch.testing.assert_close(actual_scores, scores, rtol=1e-4, atol=1e-4)


def test_heatmaps_to_keypoints_with_a_bound_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does: boxes of any size in matrices of one, in portions."""
    maps = torch.randn(9, 5, 56, 56, generator=torch.Generator().manual_seed(4))
    rois = boxes_of_many_sizes(9)
    expected = heatmaps_to_keypoints(maps, rois)
    monkeypatch.setattr("fastcv.models.detection.keypoint_head.can_read_values", lambda _: False)
    monkeypatch.setattr("fastcv.models.detection.keypoint_head.VALUES_AT_ONCE", 4 * 5 * 150 * 160)
    actual = heatmaps_to_keypoints(maps, rois, (150, 160))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


def test_keypoints_to_heatmap() -> None:
    rois = boxes_of_many_sizes(6)
    points = torch.rand(6, 17, 3, generator=torch.Generator().manual_seed(5)) * 130
    points[..., 2] = (points[..., 2] > 60).float()
    points[:, 0, :2] = rois[:, 2:]  # on the far corner: inside
    points[:, 1, :2] = rois[:, :2]
    expected, valid = roi_heads.keypoints_to_heatmap(points, rois, 56)
    actual, actual_valid = keypoints_to_heatmap(points, rois, 56)
    assert torch.equal(actual_valid, valid.bool())
    assert torch.equal(actual, expected)
    assert valid.any()
