"""The fields of :class:`fastcv.Detections`: checked, and taken from and brought to other packages' forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from math import ceil, floor
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv._optional import require
from fastcv._rle import encode_mask
from fastcv.class_names import COCO_80, COCO_91, VOC_20

if TYPE_CHECKING:
    from fastcv.detections import Detections

Names = Mapping[int, str] | Sequence[str]


# Names ----------------------------------------------------------------------------------------------------------------


def names_of(model: nn.Module) -> dict[int, str]:
    """Return the names of a detector's labels.

    They are those of its card (see :func:`fastcv.models.registry.create_model`). Without, a model with as many classes
    as published weights has is taken for one of those: COCO's 80 or VOC's 20 of YOLO, COCO's 91 numbers of
    torchvision's models, the person of its keypoint model. The only class of any other model is an "object".
    """
    card = getattr(model, "card", None)
    if card is not None and card.names:
        return dict(card.names)
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        return dict({80: COCO_80, 20: VOC_20}.get(getattr(model, "classes", 0), {}))
    score = getattr(getattr(heads, "box_predictor", None), "cls_score", None)
    classes = getattr(score, "out_features", 0)
    if classes == 2:
        points = getattr(getattr(heads, "keypoint_predictor", None), "out_channels", 0)
        return {1: "person" if points == 17 else "object"}
    return dict(COCO_91) if classes == 91 else {}


def skeleton_of(model: nn.Module) -> list[tuple[int, int]] | None:
    """Return which keypoints of a detector are joined by lines, as the data it was trained on say; None if unknown."""
    card = getattr(model, "card", None)
    pairs = None if card is None else card.facts.get("skeleton")
    try:
        return [(int(first), int(second)) for first, second in pairs] if pairs else None
    except (TypeError, ValueError):  # what someone else calls so
        return None


def as_names(names: Names | nn.Module | None) -> dict[int, str]:
    """Return names by label; a list is numbered from 0."""
    if names is None:
        return {}
    if isinstance(names, nn.Module):
        return names_of(names)
    if isinstance(names, str) or not isinstance(names, Mapping | Sequence):
        raise TypeError(f"names must be a dict, a list or a model, got {type(names).__name__}")
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    named: dict[int, str] = {}
    for label, name in pairs:
        if not isinstance(label, Integral) or not isinstance(name, str):
            raise TypeError(f"names must be text by integer, got {label!r}: {name!r}")
        named[int(label)] = name
    return named


def labels_of(wanted: int | str, names: Mapping[int, str]) -> list[int]:
    """Return the label that is meant, or all labels of a name. Raise ValueError for a name that there is not."""
    if isinstance(wanted, Integral) and not isinstance(wanted, bool):
        if abs(int(wanted)) >= 2**63:
            raise ValueError(f"there is no class {wanted}: labels have 64 bits")
        return [int(wanted)]
    if not isinstance(wanted, str):
        raise TypeError(f"a class must be a label or a name, got {wanted!r}")
    found = [label for label, name in names.items() if name == wanted]
    if found:
        return found
    known = list(dict.fromkeys(names.values()))
    shown = get_close_matches(wanted, known, 3) or known
    listed = ", ".join(shown[:10]) + (" ..." if len(shown) > 10 else "")
    raise ValueError(f"there is no class {wanted!r}: " + (f"there is {listed}" if known else "the names are not known"))


# Fields ---------------------------------------------------------------------------------------------------------------


def boxes(value: Any) -> Tensor:
    """Return boxes, checked, as float32 (N, 4)."""
    tensor = _as_tensor(value, "boxes")
    if tensor.shape == (0,):
        tensor = tensor.reshape(0, 4)
    if tensor.dim() != 2 or tensor.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {tuple(tensor.shape)}")
    tensor = tensor.float()
    if not bool(tensor.isfinite().all()):
        row = int((~tensor.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"boxes must have finite numbers, got {tensor[row].tolist()} in row {row}")
    return tensor


def numbers(value: Any, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Return a field of numbers, checked, as float32; -1 in the shape is any length."""
    if value is None:
        return None
    tensor = _as_tensor(value, name)
    if shape[0] == 0 and tensor.numel() == 0 and tensor.dim() < len(shape):
        tensor = tensor.reshape([max(side, 0) for side in shape])
    _check_shape(tensor, name, shape)
    _check_device(tensor, name, device)
    return tensor.float()


def labels(value: Any, count: int, device: torch.device) -> Tensor:
    """Return labels, checked, as int64."""
    if value is None:
        return torch.zeros(count, dtype=torch.int64, device=device)
    tensor = _as_tensor(value, "labels")
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype is torch.bool):
        raise TypeError(f"labels must be integers, got {_dtype(tensor)}")
    _check_shape(tensor, "labels", (count,))
    _check_device(tensor, "labels", device)
    return tensor.long()


def masks(value: Any, count: int, device: torch.device) -> Tensor | None:
    """Return masks, checked, as bool."""
    if value is None:
        return None
    tensor = _as_tensor(value, "masks")
    if tensor.is_floating_point():
        raise TypeError(
            f"masks must be bool or integers, got {_dtype(tensor)}: compare probabilities first, masks > 0.5"
        )
    _check_shape(tensor, "masks", (count, -1, -1))
    _check_device(tensor, "masks", device)
    return tensor if tensor.dtype is torch.bool else tensor != 0


def image_size(size: Sequence[int] | None, image: Any, found: Tensor | None) -> tuple[int, int] | None:
    """Return height and width, from the first of size, image and masks, and check the others against it."""
    sizes = {"image_size": None if size is None else _as_size(size)}
    sizes["the image"] = None if image is None else size_of(image)
    sizes["masks"] = None if found is None else (found.shape[1], found.shape[2])
    known = {name: value for name, value in sizes.items() if value is not None}
    if not known:
        return None
    (first, result), *others = known.items()
    for name, value in others:
        if value != result:
            raise ValueError(f"{name} must have the height and width of {first}, {result}, got {value}")
    return result


def _as_size(size: Sequence[int]) -> tuple[int, int]:
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(side, Integral) and side > 0 for side in size)
    ):
        raise ValueError(f"image_size must be height and width, got {size!r}")
    return int(size[0]), int(size[1])


def size_of(image: Any) -> tuple[int, int]:
    """Return the height and width of an image in any of the accepted forms."""
    shape = getattr(image, "shape", None)
    if isinstance(image, Tensor) and image.dim() == 3 and image.shape[0] in (1, 3):
        return image.shape[1], image.shape[2]
    if shape is not None and not isinstance(image, Tensor) and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)):
        return int(shape[0]), int(shape[1])
    if shape is None and hasattr(image, "size") and hasattr(image, "convert"):
        return image.size[1], image.size[0]
    got = type(image).__name__ if shape is None else f"{type(image).__name__} of shape {tuple(shape)}"
    raise TypeError(f"image must be a PIL image, a tensor (3, H, W) or an array (H, W, 3), got {got}")


def skeleton(pairs: Iterable[Sequence[int]], points: int) -> list[tuple[int, int]]:
    """Return pairs of keypoints, checked."""
    listed = [(int(a), int(b)) for a, b in pairs]
    for pair in listed:
        if points and not all(0 <= index < points for index in pair):
            raise ValueError(f"skeleton must join keypoints 0 to {points - 1}, got {pair}")
    return listed


def row_index(index: Any, count: int, device: torch.device) -> Any:
    """Return what picks rows out of a tensor: a slice or a tensor. Raise IndexError for what does not fit."""
    if isinstance(index, slice):
        if (index.step or 1) > 0:
            return index
        index = list(range(count)[index])
    if isinstance(index, Integral) and not isinstance(index, bool):
        index = [int(index)]
    try:
        rows = torch.as_tensor(index, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"an index must be integers, bools or a slice, got {type(index).__name__}") from None
    if rows.numel() == 0 and rows.dtype is not torch.bool:
        rows = rows.long()
    if rows.dim() != 1 or rows.is_floating_point() or rows.is_complex():
        raise TypeError(f"an index must be integers, bools or a slice, got {_dtype(rows)} of shape {tuple(rows.shape)}")
    if rows.dtype is torch.bool:
        if len(rows) != count:
            raise IndexError(f"a mask must have one bool per object, {count}, got {len(rows)}")
        return rows
    if bool(((rows < -count) | (rows >= count)).any()):
        raise IndexError(f"an index must be within {count} objects, got {rows.tolist()}")
    return rows.long()


def joined(parts: Sequence[Tensor | None], name: str) -> Tensor | None:
    """Return the rows of all parts. Raise ValueError if only some have the field."""
    held = [part for part in parts if part is not None]
    if held and len(held) < len(parts):
        raise ValueError(f"parts must all have {name}, or none of them")
    return torch.cat(held) if held else None


def crop_box(box: Sequence[float], size: tuple[int, int], padding: int) -> tuple[int, int, int, int]:
    """Return the whole pixels of a box and its padding within an image (width, height): at least one pixel."""
    left = min(max(floor(box[0]) - padding, 0), size[0] - 1)
    top = min(max(floor(box[1]) - padding, 0), size[1] - 1)
    right = min(max(ceil(box[2]) + padding, left + 1), size[0])
    bottom = min(max(ceil(box[3]) + padding, top + 1), size[1])
    return left, top, right, bottom


def _as_tensor(value: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a tensor, an array or a list of numbers, got {type(value).__name__}") from None


def _check_shape(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if tensor.dim() != len(shape) or any(want not in (-1, got) for want, got in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("any" if side < 0 else str(side) for side in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{name} must have shape ({wanted}), a row per box, got {tuple(tensor.shape)}")


def _check_device(tensor: Tensor, name: str, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name} must be on the device of boxes, {device}, got {tensor.device}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# Other packages -------------------------------------------------------------------------------------------------------


def of_ultralytics(result: Any) -> dict[str, Any]:
    """Return the arguments of Detections in a ``Results`` of Ultralytics."""
    found = getattr(result, "boxes", None)
    if found is None:
        what = "oriented boxes" if getattr(result, "obb", None) is not None else "no boxes"
        raise ValueError(f"result must be of detection, segmentation or pose, got one with {what}")
    size = tuple(int(side) for side in result.orig_shape[:2])
    fields = {"boxes": found.xyxy, "scores": found.conf, "labels": torch.as_tensor(found.cls).long()}
    if getattr(result, "masks", None) is not None:
        fields["masks"] = _without_letterbox(torch.as_tensor(result.masks.data), size)
    points = getattr(result, "keypoints", None)
    if points is not None:
        data = torch.as_tensor(points.data)
        fields["keypoints"] = data if data.shape[-1] == 3 else F.pad(data, (0, 1), value=1.0)
    picture = getattr(result, "orig_img", None)
    if picture is not None:
        picture = picture[:, :, ::-1]  # BGR to RGB
    return fields | {
        "names": result.names, "image_size": size, "image": picture, "path": getattr(result, "path", None),
    }  # fmt: skip


def _without_letterbox(found: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return masks (N, h, w) of the network's input, in which the image is centred, in the image's own size."""
    height, width = found.shape[1:]
    if (height, width) == size or not len(found):
        return found.new_zeros((0, *size), dtype=torch.bool) if not len(found) else found > 0.5
    gain = min(height / size[0], width / size[1])
    top, left = (height - size[0] * gain) / 2, (width - size[1] * gain) / 2
    inside = found[:, round(top - 0.1) : height - round(top + 0.1), round(left - 0.1) : width - round(left + 0.1)]
    return F.interpolate(inside[None].float(), list(size), mode="bilinear", align_corners=False)[0] > 0.5


def of_coco(annotations: Sequence[Mapping[str, Any]], size: Sequence[int]) -> dict[str, Any]:
    """Return the fields in COCO's annotations or results of one image."""
    height, width = _as_size(size)
    corner = torch.tensor([list(one["bbox"]) for one in annotations], dtype=torch.float64).reshape(-1, 4)
    corner[:, 2:] += corner[:, :2]
    fields: dict[str, Any] = {"boxes": corner, "labels": [int(one["category_id"]) for one in annotations]}
    if annotations and all("score" in one for one in annotations):
        fields["scores"] = [one["score"] for one in annotations]
    if annotations and all("keypoints" in one for one in annotations):
        fields["keypoints"] = torch.tensor([one["keypoints"] for one in annotations]).reshape(len(annotations), -1, 3)
    if annotations and all("segmentation" in one for one in annotations):
        coder = require("pycocotools.mask", "reading COCO's masks")
        decoded = torch.zeros(len(annotations), height, width, dtype=torch.bool)
        for row, one in enumerate(annotations):
            runs = one["segmentation"]
            if isinstance(runs, list) or isinstance(runs["counts"], list):
                runs = coder.frPyObjects(runs, height, width)
            decoded[row] = torch.from_numpy(coder.decode(coder.merge(runs) if isinstance(runs, list) else runs) != 0)
        fields["masks"] = decoded
    return fields


def to_coco(found: Detections, image_id: int, categories: Mapping[int, int] | None) -> list[dict[str, Any]]:
    """Return COCO's results of detections."""
    results: list[dict[str, Any]] = []
    scores = None if found.scores is None else found.scores.tolist()
    keypoints = None if found.keypoints is None else found.keypoints.flatten(1).tolist()
    rows = zip(found.labels.tolist(), found.boxes.double().tolist(), strict=True)
    for row, (label, (x1, y1, x2, y2)) in enumerate(rows):
        if categories is not None and label not in categories:
            raise ValueError(f"categories must have every label, got none for {label}")
        category = label if categories is None else categories[label]
        result = {"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        if scores is not None:
            result["score"] = scores[row]
        if found.masks is not None:
            result["segmentation"] = encode_mask(found.masks[row].cpu().numpy())
        if keypoints is not None:
            result["keypoints"] = keypoints[row]
        results.append(result)
    return results


def to_supervision(found: Detections) -> Any:
    """Return ``supervision.Detections``."""
    supervision, numpy = require("supervision", "to_supervision"), require("numpy", "to_supervision")
    fields = found.numpy()
    return supervision.Detections(
        xyxy=fields["boxes"],
        confidence=fields.get("scores"),
        class_id=fields["labels"],
        mask=fields.get("masks"),
        data={"class_name": numpy.array(found.class_names, dtype=str)},
    )
