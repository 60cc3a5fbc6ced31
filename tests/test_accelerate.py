"""torchvision's detection models under accelerate_torchvision(): equal answers, and everything put back."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import fastcv
from fastcv import accelerate, ops

MODELS = ["fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"]


@pytest.fixture(scope="module")
def detection() -> ModuleType:
    try:
        import torchvision
        from torchvision.models import detection

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision's operators do not load here: {str(error).splitlines()[0]}")
    return detection


def make_model(detection: ModuleType, name: str) -> Any:
    torch.manual_seed(0)
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5}
    options |= {"min_size": 128, "max_size": 192, "box_detections_per_img": 30} if "rcnn" in name else {}
    if "retinanet" in name:
        options |= {"min_size": 128, "max_size": 192, "score_thresh": 0.01}
    elif "rcnn" in name:
        options |= {"box_score_thresh": 0.01, "box_batch_size_per_image": 32}
        for phase in ("train", "test"):
            options |= {f"rpn_pre_nms_top_n_{phase}": 300, f"rpn_post_nms_top_n_{phase}": 60}
    model = getattr(detection, name)(**options)
    for module in model.modules():  # random batch statistics, so that features are not all alike
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 120, 160, generator=generator), torch.rand(3, 140, 100, generator=generator)]


def targets(name: str) -> list[dict[str, Tensor]]:
    """One image with three objects, one without any."""
    boxes = torch.tensor([[10.0, 12, 60, 70], [30, 20, 120, 100], [5, 60, 90, 118]])
    filled = {"boxes": boxes, "labels": torch.tensor([1, 2, 4])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    if "mask" in name:
        masks = torch.zeros(3, 120, 160, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        filled["masks"], empty["masks"] = masks, torch.zeros(0, 140, 100, dtype=torch.uint8)
    if "keypoint" in name:
        keypoints = torch.rand(3, 17, 3, generator=torch.Generator().manual_seed(2))
        keypoints[..., :2] = keypoints[..., :2] * 50 + boxes[:, None, :2]
        keypoints[..., 2] = 1
        filled["keypoints"], empty["keypoints"] = keypoints, torch.zeros(0, 17, 3)
    return [filled, empty]


def both(call: Callable[[], Any]) -> tuple[Any, Any]:
    torch.manual_seed(3)
    expected = call()
    torch.manual_seed(3)
    with fastcv.accelerate_torchvision():
        actual = call()
    return expected, actual


@pytest.mark.parametrize("name", MODELS)
def test_same_detections(detection: ModuleType, name: str) -> None:
    model = make_model(detection, name).eval()
    with torch.no_grad():
        expected, actual = both(lambda: model(images()))
    assert sum(len(result["boxes"]) for result in expected) > 20
    for left, right in zip(expected, actual, strict=True):
        assert left.keys() == right.keys()
        assert torch.equal(left["labels"], right["labels"])
        torch.testing.assert_close(right["boxes"], left["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(right["scores"], left["scores"], rtol=1e-4, atol=1e-4)
        for key in ("masks", "keypoints_scores"):
            if key in left:
                torch.testing.assert_close(right[key], left[key], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_same_losses_and_gradients(detection: ModuleType, name: str) -> None:
    """In float64, where a difference is one of meaning and not of rounding through fifty layers."""
    model = make_model(detection, name).double().train()
    twin = copy.deepcopy(model)

    def step(trained: Any) -> dict[str, float]:
        torch.manual_seed(4)
        doubled = [{k: v.double() if k == "boxes" else v for k, v in t.items()} for t in targets(name)]
        losses = trained([image.double() for image in images()], doubled)
        sum(losses.values()).backward()
        return {key: value.item() for key, value in losses.items()}

    expected = step(model)
    with fastcv.accelerate_torchvision():
        actual = step(twin)
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        assert actual[key] == pytest.approx(value, rel=1e-9), key
    compared = 0
    for (key, left), right in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert (left.grad is None) == (right.grad is None), key
        if left.grad is not None:
            compared += 1
            assert (right.grad - left.grad).norm() <= 1e-6 * left.grad.norm() + 1e-12, key
    assert compared > 50


def test_the_operators_of_fastcv_are_called(detection: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In inference and training each patched operator takes part, and the matrix of overlaps is never made."""
    import fastcv.ops as package

    called: set[str] = set()
    for name in ("batched_nms", "match_boxes", "multiscale_roi_align", "box_iou", "roi_align"):
        original = getattr(package, name)

        def spy(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            called.add(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(package, name, spy)
    model = make_model(detection, "maskrcnn_resnet50_fpn")
    with fastcv.accelerate_torchvision():
        model.train()(images(), targets("mask"))
    assert {"batched_nms", "match_boxes", "roi_align"} <= called
    assert "box_iou" not in called


def replaced() -> list[Any]:
    """Every function of torchvision whose code is exchanged."""
    return [function for function, _ in accelerate._replaced_functions()]


def test_everything_is_put_back(detection: ModuleType) -> None:
    import torchvision

    def state() -> list[Any]:
        """All that torchvision's modules and classes hold, and the code of each function."""
        modules = [m for n, m in sorted(sys.modules.items()) if n.split(".")[0] == "torchvision" and m is not None]
        owners = modules + [value for m in modules for value in vars(m).values() if isinstance(value, type)]
        values = [value for owner in owners for _, value in sorted(vars(owner).items(), key=lambda item: item[0])]
        return [id(value) for value in values] + [id(getattr(value, "__code__", None)) for value in values]

    before, nms = state(), torchvision.ops.nms
    with fastcv.accelerate_torchvision():
        changed = state()
        assert changed != before
        assert torchvision.ops.nms is nms is torchvision.ops.boxes.nms
        with pytest.raises(RuntimeError, match="in force already"):
            fastcv.accelerate_torchvision()
        assert state() == changed
    assert state() == before
    with pytest.raises(ZeroDivisionError), fastcv.accelerate_torchvision():
        raise ZeroDivisionError
    assert state() == before
    acceleration = fastcv.accelerate_torchvision()
    acceleration.restore()
    acceleration.restore()
    assert state() == before


def test_references_from_before_take_part(detection: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.ops import nms

    monkeypatch.setattr(ops, "nms", lambda *arguments: arguments)
    with fastcv.accelerate_torchvision():
        assert nms(1, iou_threshold=3, scores=2) == (1, 2, 3)


def test_another_format_of_boxes_is_torchvisions(detection: ModuleType) -> None:
    from torchvision.ops import box_iou

    if "fmt" not in inspect.signature(box_iou).parameters:
        pytest.skip("this torchvision knows one format")
    boxes = torch.rand(5, 4) + 1
    expected, actual = both(lambda: box_iou(boxes, boxes, fmt="cxcywh"))
    torch.testing.assert_close(actual, expected)


def test_a_foreign_function_is_left_alone(detection: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.ops import boxes

    codes = [function.__code__ for function in replaced()]
    with monkeypatch.context() as patch:
        patch.setattr(boxes, "nms", max)
        with pytest.raises(RuntimeError, match=r"cannot replace nms: <built-in function max> is not torchvision's own"):
            fastcv.accelerate_torchvision()
    assert [function.__code__ for function in replaced()] == codes
    with fastcv.accelerate_torchvision():
        pass


def small_model(detection: ModuleType) -> Any:
    torch.manual_seed(0)
    return detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=3)


def train(model: Any) -> dict[str, float]:
    torch.manual_seed(5)
    target = {"boxes": torch.tensor([[5.0, 5, 60, 60]]), "labels": torch.tensor([1])}
    return {name: loss.item() for name, loss in model.train()([torch.rand(3, 96, 96)], [target]).items()}


def copies(model: Any) -> list[Any]:
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    return [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)]


def test_models_are_copied_pickled_and_saved_at_any_time(detection: ModuleType) -> None:
    """Those made before, and those made meanwhile, which hold nothing of fastcv."""
    before = small_model(detection)
    expected = train(small_model(detection))
    with fastcv.accelerate_torchvision():
        within = small_model(detection)
        models = [before, within, *copies(before), *copies(within)]
        assert b"fastcv" not in pickle.dumps(within)
        for model in copies(within):
            assert train(model) == pytest.approx(expected, rel=1e-4)
    for model in (*models, *copies(within)):
        assert train(model) == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_compiles_torchvisions_source_at_any_time(detection: ModuleType) -> None:
    """Within the context first, so that its caches of classes and methods are filled there."""
    model = small_model(detection).eval()
    image = torch.rand(3, 64, 96)
    with torch.no_grad():
        expected = model([image])[0]["boxes"]
        with fastcv.accelerate_torchvision():
            scripted = [torch.jit.script(model)]
            assert "fastcv" not in str(scripted[0].inlined_graph)
        scripted.append(torch.jit.script(model))
        for script in scripted:
            torch.testing.assert_close(script([image])[1][0]["boxes"], expected, rtol=1e-3, atol=1e-2)


def test_threads_share_a_model(detection: ModuleType) -> None:
    model = small_model(detection)
    anchors = [torch.rand(300, 4).cumsum(1)]
    target = [{"boxes": torch.rand(2, 4).cumsum(1), "labels": torch.tensor([1, 2])}]
    expected = model.rpn.assign_targets_to_anchors(anchors, target)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> bool:
        return all(
            torch.equal(left[0], right[0])
            for _ in range(100)
            for left, right in zip(model.rpn.assign_targets_to_anchors(anchors, target), expected, strict=True)
        )

    try:
        with ThreadPoolExecutor(4) as pool, fastcv.accelerate_torchvision():
            assert all(done.result() for done in [pool.submit(work) for _ in range(4)])
        with ThreadPoolExecutor(4) as pool:  # while it is put into force and restored
            running = [pool.submit(work) for _ in range(3)]
            for _ in range(100):
                fastcv.accelerate_torchvision().restore()
            assert all(done.result() for done in running)
    finally:
        sys.setswitchinterval(interval)


def test_own_similarity_and_matcher_get_what_they_are_promised(detection: ModuleType) -> None:
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    class Own(Matcher):
        def __call__(self, quality: Tensor) -> Tensor:
            return super().__call__(quality.square())  # type: ignore[no-any-return]

    model = small_model(detection)
    anchors = [torch.rand(50, 4).cumsum(1)]
    target = [{"boxes": torch.rand(2, 4).cumsum(1), "labels": torch.tensor([1, 2])}]
    model.rpn.box_similarity = lambda gt, boxes: box_iou(gt, boxes).sqrt()
    expected, actual = both(lambda: model.rpn.assign_targets_to_anchors(anchors, target))
    assert torch.equal(actual[0][0], expected[0][0])
    model.rpn.box_similarity = box_iou
    for part in (model.rpn, model.roi_heads):
        part.proposal_matcher = Own(0.5, 0.2, allow_low_quality_matches=True)
    expected, actual = both(lambda: model.rpn.assign_targets_to_anchors(anchors, target))
    assert torch.equal(actual[0][0], expected[0][0])
    gt, labels = [target[0]["boxes"]], [target[0]["labels"]]
    expected, actual = both(lambda: model.roi_heads.assign_targets_to_proposals(anchors, gt, labels))
    assert torch.equal(actual[1][0], expected[1][0])


def test_own_anchors_are_used(detection: ModuleType) -> None:
    model = small_model(detection).eval()
    own = model.rpn.anchor_generator.grid_anchors
    model.rpn.anchor_generator.grid_anchors = lambda *arguments: [anchors + 3 for anchors in own(*arguments)]
    with torch.no_grad():
        expected, actual = both(lambda: model([torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))]))
    torch.testing.assert_close(actual[0]["boxes"], expected[0]["boxes"], rtol=1e-4, atol=1e-2)
