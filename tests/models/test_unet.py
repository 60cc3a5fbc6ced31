"""The U-Net, the task it is trained on, its training and its metric."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fastcv.data import synthetic_shapes
from fastcv.engine import SegmentationTask, Trainer, TrainOptions, confusion_matrix, mean_iou
from fastcv.models.segmentation import UNet


def test_shapes_and_channels() -> None:
    model = UNet(3, 5, base_channels=4, depth=2)
    assert model(torch.zeros(2, 3, 16, 24)).shape == (2, 5, 16, 24)
    widths = [block[0].out_channels for block in model.encoder]
    assert widths == [4, 8, 16]
    assert UNet(1, 2, base_channels=4, depth=0)(torch.zeros(1, 1, 5, 7)).shape == (1, 2, 5, 7)
    with pytest.raises(ValueError, match=r"H and W multiples of 4, got \(2, 3, 16, 22\)"):
        model(torch.zeros(2, 3, 16, 22))
    with pytest.raises(ValueError, match="depth must be at least 0, got -1"):
        UNet(3, 2, depth=-1)


def test_equals_one_made_of_torch_alone() -> None:
    torch.manual_seed(0)
    model = UNet(3, 2, base_channels=4, depth=2).double()
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    down0 = model.encoder[0](image)
    down1 = model.encoder[1](nn.functional.max_pool2d(down0, 2))
    bottom = model.encoder[2](nn.functional.max_pool2d(down1, 2))
    up = model.upsample
    up1 = nn.functional.conv_transpose2d(bottom, up[1].weight, up[1].bias, stride=2)
    up1 = model.decoder[1](torch.cat([down1, up1], 1))
    up0 = nn.functional.conv_transpose2d(up1, up[0].weight, up[0].bias, stride=2)
    expected = model.head(model.decoder[0](torch.cat([down0, up0], 1)))
    torch.testing.assert_close(model(image), expected)


def test_every_parameter_gets_a_gradient() -> None:
    model = UNet(3, 2, base_channels=2, depth=2)
    model(torch.randn(1, 3, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_synthetic_shapes() -> None:
    images, masks = synthetic_shapes(6, size=40, seed=3)
    assert images.shape == (6, 3, 40, 40)
    assert images.dtype is torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert masks.shape == (6, 40, 40)
    assert set(masks.unique().tolist()) == {0, 1}
    assert 0.05 < masks.double().mean() < 0.6
    again, other = synthetic_shapes(6, size=40, seed=3), synthetic_shapes(6, size=40, seed=4)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], masks)
    assert not torch.equal(other[1], masks)
    assert synthetic_shapes(0)[0].shape == (0, 3, 64, 64)
    with pytest.raises(ValueError, match="size must be at least 16, got 15"):
        synthetic_shapes(1, size=15)
    with pytest.raises(ValueError, match="count must not be negative, got -1"):
        synthetic_shapes(-1)


def test_mean_iou() -> None:
    truth = torch.tensor([[0, 0, 1, 1, 2, -1, 7]])
    predicted = torch.tensor([[0, 1, 1, 1, 0, 2, 0]])
    confusion = confusion_matrix(predicted, truth, 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert mean_iou(confusion) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert mean_iou(torch.tensor([[4, 0, 0], [0, 2, 0], [0, 0, 0]])) == 1
    assert math.isnan(mean_iou(torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="predicted must have the shape of truth"):
        confusion_matrix(predicted[0], truth, 3)


def train(steps: int, base_channels: int, size: int) -> tuple[list[float], float]:
    images, masks = synthetic_shapes(64, size, seed=0)
    torch.manual_seed(0)
    model = UNet(3, 2, base_channels=base_channels, depth=2)
    options = TrainOptions(steps=steps, schedule="one-cycle", learning_rate=1e-2, device="cpu")
    held_out = list(zip(*synthetic_shapes(16, size, seed=1), strict=True))
    trainer = Trainer(SegmentationTask(), model, list(zip(images, masks, strict=True)), held_out, options)
    history = trainer.train()
    return trainer.losses["loss"], history[-1]["mIoU"]


def test_a_short_training_learns() -> None:
    losses, score = train(steps=160, base_channels=8, size=32)
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert score > 0.6  # background everywhere is 0.45


@pytest.mark.parametrize("steps", range(1, 7))
def test_any_number_of_steps(steps: int) -> None:
    losses, _ = train(steps=steps, base_channels=2, size=16)
    assert len(losses) == steps


def test_training_is_repeatable() -> None:
    assert train(steps=3, base_channels=2, size=16) == train(steps=3, base_channels=2, size=16)


def test_training_refuses_images_of_several_sizes() -> None:
    data = [(torch.zeros(3, size, 8), torch.zeros(size, 8, dtype=torch.int64)) for size in (8, 16)]
    trainer = Trainer(SegmentationTask(), UNet(3, 2, 2, 1), data, options=TrainOptions(device="cpu"))
    with pytest.raises(ValueError, match="all images of a batch must have one size"):
        trainer.train()
