"""Average precision of detectors, as the COCO challenge defines it, by pycocotools or faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["CocoScores", "coco_record", "evaluate_coco", "kinds_of", "score_records"]

KINDS = ("bbox", "segm", "keypoints")
_NEEDS = {"segm": "masks", "keypoints": "keypoints"}
_BOXES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_STATS = {
    "bbox": (*_BOXES, "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
    "keypoints": ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large"),
}
_STATS["segm"] = _STATS["bbox"]
_PERSON = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
COCO_SIGMAS = tuple(sigma / 1000 for sigma in _PERSON)
_OTHER_SIGMA = 0.05  # between an eye's and a hip's

Record = dict[str, Any]


@dataclass
class CocoScores:
    """What :func:`score_records` returns.

    Attributes
    ----------
    metrics : dict of str to float
        "bbox/AP", "bbox/AP50", ...; by class "bbox/AP/<name>" and "bbox/AP50/<name>". -1 where there is no ground
        truth, as pycocotools has it.
    curves : dict
        For each kind, the precision at IoU (or OKS) 0.5 by class, at recalls 0, 0.01, ..., 1.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)


def evaluate_coco(
    found: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Mapping[str, Any]],
    kinds: Sequence[str] | None = None,
    names: Mapping[int, str] | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return COCO's average precisions and recalls.

    Parameters
    ----------
    found : list of dict
        Detections of each image: boxes (D, 4), labels (D,), scores (D,); masks (D, 1, H, W), probabilities, for
        "segm"; keypoints (D, K, 3) for "keypoints".
    targets : list of dict
        Objects of each image: boxes (N, 4), labels (N,); masks (N, H, W); keypoints (N, K, 3); and where there are
        such area (N,), of boxes or masks otherwise, and iscrowd (N,): detections inside of a crowd do not count.
    kinds : sequence of {"bbox", "segm", "keypoints"}, optional
        Default: all that detections and targets have.
    names : dict of int to str, optional
        Names of the labels, for the metrics by class.
    sigmas : sequence of float, optional
        How exactly each keypoint can be told. Default: COCO's for 17 keypoints, 0.05 for others.

    Returns
    -------
    dict of str to float
        "bbox/AP" (mean of IoU 0.5 to 0.95), "bbox/AP50", "bbox/AP75", "bbox/AP_small", ..., "bbox/AR100", ...; by class
        "bbox/AP/<name>" and "bbox/AP50/<name>". -1 where there is nothing to find.
    """
    if len(found) != len(targets) or not found:
        raise ValueError(
            f"found and targets must have the same length, at least 1, got {len(found)} and {len(targets)}"
        )
    kinds = kinds_of(found, targets) if kinds is None else tuple(kinds)
    records = [coco_record(image, target, kinds) for image, target in zip(found, targets, strict=True)]
    return score_records(records, kinds, names, sigmas).metrics


def kinds_of(found: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what can be evaluated: all that each image's detections and targets have."""
    return tuple(
        kind
        for kind in KINDS
        if kind == "bbox" or all(_NEEDS[kind] in each for several in (found, targets) for each in several)
    )


def coco_record(found: Mapping[str, Tensor], target: Mapping[str, Any], kinds: Sequence[str]) -> Record:
    """Return detections and objects of an image as COCO's lists, masks compressed, and its boxes for a confusion."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kinds must be of {', '.join(KINDS)}, got {kind!r}")
        if kind in _NEEDS and not (_NEEDS[kind] in found and _NEEDS[kind] in target):
            raise ValueError(f"{kind!r} needs {_NEEDS[kind]} in found and targets")
    count = len(target["labels"])
    truth = _entries(target, kinds)
    crowd = _numbers(target["iscrowd"], int) if "iscrowd" in target else [0] * count
    area = _numbers(target["area"], float) if "area" in target else [entry["area"] for entry in truth]
    for entry, is_crowd, size in zip(truth, crowd, area, strict=True):
        entry |= {"iscrowd": is_crowd, "ignore": is_crowd, "area": size}
        if "keypoints" in entry:
            entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])
    results = _entries(found, kinds)
    for entry, score in zip(results, _numbers(found["scores"], float), strict=True):
        entry |= {"score": score, "iscrowd": 0}
    plain = [i for i, is_crowd in enumerate(crowd) if not is_crowd]
    return {
        "truth": truth,
        "found": results,
        "boxes": (
            torch.as_tensor(target["boxes"]).cpu()[plain], torch.as_tensor(target["labels"]).cpu()[plain],
            found["boxes"].cpu(), found["labels"].cpu(), found["scores"].cpu(),
        ),
    }  # fmt: skip


def _numbers(values: Any, kind: type) -> list[Any]:
    return [kind(value) for value in torch.as_tensor(values).tolist()]


def _entries(objects: Mapping[str, Any], kinds: Sequence[str]) -> list[Record]:
    boxes = torch.as_tensor(objects["boxes"]).detach().double().cpu().reshape(-1, 4)
    labels = _numbers(objects["labels"], int)
    if len(labels) != len(boxes):
        raise ValueError(f"there must be as many labels as boxes ({len(boxes)}), got {len(labels)}")
    entries: list[Record] = []
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels, strict=True):
        entries.append({"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label, "area": (x2 - x1) * (y2 - y1)})
    if "segm" in kinds:
        for entry, runs in zip(entries, _encoded(torch.as_tensor(objects["masks"])), strict=True):
            entry |= {"segmentation": runs, "area": float(_tools().mask.area(runs))}
    if "keypoints" in kinds:
        for entry, points in zip(entries, torch.as_tensor(objects["keypoints"]).double().cpu(), strict=True):
            entry["keypoints"] = points.reshape(-1).tolist()
    return entries


def _encoded(masks: Tensor) -> list[Any]:
    """Return masks (N, H, W) or (N, 1, H, W), probabilities or 0 and 1, as run lengths."""
    if not len(masks):
        return []
    pixels = (masks[:, 0] if masks.dim() == 4 else masks).detach()
    pixels = pixels > 0.5 if pixels.is_floating_point() else pixels != 0
    columns = np.asfortranarray(pixels.to(torch.uint8).cpu().permute(1, 2, 0).numpy())
    return list(_tools().mask.encode(columns))


class _Tools:
    """The modules that do the work."""

    def __init__(self) -> None:
        if find_spec("faster_coco_eval") is not None:
            from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-not-found, unused-ignore]
            from faster_coco_eval import mask as mask  # type: ignore[import-not-found, unused-ignore]

            self.COCO, self.COCOeval, self.mask = COCO, COCOeval_faster, mask
        elif find_spec("pycocotools") is not None:
            from pycocotools import mask  # type: ignore[import-untyped, import-not-found, no-redef, unused-ignore]
            from pycocotools.coco import COCO  # type: ignore[import-untyped, import-not-found, unused-ignore]
            from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped, import-not-found, unused-ignore]

            self.COCO, self.COCOeval, self.mask = COCO, COCOeval, mask
        else:
            raise ImportError("evaluation needs pycocotools: pip install pycocotools")


_loaded: list[_Tools] = []


def _tools() -> _Tools:
    if not _loaded:
        _loaded.append(_Tools())
    return _loaded[0]


def score_records(
    records: Sequence[Record],
    kinds: Sequence[str],
    names: Mapping[int, str] | None = None,
    sigmas: Sequence[float] | None = None,
) -> CocoScores:
    """Score what :func:`coco_record` returned for each image; parameters as in :func:`evaluate_coco`."""
    if not records:
        raise ValueError("there must be at least one image to evaluate")
    seen = {entry["category_id"] for record in records for side in ("truth", "found") for entry in record[side]}
    labels = sorted(seen | set(names or {})) or [1]
    scores = CocoScores()
    for kind in kinds:
        with contextlib.redirect_stdout(io.StringIO()):  # both packages print what they do
            judge = _judge(records, kind, labels, sigmas)
        scores.metrics |= {f"{kind}/{name}": float(v) for name, v in zip(_STATS[kind], judge.stats, strict=False)}
        precision = judge.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
        curves = scores.curves[kind] = {}
        for place, label in enumerate(labels):
            of_class = precision[:, :, place]
            if (of_class > -1).any() or label in (names or {}):
                name = (names or {}).get(label, str(label))
                scores.metrics[f"{kind}/AP/{name}"] = _mean(of_class)
                scores.metrics[f"{kind}/AP50/{name}"] = _mean(of_class[0])
            if (of_class > -1).any():
                curves[name] = np.asarray(of_class[0], dtype=np.float64)
    return scores


def _mean(precision: NDArray[np.float64]) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def _judge(records: Sequence[Record], kind: str, labels: list[int], sigmas: Sequence[float] | None) -> Any:
    """Return pycocotools' evaluation, finished."""
    tools = _tools()
    judge = tools.COCOeval(_api(records, "truth", kind, labels), _api(records, "found", kind, labels), kind)
    if kind == "keypoints":
        count = next((len(e["keypoints"]) // 3 for r in records for s in ("truth", "found") for e in r[s]), 17)
        if sigmas is None or not len(sigmas):
            sigmas = COCO_SIGMAS if count == len(COCO_SIGMAS) else [_OTHER_SIGMA] * count
        if len(sigmas) != count:
            raise ValueError(f"sigmas must be {count} numbers, one for each keypoint, got {len(sigmas)}")
        judge.params.kpt_oks_sigmas = np.array(sigmas, dtype=np.float64)
    judge.params.imgIds = list(range(len(records)))
    judge.params.catIds = labels
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge


def _api(records: Sequence[Record], side: str, kind: str, labels: list[int]) -> Any:
    entries: list[Record] = []
    for image, record in enumerate(records):
        for entry in record[side]:
            added = {**entry, "image_id": image, "id": len(entries) + 1}
            if kind == "keypoints" and side == "found":  # a detection has the size of its keypoints, as in loadRes
                x, y = entry["keypoints"][0::3], entry["keypoints"][1::3]
                added["area"] = (max(x) - min(x)) * (max(y) - min(y))
            elif kind == "bbox" and side == "found":
                added["area"] = entry["bbox"][2] * entry["bbox"][3]
            entries.append(added)
    api = _tools().COCO()
    # Masks know their size; that of the image is asked for, and not used.
    api.dataset = {
        "info": {}, "images": [{"id": image, "height": 1, "width": 1} for image in range(len(records))],
        "annotations": entries, "categories": [{"id": label, "name": str(label)} for label in labels],
    }  # fmt: skip
    api.createIndex()
    return api
