"""``fastcv.Detections``: what goes in, what comes out, and what other packages make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image

import fastcv
from fastcv import Detections
from fastcv._rle import encode_mask
from fastcv.class_names import COCO_80, COCO_91
from fastcv.detections import names_of
from fastcv.models.registry import create_model

NAMES = {1: "person", 2: "tie", 3: "cat"}


def make(**changes: Any) -> Detections:
    """Four objects in an image of 40 x 60 whose pixels say where they are."""
    y, x = np.mgrid[0:40, 0:60].astype(np.uint8)
    masks = torch.zeros(4, 40, 60, dtype=torch.bool)
    for row in range(4):
        masks[row, row : 2 * row + 3, 5:15] = True
    fields: dict[str, Any] = {
        "boxes": [[5, 0, 15, 10], [0, 0, 60, 40], [50.5, 30.2, 59.5, 39.5], [-5, -5, 3, 3]],
        "scores": [0.9, 0.8, 0.7, 0.2], "labels": [1, 2, 1, 3], "masks": masks,
        "keypoints": torch.arange(24.0).reshape(4, 2, 3), "keypoint_scores": torch.arange(8.0).reshape(4, 2),
        "names": NAMES, "image": np.stack([x, y, x * 0], -1),
    }  # fmt: skip
    return Detections(**(fields | changes))


def test_fields() -> None:
    found = make()
    assert len(found) == 4
    assert found.boxes.dtype == torch.float32
    assert found.labels.dtype == torch.int64
    assert found.image_size == (40, 60)
    assert found.class_names == ["person", "tie", "person", "cat"]
    assert make(names=None).class_names[0] == "class 1"
    assert make(names=["a", "b", "c"]).class_names == ["b", "c", "b", "class 3"]
    assert repr(found) == "Detections(4 objects: 2 person, 1 tie, 1 cat; best 0.90)"
    assert repr(found[0]) == "Detections(1 object: 1 person; best 0.90)"
    assert repr(found[[]]) == "Detections(no objects)"
    assert repr(make(scores=None)) == "Detections(4 objects: 2 person, 1 tie, 1 cat)"
    assert found.captions()[1] == "tie 0.80"
    assert found.areas().tolist() == [30, 40, 50, 60]
    assert make(masks=None).areas().tolist() == pytest.approx([100, 2400, 9 * 9.3, 64])
    assert len(Detections([])) == len(Detections(torch.zeros(0, 4), [], [], keypoints=[])) == 0


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 3), slice(None, None, -1), slice(3, 0, -2), [2, 0], [-1], [True, False, True, False], [],
        np.array([3, 3, 1]), np.array([False] * 4), torch.tensor([1, 2]), torch.tensor([0, 1, 0, 1]).bool(),
    ],
)  # fmt: skip
def test_indexing_is_numpys(index: Any) -> None:
    found = make()
    taken, wanted = found[index].numpy(), found.numpy()
    rows = np.asarray(index, dtype=int) if isinstance(index, list) and not index else np.arange(4)[index]
    assert set(taken) == {"boxes", "scores", "labels", "masks", "keypoints", "keypoint_scores"}
    for name, value in taken.items():
        assert np.array_equal(value, wanted[name][rows]), name


def test_one_object_and_iteration() -> None:
    found = make()
    assert found[-1].boxes.tolist() == [[-5, -5, 3, 3]]
    assert [one.class_names for one in found] == [["person"], ["tie"], ["person"], ["cat"]]
    assert found[1].image is found.image


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (4, IndexError, "within 4 objects, got [4]"), ([0, -5], IndexError, "within 4 objects"),
        ([True], IndexError, "one bool per object, 4, got 1"), (1.5, TypeError, "integers, bools or a slice"),
        ("person", TypeError, "integers, bools or a slice, got str"), (torch.zeros(4), TypeError, "got float32"),
    ],
)  # fmt: skip
def test_wrong_indices(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()[index]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ({"score": 0.7}, [0, 1, 2]), ({"score": {"person": 0.85}}, [0, 1, 3]),
        ({"score": {1: 0.95, "tie": 0.9}}, [3]), ({"labels": "person"}, [0, 2]), ({"labels": 3}, [3]),
        ({"labels": ["cat", 2]}, [1, 3]), ({"labels": []}, []), ({"min_area": 40}, [1, 2, 3]),
        ({"max_area": 45.5, "min_area": 31}, [1]), ({"score": 0.5, "labels": "person", "min_area": 35}, [2]),
        ({}, [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_filter(wanted: dict[str, Any], kept: list[int]) -> None:
    found = make()
    assert torch.equal(found.filter(**wanted).boxes, found.boxes[kept])


def test_filter_says_which_classes_there_are() -> None:
    with pytest.raises(ValueError, match=r"there is no class 'pereson': there is person"):
        make().filter(labels="pereson")
    with pytest.raises(ValueError, match="there is no class 'x': there is person, tie, cat"):
        make().filter(score={"x": 0.5})
    with pytest.raises(ValueError, match="these objects have no scores"):
        make(scores=None).filter(score=0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"boxes": [1.0, 2, 3, 4]}, ValueError, "boxes must have shape (N, 4), got (4,)"),
        ({"boxes": [[0, 0, 1, float("nan")]] * 4}, ValueError, "boxes must have finite numbers, got [0.0, 0.0, 1"),
        ({"boxes": "none"}, TypeError, "boxes must be a tensor, an array or a list of numbers, got str"),
        ({"scores": [0.5]}, ValueError, "scores must have shape (4,), a row per box, got (1,)"),
        ({"labels": [1.0] * 4}, TypeError, "labels must be integers, got float32"),
        ({"labels": [1]}, ValueError, "labels must have shape (4,)"),
        ({"masks": torch.zeros(4, 40, 60)}, TypeError, "masks must be bool or integers, got float32: compare"),
        ({"masks": torch.zeros(4, 1, 40, 60).bool()}, ValueError, "masks must have shape (4, any, any)"),
        ({"masks": torch.zeros(4, 4, 6).bool()}, ValueError, "masks must have the height and width of the image"),
        ({"keypoints": torch.zeros(4, 2, 2)}, ValueError, "keypoints must have shape (4, any, 3)"),
        ({"keypoint_scores": torch.zeros(4, 3)}, ValueError, "keypoint_scores must have shape (4, 2)"),
        ({"image_size": (40, 61)}, ValueError, "the image must have the height and width of image_size, (40, 61)"),
        ({"image_size": 40.0}, ValueError, "image_size must be height and width, got 40.0"),
        ({"image": "photo.jpg"}, TypeError, "image must be a PIL image"),
        ({"names": "person"}, TypeError, "names must be a dict, a list or a model, got str"),
        ({"names": {"1": "person"}}, TypeError, "names must be text by integer, got '1': 'person'"),
        ({"skeleton": [(0, 2)]}, ValueError, "skeleton must join keypoints 0 to 1, got (0, 2)"),
        ({"scores": torch.zeros(4, device="meta")}, ValueError, "scores must be on the device of boxes, cpu, got meta"),
    ],
)  # fmt: skip
def test_what_does_not_fit(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make(**changes)
    assert message in str(caught.value)


# From models ----------------------------------------------------------------------------------------------------------


def test_from_model() -> None:
    found = {
        "boxes": torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 3]]), "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.9, 0.3]), "masks": torch.tensor([0.5, 0.6]).reshape(2, 1, 1, 1).expand(2, 1, 4, 4),
        "keypoints": torch.ones(2, 3, 3), "keypoints_scores": torch.ones(2, 3),
    }  # fmt: skip
    made = Detections.from_model(found, NAMES, image=Image.new("RGB", (4, 4)))
    assert made.masks is not None
    assert made.masks.flatten(1).all(1).tolist() == [False, True]  # 0.5 is not more than 0.5
    assert made.keypoint_scores is not None
    assert repr(Detections.from_model(found, NAMES, score=0.5)) == "Detections(1 object: 1 person; best 0.90)"
    several = Detections.from_models([found, found], NAMES, paths=["a.png", "b.png"])
    assert [str(one.path) for one in several] == ["a.png", "b.png"]
    target = {"boxes": found["boxes"], "labels": found["labels"], "masks": torch.ones(2, 4, 4, dtype=torch.uint8)}
    assert Detections.from_model(target, NAMES).captions() == ["person", "tie"]
    with pytest.raises(TypeError, match="found must be the dictionary of one image, got list"):
        Detections.from_model([found])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="found must have boxes, has masks"):
        Detections.from_model({"masks": found["masks"]})
    with pytest.raises(ValueError, match="images must have one per image, 1, got 0"):
        Detections.from_models([found], images=[])


def test_the_skeleton_of_a_model() -> None:
    model = create_model("keypointrcnn_tiny_fpn", names=["person"], num_keypoints=3)
    found = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.ones(1).long(),
             "keypoints": torch.ones(1, 3, 3)}  # fmt: skip
    assert Detections.from_model(found, model).skeleton is None
    model.card.facts["skeleton"] = [[0, 1], [1, 2]]
    assert Detections.from_model(found, model).skeleton == [(0, 1), (1, 2)]
    assert Detections.from_models([found], model)[0].skeleton == [(0, 1), (1, 2)]
    assert Detections.from_model(found, model, skeleton=[(0, 2)]).skeleton == [(0, 2)]
    model.card.facts["skeleton"] = "bones"
    assert Detections.from_model(found, model).skeleton is None


def test_names_of_models() -> None:
    assert names_of(create_model("yolov3_tiny")) == COCO_80
    assert names_of(create_model("yolov2_tiny"))[14] == "person"
    assert names_of(create_model("yolov2_tiny", classes=3)) == {}
    assert names_of(create_model("fasterrcnn_tiny_fpn")) == COCO_91
    assert names_of(create_model("keypointrcnn_tiny_fpn")) == {1: "person"}
    assert names_of(create_model("fasterrcnn_tiny_fpn", num_classes=2)) == {1: "object"}
    assert names_of(create_model("fasterrcnn_tiny_fpn", names=["circle", "square"])) == {1: "circle", 2: "square"}


def test_from_torchvision() -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    categories = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    found = {"boxes": torch.zeros(2, 4), "labels": torch.tensor([32, 12]), "scores": torch.ones(2)}
    assert Detections.from_torchvision(found, categories).class_names == ["tie", "class 12"]


def ultralytics_results(height: int = 90, width: int = 160) -> Any:
    """What Ultralytics returns for an image of 90 x 160 in a network of 64 x 64: masks are padded to a square."""
    masks = torch.zeros(2, 64, 64)
    masks[0, 14:50, 0:32] = 1  # the left half; 36 rows hold the image
    masks[1, 20:40, 10:50] = 1
    return SimpleNamespace(
        boxes=SimpleNamespace(
            xyxy=torch.tensor([[0.0, 0, 80, 90], [25, 15, 125, 65]]), conf=torch.tensor([0.9, 0.4]),
            cls=torch.tensor([0.0, 27.0]), id=None,
        ),
        masks=SimpleNamespace(data=masks), keypoints=SimpleNamespace(data=torch.ones(2, 17, 2)), obb=None,
        names={0: "person", 27: "tie"}, orig_shape=(height, width), path="street.jpg",
        orig_img=np.full((height, width, 3), (255, 0, 0), np.uint8),
    )  # fmt: skip


def test_from_ultralytics() -> None:
    results = ultralytics_results()
    found = Detections.from_ultralytics(results)
    assert repr(found) == "Detections(2 objects: 1 person, 1 tie; best 0.90)"
    assert found.labels.tolist() == [0, 27]
    assert found.masks is not None
    assert found.masks.shape == (2, 90, 160)
    assert torch.equal(found.masks[0], (torch.arange(160) < 80).expand(90, -1))
    assert found.keypoints is not None
    assert found.keypoints.shape == (2, 17, 3)
    assert found.picture().getpixel((0, 0)) == (0, 0, 255)  # BGR
    with pytest.raises(ValueError, match="got one with oriented boxes"):
        Detections.from_ultralytics(SimpleNamespace(boxes=None, obb=1))


def test_ultralytics_and_supervision_agree() -> None:
    supervision = pytest.importorskip("supervision")
    theirs = supervision.Detections.from_ultralytics(ultralytics_results())
    ours = Detections.from_ultralytics(ultralytics_results()).to_supervision()
    for name in ("xyxy", "confidence", "class_id"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert list(ours.data["class_name"]) == list(theirs.data["class_name"])
    differ = (ours.mask != theirs.mask).sum((1, 2)) / theirs.mask.sum((1, 2))
    assert (differ < 0.02).all(), differ
    nothing = make()[[]].to_supervision()
    assert len(nothing) == 0


# COCO -----------------------------------------------------------------------------------------------------------------


def test_masks_are_pycocotools() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(0)
    shapes = [(1, 1), (7, 5), (64, 48), (1, 300), (300, 1)]
    masks = [generator.random(shape) < share for shape in shapes for share in (0.02, 0.5, 0.98)]
    wide = np.zeros((700, 900), bool)
    wide[100:600, 30:880] = True  # runs of several characters, and equal ones
    for mask in [*masks, wide, np.zeros((9, 9), bool), np.ones((9, 9), bool)]:
        theirs = coder.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_mask(mask) == {"size": theirs["size"], "counts": theirs["counts"].decode()}


def test_coco_and_back(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    found = make()
    results = found.to_coco(7)
    assert results[2]["bbox"] == pytest.approx([50.5, 30.2, 9.0, 9.3], abs=1e-5)
    assert results[0]["keypoints"] == [0, 1, 2, 3, 4, 5]
    assert {one["image_id"] for one in results} == {7}
    truth = coco.COCO()
    truth.dataset = {"images": [{"id": 7, "height": 40, "width": 60}], "categories": [], "annotations": []}
    truth.createIndex()
    loaded = truth.loadRes(results)
    assert [loaded.annToMask(one).sum() for one in loaded.dataset["annotations"]] == [30, 40, 50, 60]
    back = Detections.from_coco(results, (40, 60), NAMES)
    for name in ("labels", "masks", "keypoints", "scores"):
        assert torch.equal(getattr(back, name), getattr(found, name)), name
    torch.testing.assert_close(back.boxes, found.boxes, rtol=0, atol=1e-5)
    assert found.to_coco(1, {1: 10, 2: 20, 3: 30})[3]["category_id"] == 30
    with pytest.raises(ValueError, match="categories must have every label, got none for 2"):
        found.to_coco(1, {1: 10})


def test_polygons_of_coco() -> None:
    pytest.importorskip("pycocotools")
    polygon = {"bbox": [2, 3, 4, 5], "category_id": 1, "segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]]}
    found = Detections.from_coco([polygon], (10, 12), NAMES)
    assert found.masks is not None
    assert found.masks[0].nonzero().aminmax(dim=0)[1].tolist() == [7, 5]
    assert found.boxes.tolist() == [[2, 3, 6, 8]]
    assert found.scores is None


# Pictures and the rest ------------------------------------------------------------------------------------------------


def test_crop() -> None:
    crops = [np.asarray(one) for one in make().crop()]
    assert [one.shape[:2] for one in crops] == [(10, 10), (40, 60), (10, 10), (3, 3)]
    assert crops[0][0, 0].tolist() == [5, 0, 0]  # the pixels say where they are
    assert crops[2][0, 0].tolist() == [50, 30, 0]
    padded = [np.asarray(one) for one in make().crop(padding=2)]
    assert padded[0][0, 0].tolist() == [3, 0, 0]
    assert padded[0].shape[:2] == (12, 14)
    assert [one.size for one in make(boxes=[[90, 90, 99, 99]] * 4).crop()] == [(1, 1)] * 4


def test_picture_from_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    found = Detections([[1, 2, 30, 30]], path=tmp_path / "red.png")
    assert found.plot().size == (60, 40)
    found.save(tmp_path / "drawn.jpg")
    assert Image.open(tmp_path / "drawn.jpg").format == "JPEG"
    with pytest.raises(ValueError, match=r"path must end in a format of images such as .png or .jpg"):
        found.save(tmp_path / "drawn.txt")
    with pytest.raises(ValueError, match="there is no image"):
        Detections([[1, 2, 30, 30]]).plot()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.jpg", "red.png"]


@pytest.mark.parametrize("image", [
    torch.full((3, 4, 5), 0.2), torch.full((3, 4, 5), 51, dtype=torch.uint8), np.full((4, 5, 3), 51, np.uint8),
    np.full((4, 5), 51, np.uint8), Image.new("L", (5, 4), 51), torch.full((1, 4, 5), 0.2),
])  # fmt: skip
def test_images_of_any_kind(image: Any) -> None:
    found = Detections([[0, 0, 2, 2]], image=image)
    assert found.image_size == (4, 5)
    assert found.picture().getpixel((4, 3)) == (51, 51, 51)


def test_concat() -> None:
    found = make()
    joined = Detections.concat([found[:1], found[1:]])
    assert repr(joined) == repr(found)
    assert torch.equal(joined.boxes, found.boxes)
    with pytest.raises(ValueError, match="parts must agree on names, got 'person' and 'dog' for label 1"):
        Detections.concat([found, make(names={1: "dog"})])
    with pytest.raises(ValueError, match="parts must all have scores, or none of them"):
        Detections.concat([found, make(scores=None)])
    with pytest.raises(ValueError, match="parts must hold at least one"):
        Detections.concat([])


def test_to_a_device() -> None:
    moved = make().to("meta")
    assert moved.boxes.device.type == moved.masks.device.type == "meta"  # type: ignore[union-attr]
    assert make().cpu().boxes.device.type == "cpu"


def test_import_brings_nothing_else(in_new_process: Callable[[str], str]) -> None:
    script = """
        import sys
        import fastcv
        others = "PIL matplotlib cv2 supervision pycocotools torchvision typer rich ultralytics".split()
        assert not [name for name in others if name in sys.modules]
        from fastcv import Detections
        found = Detections([[0, 0, 4, 4]], [0.5])
        assert repr(found[found.scores > 0.1]) == "Detections(1 object: 1 class 0; best 0.50)"
        found.to_coco(1)
        assert not [name for name in others if name in sys.modules]
        assert not hasattr(fastcv, "Detection")
    """
    in_new_process(script)


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="to_supervision needs supervision: pip install supervision"):
        make().to_supervision()
    assert "Detections" in fastcv.__all__
