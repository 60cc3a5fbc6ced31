"""COCO's metrics from tensors in memory are those of pycocotools from files; odd cases give numbers."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastcv.engine import coco, detection_confusion, evaluate_coco

pytest.importorskip("pycocotools")
EVALUATORS = ["pycocotools", *(["faster_coco_eval"] if find_spec("faster_coco_eval") else [])]


def problem(seed: int, keypoints: int = 17, images: int = 8, size: int = 200) -> tuple[list[Any], list[Any]]:
    """Objects, and detections: some near an object, some anywhere, some of the wrong class."""
    rng = np.random.default_rng(seed)
    found, targets = [], []
    for _ in range(images):
        n = int(rng.integers(0, 7))
        corner, extent = rng.uniform(0, size - 110, (n, 2)), rng.uniform(8, 105, (n, 2))
        boxes = np.concatenate([corner, corner + extent], 1)
        points = corner[:, None] + extent[:, None] * rng.uniform(0, 1, (n, keypoints, 2))
        seen = rng.integers(0, 3, (n, keypoints, 1))
        seen[: n // 4] = 0
        targets.append({"boxes": boxes, "labels": rng.integers(1, 4, n), "iscrowd": (rng.random(n) < 0.15) * 1,
                        "keypoints": np.concatenate([points, seen], 2)})  # fmt: skip
        more = int(rng.integers(0, 4))
        near = boxes + rng.normal(0, 4, boxes.shape)
        corner = rng.uniform(0, size - 60, (more, 2))
        every = np.concatenate([near, np.concatenate([corner, corner + rng.uniform(5, 60, (more, 2))], 1)])
        d = len(every)
        labels = np.concatenate([targets[-1]["labels"], rng.integers(1, 4, more)])
        moved = np.concatenate([points + rng.normal(0, 3, points.shape), rng.uniform(0, size, (more, keypoints, 2))])
        found.append({"boxes": every, "labels": np.where(rng.random(d) < 0.15, 3, labels), "scores": rng.random(d),
                      "keypoints": np.concatenate([moved, np.ones((d, keypoints, 1))], 2)})  # fmt: skip
    kinds = {"labels": torch.int64, "iscrowd": torch.int64}
    tensors: Any = [[{k: torch.as_tensor(v).to(kinds.get(k, torch.float32)) for k, v in e.items()} for e in several]
                    for several in (found, targets)]  # fmt: skip
    for each in (*tensors[0], *tensors[1]):
        each["masks"] = drawn(each["boxes"], size)
    for target in tensors[1]:
        target["area"] = target["masks"].flatten(1).sum(1).float() * 0.9
    for each in tensors[0]:
        each["masks"] = each["masks"][:, None].float() * 0.7
    return tensors


def drawn(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """Ellipses in the boxes."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
    return inside.to(torch.uint8)


def official(folder: Path, found: Any, targets: Any, kind: str, sigmas: Any = None) -> Any:
    """Write both json files and do what COCO's own notebook does."""
    from pycocotools import mask as tools
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def runs(mask: torch.Tensor) -> Any:
        coded = tools.encode(np.asfortranarray((mask > 0.5).numpy().astype(np.uint8)))
        return {"size": coded["size"], "counts": coded["counts"].decode()}

    images, truth, results = [], [], []
    for number, (found_here, target) in enumerate(zip(found, targets, strict=True)):
        images.append({"id": 100 + number, "width": 200, "height": 200})
        for side, here in ((truth, target), (results, found_here)):
            for i in range(len(here["labels"])):
                x1, y1, x2, y2 = here["boxes"][i].double().tolist()
                entry = {"image_id": 100 + number, "category_id": int(here["labels"][i])}
                points = here["keypoints"][i].double().flatten().tolist()
                if side is truth:
                    entry |= {"id": len(truth) + 1, "iscrowd": int(here["iscrowd"][i]), "area": float(here["area"][i]),
                              "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": runs(here["masks"][i]),
                              "keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3])}  # fmt: skip
                else:
                    entry["score"] = float(here["scores"][i])
                    entry |= {"bbox": {"bbox": [x1, y1, x2 - x1, y2 - y1]}, "keypoints": {"keypoints": points},
                              "segm": {"segmentation": runs(here["masks"][i, 0])}}[kind]  # fmt: skip
                side.append(entry)
    categories = [{"id": label, "name": str(label)} for label in (1, 2, 3)]
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(folder / "truth.json"))
        judge = COCOeval(api, api.loadRes(str(folder / "found.json")), kind)
        if sigmas is not None:
            judge.params.kpt_oks_sigmas = np.array(sigmas)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


@pytest.fixture(params=EVALUATORS)
def evaluator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = coco.find_spec
    monkeypatch.setattr(coco, "_loaded", [])
    monkeypatch.setattr(coco, "find_spec", lambda name: real(name) if name in ("pycocotools", request.param) else None)


@pytest.mark.usefixtures("evaluator")
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_pycocotools(tmp_path: Path, seed: int) -> None:
    found, targets = problem(seed)
    metrics = evaluate_coco(found, targets, names={1: "a", 2: "b", 3: "c"})
    assert {name.partition("/")[0] for name in metrics} == {"bbox", "segm", "keypoints"}
    for kind in ("bbox", "segm", "keypoints"):
        judge = official(tmp_path, found, targets, kind)
        mine = [value for name, value in metrics.items() if name.startswith(kind) and name.count("/") == 1]
        assert mine == pytest.approx(judge.stats.tolist(), abs=1e-9), kind
        assert 0.05 < mine[0] < 0.95
        of_b = judge.eval["precision"][:, :, 1, 0, -1]
        assert metrics[f"{kind}/AP/b"] == pytest.approx(of_b.mean())
        assert metrics[f"{kind}/AP50/b"] == pytest.approx(of_b[0].mean())


def test_other_keypoints(tmp_path: Path) -> None:
    found, targets = problem(3, keypoints=5)
    for given, used in ((None, [0.05] * 5), ([0.02, 0.1, 0.1, 0.2, 0.2],) * 2):
        judge = official(tmp_path, found, targets, "keypoints", used)
        assert evaluate_coco(found, targets, ["keypoints"], sigmas=given)["keypoints/AP"] == pytest.approx(
            judge.stats[0]
        )
    with pytest.raises(ValueError, match="sigmas must be 5 numbers, one for each keypoint, got 2"):
        evaluate_coco(found, targets, ["keypoints"], sigmas=[0.1, 0.1])


def nothing(**more: torch.Tensor) -> Any:
    return {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), **more}


def test_crowds_and_empties() -> None:
    box = torch.tensor([[10.0, 10, 60, 60]])
    one = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    none = nothing(scores=torch.zeros(0))
    crowd = {"boxes": torch.tensor([[0.0, 0, 100, 100]]), "labels": torch.tensor([1]), "iscrowd": torch.tensor([1])}
    single = {"boxes": box, "labels": torch.tensor([1])}
    assert evaluate_coco([one], [single])["bbox/AP"] == pytest.approx(1)
    assert evaluate_coco([none], [single])["bbox/AP"] == 0
    assert evaluate_coco([one], [nothing()])["bbox/AP"] == -1
    assert evaluate_coco([none], [nothing()])["bbox/AP"] == -1
    assert evaluate_coco([none], [nothing()], names={1: "a"})["bbox/AP/a"] == -1
    assert evaluate_coco([one], [crowd])["bbox/AP"] == -1
    double = {name: torch.cat([value, value]) for name, value in one.items()}
    both = {"boxes": torch.cat([box + 300, crowd["boxes"]]), "labels": torch.tensor([1, 1]),
            "iscrowd": torch.tensor([0, 1])}  # fmt: skip
    hit = {"boxes": torch.cat([box + 300, double["boxes"]]), "labels": torch.tensor([1, 1, 1]),
           "scores": torch.tensor([0.5, 0.9, 0.8])}  # fmt: skip
    assert evaluate_coco([hit], [both])["bbox/AP"] == pytest.approx(1), "what lies in a crowd is no mistake"
    masks = {"masks": torch.zeros(0, 1, 8, 8)}
    assert evaluate_coco([none | masks], [nothing(masks=torch.zeros(0, 8, 8))])["segm/AP"] == -1


def test_bad_arguments() -> None:
    none = nothing(scores=torch.zeros(0))
    with pytest.raises(ValueError, match="found and targets must have the same length, at least 1, got 0 and 0"):
        evaluate_coco([], [])
    with pytest.raises(ValueError, match="kinds must be of bbox, segm, keypoints, got 'boxes'"):
        evaluate_coco([none], [nothing()], ["boxes"])
    with pytest.raises(ValueError, match="'segm' needs masks in found and targets"):
        evaluate_coco([none], [nothing()], ["segm"])


def test_confusion() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [0.0, 0, 10, 10], [20.0, 0, 30, 10], [90.0, 90, 99, 99], [50.0, 50, 60, 60]])
    image = (
        truth,
        torch.tensor([1, 1, 2]),
        boxes,
        torch.tensor([2, 1, 2, 2, 2]),
        torch.tensor([0.9, 0.9, 0.9, 0.9, 0.1]),
    )
    # The first box finds nothing, as the second fits better; the third has the wrong label; the last a low score.
    assert detection_confusion([image], [1, 2]).tolist() == [[1, 1, 0], [0, 0, 1], [0, 2, 0]]
    assert detection_confusion([image], [1, 2], score=0.05).tolist() == [[1, 1, 0], [0, 1, 0], [0, 2, 0]]
    assert detection_confusion([image], [1]).tolist() == [[1, 0], [0, 0]]
