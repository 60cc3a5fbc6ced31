"""The R-CNN family against torchvision's: same weights, same images, same answers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import Backend
from rcnn_problems import CLASSES, KINDS, OPTIONS, images, make_pair, prepare, targets
from torch import Tensor, nn

from fastcv.models import detection
from fastcv.nn.batch_norm import FrozenBatchNorm2d


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    try:
        import torchvision
        from torchvision.models import detection as theirs

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision's operators do not load here: {str(error).splitlines()[0]}")
    return theirs


def assert_same_detections(
    actual: list[dict[str, Tensor]], expected: list[dict[str, Tensor]], moved: float = 0.0
) -> None:
    """``moved`` is the share of keypoints that may lie elsewhere, where a heat map has two heights that are equal, and
    a thousand times the share of mask pixels whose rounding untrained weights may amplify to more than 1e-3.
    """
    for ours, theirs in zip(actual, expected, strict=True):
        assert list(ours) == list(theirs)
        assert torch.equal(ours["labels"], theirs["labels"])
        torch.testing.assert_close(ours["boxes"], theirs["boxes"], rtol=0, atol=1e-2)
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=0, atol=1e-4)
        if "masks" in theirs:
            difference = (ours["masks"] - theirs["masks"]).abs()
            assert int((difference > 1e-3).sum()) <= moved * 1e-3 * difference.numel()
            assert float(difference.amax()) <= (1e-3 if moved == 0 else 5e-3)
        if "keypoints" in theirs:
            away = (ours["keypoints"] - theirs["keypoints"]).abs().amax(-1) > 1e-2
            assert int(away.sum()) <= moved * away.numel()
            torch.testing.assert_close(ours["keypoints_scores"], theirs["keypoints_scores"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_same_detections(peer: ModuleType, backend: Backend, kind: str) -> None:
    ours, theirs = make_pair(peer, kind)
    ours.to(backend.device)
    with torch.no_grad():
        expected = theirs(images())
        for optimized in (False, True):
            if optimized:
                assert ours.optimize() is ours
            actual = [
                {key: value.cpu() for key, value in image.items()}
                for image in ours([image.to(backend.device) for image in images()])
            ]
            assert_same_detections(actual, expected)
    assert sum(len(image["boxes"]) for image in expected) >= 40
    assert len({label for image in expected for label in image["labels"].tolist()}) > 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_same_detections_of_resnet50(peer: ModuleType, kind: str) -> None:
    """The models people use, on a photograph."""
    cbook, image = pytest.importorskip("matplotlib.cbook"), pytest.importorskip("PIL.Image")
    numpy = pytest.importorskip("numpy")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = torch.from_numpy(numpy.array(image.open(file))).permute(2, 0, 1).float() / 255
    options = {"num_classes": CLASSES, "min_size": 200, "max_size": 320, "box_detections_per_img": 20}
    torch.manual_seed(0)
    name = f"{kind}_resnet50_fpn"
    theirs = getattr(peer, name)(weights=None, weights_backbone=None, **options)
    theirs.load_state_dict(getattr(detection, name)(**options).state_dict())
    prepare(theirs)
    with torch.no_grad():
        # A fiftieth of a pixel is a matter of rounding where untrained offsets are as large as they are made above.
        for layer in (
            theirs.roi_heads.box_predictor.cls_score,
            theirs.roi_heads.box_predictor.bbox_pred,
            theirs.rpn.head.cls_logits,
            theirs.rpn.head.bbox_pred,
        ):
            layer.weight.div_(8)
        if kind == "maskrcnn":
            theirs.roi_heads.mask_predictor.mask_fcn_logits.weight.div_(8)
    ours = getattr(detection, name)(**options).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs([photo])
        assert len(expected[0]["boxes"]) >= 5
        assert_same_detections(ours([photo]), expected, moved=0.02)
        assert_same_detections(ours.optimize()([photo]), expected, moved=0.02)


def test_same_meaning_in_float64(peer: ModuleType) -> None:
    """Where rounding is out of the way, and in a mode that records gradients."""
    ours, theirs = make_pair(peer, "maskrcnn")
    expected, actual = theirs.double()(images(torch.float64)), ours.double()(images(torch.float64))
    for left, right in zip(actual, expected, strict=True):
        assert torch.equal(left["labels"], right["labels"])
        for key in ("boxes", "scores", "masks"):
            assert left[key].dtype is torch.float64
            torch.testing.assert_close(left[key], right[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found(peer: ModuleType, kind: str) -> None:
    ours, theirs = make_pair(peer, kind)
    for model in (ours, theirs):
        model.roi_heads.score_thresh = 0.9999
    with torch.no_grad():
        expected, actual = theirs(images()), ours(images())
        padded = ours.forward_padded(images()[0][None])
    for left, right in zip(actual, expected, strict=True):
        assert {key: value.shape for key, value in left.items()} == {key: value.shape for key, value in right.items()}
        assert not len(left["boxes"])
    assert padded["count"].tolist() == [0]
    assert not any(value.any() for value in padded.values())


@pytest.mark.parametrize("kind", KINDS)
def test_no_proposals(kind: str) -> None:
    model = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS, rpn_score_thresh=1.5).eval()
    with torch.no_grad():
        assert [len(image["scores"]) for image in model(images())] == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_padded_is_the_same_with_zeros_behind(kind: str, backend: Backend) -> None:
    model = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS)
    prepare(model)
    model.to(backend.device)
    batch = torch.stack([images()[0], images()[0].flip(1)]).to(backend.device)
    with torch.no_grad():
        model.roi_heads.score_thresh = model(list(batch))[0]["scores"][12].item()
        expected, padded = model(list(batch)), model.forward_padded(batch)
    count = padded.pop("count")
    assert count[0] == 12
    for i, image in enumerate(expected):
        assert count[i] == len(image["boxes"])
        for key, value in padded.items():
            assert value.shape == (2, 20, *image[key].shape[1:])
            torch.testing.assert_close(value[i, : count[i]], image[key], rtol=1e-4, atol=1e-4)
            assert not value[i, count[i] :].any()


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_as_one_graph(kind: str) -> None:
    model = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **{**OPTIONS, "box_detections_per_img": 6})
    prepare(model)
    model.optimize()
    batch = images()[0][None]
    with torch.no_grad():
        expected = model.forward_padded(batch)
        actual = torch.compile(model.forward_padded, fullgraph=True, backend="aot_eager", dynamic=False)(batch)
    assert expected["count"] > 3
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-3, atol=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fits_one_cuda_graph(kind: str) -> None:
    model = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS)
    prepare(model)
    model.optimize().cuda()
    batch = images()[0][None].cuda()
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                expected = model.forward_padded(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            actual = model.forward_padded(batch)
        graph.replay()
    torch.cuda.synchronize()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-4, atol=1e-4)


# Training -------------------------------------------------------------------------------------------------------------


def step(model: Any, kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(4)
    losses: dict[str, Tensor] = model(images(dtype, flat=False), targets(kind, dtype))
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize("sampling", ["some", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_losses_and_gradients(peer: ModuleType, backend: Backend, kind: str, sampling: str) -> None:
    """In float64, where a difference is one of meaning; seeded sampling draws the same numbers.

    torchvision works one loss, that of objectness, out in float32 all the same.
    """
    if backend.device != "cpu":
        pytest.skip("torchvision's gradients are compared on a CPU")
    ours, theirs = make_pair(peer, kind)
    if sampling == "all":
        for sampler in (
            ours.rpn.sampler,
            theirs.rpn.fg_bg_sampler,
            ours.roi_heads.sampler,
            theirs.roi_heads.fg_bg_sampler,
        ):
            sampler.batch_size_per_image = 100_000
            sampler.positive_fraction = 0.5
    ours.double().train(), theirs.double().train()
    expected, actual = step(theirs, kind, torch.float64), step(ours, kind, torch.float64)
    assert list(actual) == list(expected)
    for name, loss in expected.items():
        torch.testing.assert_close(actual[name], loss.double(), rtol=1e-6, atol=1e-9, msg=name)
        assert loss > 0, name
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        gradient = gradients[name].grad
        assert gradient is not None, name
        difference = (gradient - parameter.grad).norm()
        assert difference <= 1e-5 * parameter.grad.norm() + 1e-12, (name, difference.item())


@pytest.mark.parametrize("kind", KINDS)
def test_same_losses_and_gradients_in_float32_with_frozen_normalisation(peer: ModuleType, kind: str) -> None:
    """Folded into the convolutions here, applied after them there."""
    pair = make_pair(peer, kind)
    for model in pair:
        model.train()
        for module in list(model.backbone.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    frozen = FrozenBatchNorm2d(child.num_features)
                    frozen.load_state_dict(child.state_dict())
                    setattr(module, name, frozen)
    actual, expected = (step(model, kind, torch.float32) for model in pair)
    for name, loss in expected.items():
        torch.testing.assert_close(actual[name], loss, rtol=1e-3, atol=1e-6, msg=name)
    theirs = dict(pair[1].named_parameters())
    for name, parameter in pair[0].named_parameters():
        reference = theirs[name].grad
        assert (parameter.grad - reference).norm() <= 1e-3 * reference.norm() + 1e-6, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_under_autocast(kind: str) -> None:
    torch.manual_seed(2)
    model = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS).train()
    expected = step(model, kind, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = step(model, kind, torch.float32)
        with torch.no_grad():
            assert len(model.eval()(images())) == 3
    for name, loss in expected.items():
        torch.testing.assert_close(actual[name].float(), loss, rtol=0.1, atol=0.02, msg=name)


def test_images_without_targets_train(backend: Backend) -> None:
    for kind in KINDS:
        model = detection.create(f"{kind}_tiny_fpn", num_classes=CLASSES, **OPTIONS).train().to(backend.device)
        nothing = {key: value[:0].to(backend.device) for key, value in targets(kind)[0].items()}
        losses = model([images()[0].to(backend.device)], [nothing])
        torch.stack(list(losses.values())).sum().backward()
        assert all(torch.isfinite(loss) for loss in losses.values())
        assert losses["loss_rpn_box_reg"] == 0
        assert losses["loss_objectness"] > 0


def test_a_step_is_the_same_on_two_runs_and_any_number_of_threads() -> None:
    results = []
    before = torch.get_num_threads()
    for threads in (before, before, 1):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        model = detection.create("maskrcnn_tiny_fpn", num_classes=CLASSES, **OPTIONS)
        prepare(model)
        with torch.no_grad():
            results.append(model(images()))
    torch.set_num_threads(before)
    for left, right in zip(results[0], results[1], strict=True):
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert_same_detections(results[2], results[0])
