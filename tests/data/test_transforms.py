"""Transforms: boxes, masks and keypoints stay together; values of torchvision; the same generator, the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from fastcv.data import MixUp, Mosaic, Transformed, synthetic_scenes
from fastcv.data.augmented import Augmented
from fastcv.data.objects import boxes_of_masks
from fastcv.data.torchvision_transforms import TorchvisionTransform
from fastcv.data.transforms import ColourJitter, Compose, HorizontalFlip, RandomCrop, Resize, ScaleJitter

Target = dict[str, Any]
SIZE = 72
DATA = synthetic_scenes(10, SIZE, seed=11, classes=("person", "star", "ring"))
ITEMS = [DATA[index] for index in range(len(DATA))]
EMPTY = next(target for image, target in synthetic_scenes(200, 16) if not len(target["labels"]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def v2_pipeline() -> Any:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    steps = [v2.RandomHorizontalFlip(), v2.RandomRotation(25), v2.RandomResizedCrop((50, 60), scale=(0.4, 1.0))]
    return TorchvisionTransform(v2.Compose([*steps, v2.ColorJitter(0.3)]), DATA.keypoint_pairs)


def v2_with_sanitizing() -> Any:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    return TorchvisionTransform(v2.Compose([v2.RandomCrop(40), v2.SanitizeBoundingBoxes(min_size=6)]))


TRANSFORMS: dict[str, Callable[[], Any]] = {
    "flip": lambda: HorizontalFlip(0.5, DATA.keypoint_pairs),
    "resize": lambda: Resize((90, 50)),
    "longer side": lambda: Resize(144),
    "scale": lambda: ScaleJitter(0.6, 1.7),
    "crop": lambda: RandomCrop((40, 56)),
    "border": lambda: RandomCrop(100),
    "colour": lambda: ColourJitter(),
    "all": lambda: Compose([HorizontalFlip(), ScaleJitter(), RandomCrop(64), ColourJitter()]),
    "torchvision": v2_pipeline,
    "sanitized": v2_with_sanitizing,
}


def check(image: Tensor, target: Target, slack: float = 1.0) -> None:
    count, (height, width) = len(target["boxes"]), image.shape[1:]
    assert image.dtype == target["boxes"].dtype == target["area"].dtype == target["keypoints"].dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    for name, shape in {
        "boxes": (count, 4), "labels": (count,), "area": (count,), "iscrowd": (count,),
        "masks": (count, height, width), "keypoints": (count, 5, 3),
    }.items():  # fmt: skip
        assert target[name].shape == shape, name
    boxes = target["boxes"]
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([width, height, width, height])).all()
    assert (boxes - boxes_of_masks(target["masks"])).abs().max() <= slack if count else True
    points = target["keypoints"]
    seen = points[..., 2] > 0
    assert (points[~seen] == 0).all()
    assert ((points[..., 0] < width) & (points[..., 1] < height) & (points[..., :2] >= 0).all(2))[seen].all()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_boxes_masks_and_keypoints_stay_together(name: str) -> None:
    transform = TRANSFORMS[name]()
    state = torch.random.get_rng_state()
    changed = 0
    for index in range(len(DATA)):
        before = ITEMS[index]
        copy = [before[0].clone(), {key: torch.as_tensor(value).clone() for key, value in before[1].items()}]
        image, target = transform(*before, generator(index))
        check(image, target)
        with torch.random.fork_rng():
            torch.manual_seed(index + 5)
            again = transform(*before, generator(index))
        assert torch.equal(image, again[0]), "the same generator, the same bits"
        assert all(torch.equal(target[key], again[1][key]) for key in target if key != "image_id")
        assert torch.equal(before[0], ITEMS[index][0]), "the input stays"
        assert all(torch.equal(copy[1][key], ITEMS[index][1][key]) for key in target if key != "image_id")  # type: ignore[index]
        assert target["image_id"] == index
        changed += image.shape != before[0].shape or not torch.equal(image, before[0])
        # The area is that of the mask in the generated scenes, and remains it.
        torch.testing.assert_close(target["area"], target["masks"].flatten(1).sum(1).float(), rtol=0.15, atol=8)
        visible = 0
        for mask, points in zip(target["masks"], target["keypoints"], strict=True):
            for x, y, seen in points.tolist():
                near = mask[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
                assert near.any() or seen != 2, "a visible keypoint is on its mask"
                visible += seen == 2
    assert changed > 2
    assert torch.equal(torch.random.get_rng_state(), state), "the global random numbers stay"


@pytest.mark.parametrize("name", TRANSFORMS)
def test_images_without_objects(name: str) -> None:
    target = {**EMPTY, "masks": torch.zeros(0, SIZE, SIZE, dtype=torch.uint8), "keypoints": torch.zeros(0, 5, 3)}
    check(*TRANSFORMS[name]()(torch.rand(3, SIZE, SIZE), target, generator()))


def test_a_mirror_swaps_left_and_right() -> None:
    image, target = ITEMS[0]
    target = {**target, "keypoints": target["keypoints"].clone()}
    target["keypoints"][:, 0] = 0  # heads not annotated
    mirrored, truth = HorizontalFlip(1.0, [(1, 2), (3, 4)])(image, target, generator())
    assert torch.equal(mirrored[:, :, 0], image[:, :, -1])
    assert torch.equal(truth["masks"], target["masks"].flip(2))
    old, new = target["keypoints"], truth["keypoints"]
    assert (new[:, 0] == 0).all()
    for first, second in ((1, 2), (2, 1), (3, 4), (4, 3)):
        seen = old[:, first, 2] > 0
        assert torch.equal(new[seen, second, 0], SIZE - old[seen, first, 0])
        assert torch.equal(new[:, second, 1:], old[:, first, 1:])
    back = HorizontalFlip(1.0, [(1, 2), (3, 4)])(mirrored, truth, generator())
    assert torch.equal(back[0], image)
    torch.testing.assert_close(back[1]["keypoints"], old)
    assert torch.equal(HorizontalFlip(0.0)(image, target, generator())[0], image)


def test_values_of_torchvision() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    for index in range(4):
        image, target = ITEMS[index]
        ours = HorizontalFlip(1.0, DATA.keypoint_pairs)(image, target, generator())
        peer = TorchvisionTransform(v2.RandomHorizontalFlip(1.0), DATA.keypoint_pairs)(image, target, generator())
        assert torch.equal(ours[0], peer[0])
        for name in ("boxes", "labels", "masks", "area"):
            assert torch.equal(ours[1][name], peer[1][name]), name
        torch.testing.assert_close(ours[1]["keypoints"], peer[1]["keypoints"])
        # Without masks: torchvision takes other pixels of those ("nearest", not "nearest-exact"); boxes follow them.
        target = {name: value for name, value in target.items() if name != "masks"}
        ours = Resize((50, 110))(image, target, generator())
        peer = TorchvisionTransform(v2.Resize((50, 110), antialias=True))(image, target, generator())
        torch.testing.assert_close(ours[0], peer[0])
        torch.testing.assert_close(ours[1]["keypoints"], peer[1]["keypoints"])
        torch.testing.assert_close(ours[1]["boxes"], peer[1]["boxes"])


def test_masks_are_scaled_as_pillow_does() -> None:
    image, target = ITEMS[2]
    _, scaled = Resize((48, 80))(image, target, generator())  # no centre of a pixel falls on an edge
    assert len(scaled["masks"]) == len(target["masks"])
    for mask, before in zip(scaled["masks"], target["masks"], strict=True):
        expected = Image.fromarray(before.numpy()).resize((80, 48), Image.Resampling.NEAREST)
        assert np.array_equal(mask.numpy(), np.array(expected))


def test_crops_by_hand() -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [60, 60, 70, 70], [38, 0, 48, 10]])
    target = {
        "boxes": boxes, "labels": torch.tensor([1, 2, 3]), "area": torch.tensor([300.0, 100, 80]),
        "keypoints": torch.tensor([[[12.0, 12, 2], [35, 35, 1]]] * 3),
    }  # fmt: skip
    image = torch.rand(3, 80, 80)
    transform = RandomCrop((40, 40), least_visible=0.2)
    place = next(s for s in range(1000) if torch.equal(transform(image, target, generator(s))[0], image[:, :40, :40]))
    _, cut = transform(image, target, generator(place))
    assert cut["boxes"].tolist() == [[10, 10, 30, 30], [38, 0, 40, 10]]
    assert cut["labels"].tolist() == [1, 3]
    torch.testing.assert_close(cut["area"], torch.tensor([300.0, 16]))
    window, _ = RandomCrop(100)(image, target, generator(3))
    grey = (window == 114 / 255).all(0)
    assert (~grey).sum() == 6400


def test_colour_jitter() -> None:
    image, target = ITEMS[3]
    same, _ = ColourJitter(0, 0, 0, 0)(image, target, generator())
    torch.testing.assert_close(same, image, rtol=0, atol=1e-5)
    grey, _ = ColourJitter(0, 0, 1, 0)(image, target, generator(1))
    luma = torch.tensor([0.299, 0.587, 0.114])
    inside = ((grey > 0) & (grey < 1)).all(0)
    torch.testing.assert_close(
        torch.einsum("c,chw->hw", luma, grey)[inside], torch.einsum("c,chw->hw", luma, image)[inside],
        rtol=0, atol=2e-4,
    )  # fmt: skip
    bright, _ = ColourJitter(0.5, 0, 0, 0)(image / 2, target, generator(2))
    ratio = bright / (image / 2).clamp(min=1e-6)
    assert ratio[image > 0.1].std() < 1e-3
    assert abs(float(ratio[image > 0.1].mean()) - 1) > 0.01


AUGMENTED: dict[str, Callable[[], Augmented]] = {
    "transformed": lambda: Transformed(DATA, Compose([HorizontalFlip(), RandomCrop(60)]), seed=3),
    "mosaic": lambda: Mosaic(DATA, 96, seed=3),
    "small mosaic": lambda: Mosaic(DATA, 32, seed=3, probability=0.5),
    "mix-up": lambda: MixUp(DATA, seed=3, probability=1.0),
    "both": lambda: Transformed(MixUp(Mosaic(DATA, 80)), HorizontalFlip(), seed=3),
}


@pytest.mark.parametrize("name", AUGMENTED)
def test_data_sets_with_changes(name: str) -> None:
    data = AUGMENTED[name]()
    assert (data.names, data.keypoint_pairs, len(data)) == (DATA.names, DATA.keypoint_pairs, len(DATA))
    first = [data[index] for index in range(len(data))]
    for image, target in first:
        check(image, target)
    data.set_epoch(1)
    other = [data[index] for index in range(len(data))]
    assert sum(a[0].shape == b[0].shape and torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True)) < 7
    data.set_epoch(0)
    assert torch.equal(data[5][0], first[5][0])
    with pytest.raises(IndexError, match="index must be less than 10, got 10"):
        data[10]


def test_workers_that_live_on_know_the_epoch() -> None:
    data = Transformed(MixUp(synthetic_scenes(4, 32, classes=2), probability=1.0), HorizontalFlip(), seed=3)
    loader = DataLoader(data, num_workers=2, collate_fn=list, persistent_workers=True)
    for epoch in range(2):
        data.set_epoch(epoch)
        for index, ((image, target),) in enumerate(loader):
            expected, truth = data[index]
            assert torch.equal(image, expected)
            assert torch.equal(target["boxes"], truth["boxes"])


def test_mosaic_shows_four_images() -> None:
    """Of images of one colour each: four rectangles, and each object in the colour of its image."""

    class Plain(type(DATA)):  # type: ignore[misc]
        def __getitem__(self, index: int) -> tuple[Tensor, Target]:
            _, target = super().__getitem__(index)
            return torch.full((3, SIZE, SIZE), (index + 1) / 20), {
                **target, "labels": torch.full_like(target["labels"], index),
            }  # fmt: skip

    data = Plain(14, SIZE, 11, ("person", "star"), 1, 5)
    objects = 0
    for index in range(14):
        image, target = Mosaic(data, 100, scale=(1.0, 1.0))[index]
        colours = {round(value * 20) - 1 for value in image[0].flatten().tolist() if abs(value - 114 / 255) > 1e-6}
        assert index in colours
        assert 1 <= len(colours) <= 4
        for label, mask in zip(target["labels"].tolist(), target["masks"].bool(), strict=True):
            torch.testing.assert_close(image[0][mask], torch.full_like(image[0][mask], (label + 1) / 20))
            objects += 1
    assert objects > 40
    a, b = data[2], data[3]
    mixed, target = MixUp(data, probability=1.0, weight=(0.5, 0.5)).sample(2, generator(0))
    assert mixed.std() < 1e-6
    assert len(target["labels"]) >= max(len(a[1]["labels"]), 1)
    assert b is not None


def test_bad_arguments() -> None:
    for make, message in (
        (lambda: HorizontalFlip(1.5), "probability must be 0 to 1, got 1.5"),
        (lambda: Resize(0), "size must be at least 1, got 0"),
        (lambda: ScaleJitter(2, 1), "least and most must be positive and in order, got 2 and 1"),
        (lambda: RandomCrop((0, 3)), r"size must be at least 1, got \(0, 3\)"),
        (lambda: ColourJitter(hue=1), "hue must be 0 to 0.5, got 1"),
        (lambda: Mosaic(DATA, 4), "size must be at least 16, got 4"),
        (lambda: MixUp(DATA, weight=(1, 0)), r"weight must be numbers from 0 to 1 in order, got \(1, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
