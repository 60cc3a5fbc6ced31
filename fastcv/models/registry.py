"""All models by name, and weights that know the model they belong to."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fastcv._files import replaced_file
from fastcv.models.detection.weights import load_state, load_weights, read_state

__all__ = ["ModelCard", "create_model", "load_model", "model_names", "read_card", "save_model", "weights_path"]

Names = Sequence[str] | Mapping[int, str]

_POINT_MODELS = {
    "pointnet": "PointNet",
    "pointnet_segmentation": "PointNetSegmentation",
    "pointnet2": "PointNet2",
    "pointnet2_msg": "PointNet2MSG",
    "pointnet2_segmentation": "PointNet2Segmentation",
    "pointnet2_msg_segmentation": "PointNet2MSGSegmentation",
    "voxnet": "VoxNet",
    "sparse_voxnet": "SparseVoxNet",
    "octnet": "OctNet",
    "sparse_unet": "SparseUNet",
}
_SMALL = 1000  # numbers that are not worth halving
_CARD = "fastcv"  # the key of the card in a file's metadata
_SHIPPED = Path(__file__).resolve().parents[1] / "weights"


@dataclass(frozen=True)
class ModelCard:
    """What a model is: enough to make it again.

    Attributes
    ----------
    model : str
        One of :func:`model_names`.
    task : str
        "detection", "segmentation", "classification" or "point-segmentation".
    options : dict
        Keywords of :func:`create_model`.
    names : dict
        Label to name of the classes; empty where they are not known.
    facts : dict
        What else is worth keeping beside the weights, such as the command, the seed and the metrics.
    """

    model: str
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class _Entry(NamedTuple):
    """How a model is made: by ``builder(*arguments, **options)``."""

    task: str
    builder: str  # module:function
    arguments: tuple[Any, ...]
    first_label: int  # of the first class: 1 where label 0 is the background
    classes: str  # the builder's keyword for the number of classes, the background included
    weights: bool  # whether the builder takes ``weights``


def _entries() -> dict[str, _Entry]:
    from fastcv.models.detection import MODELS

    entries = {
        name: _Entry("detection", "fastcv.models.detection:create", (name,), 1, "num_classes", True) for name in MODELS
    }
    for name in ("yolo_v1", "yolov2_tiny", "yolov3_tiny"):
        entries[name] = _Entry("detection", f"fastcv.models.yolo:{name}", (), 0, "classes", True)
    for name, build in _POINT_MODELS.items():
        labels_points = name.endswith("segmentation") or name == "sparse_unet"
        task = "point-segmentation" if labels_points else "classification"
        entries[name] = _Entry(task, f"fastcv.models.pointcloud:{build}", (), 0, "num_classes", False)
    entries["unet"] = _Entry("segmentation", "fastcv.models.segmentation:UNet", (3,), 0, "num_classes", False)
    return entries


def model_names(task: str | None = None) -> list[str]:
    """Return the names that :func:`create_model` accepts, all or those of a task."""
    return [name for name, entry in _entries().items() if task in (None, entry.task)]


def model_keywords(name: str) -> list[str]:
    """Return the keywords that the builder of a model names."""
    module, _, function = _entries()[name].builder.partition(":")
    return list(inspect.signature(getattr(import_module(module), function)).parameters)


def create_model(
    name: str, weights: str | Path | Mapping[str, Any] | None = None, names: Names | None = None, **options: Any
) -> Any:
    """Make a model by name.

    Parameters
    ----------
    name : str
        One of :func:`model_names`, such as "maskrcnn_resnet50_fpn" or "yolov3_tiny"; hyphens are accepted.
    weights : path or state_dict, optional
        What the model's builder reads: ``.pth`` or ``.safetensors``, and ``.weights`` for YOLO. Default: random.
    names : list of str or dict, optional
        Names of the classes: in the order of their labels, or by label. They give the number of classes unless an
        option does.
    **options
        Keywords of the model's builder. They have to be what JSON can hold, if the model is to be saved.

    Returns
    -------
    nn.Module
        The model. Its ``card`` is a :class:`ModelCard`.
    """
    entries, name = _entries(), name.replace("-", "_")
    if name not in entries:
        raise ValueError(f"name must be one of {', '.join(entries)}, got {name!r}")
    entry = entries[name]
    labelled = _by_label(names, entry.first_label)
    if labelled and entry.classes not in options:
        options[entry.classes] = max(labelled) + 1
    count = options.get(entry.classes, 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{entry.classes} must be an integer of at least 1, got {count!r}")
    module, _, function = entry.builder.partition(":")
    build = getattr(import_module(module), function)
    is_darknet = isinstance(weights, str | Path) and Path(weights).suffix == ".weights"
    if weights is not None and entry.weights and (entry.first_label == 1 or is_darknet):
        model = build(*entry.arguments, weights=weights, **options)
    else:
        model = build(*entry.arguments, **options)
        if weights is not None:
            load_weights(model, weights)
    model.card = ModelCard(name, entry.task, options, labelled)
    return model


def save_model(model: nn.Module, path: str | Path, half: bool = False, **facts: Any) -> None:
    """Write the weights of a model that :func:`create_model` made, with its card, as ``.safetensors``.

    The file is written completely or not at all.

    Parameters
    ----------
    model : nn.Module
        The model; not one that is optimized.
    path : path
        The file; it has to end in .safetensors.
    half : bool
        Write matrices of more than a thousand numbers in float16, for half of the size; they are loaded in the dtype
        of the model.
    **facts
        For ``facts`` of the card: what JSON can hold.
    """
    card = getattr(model, "card", None)
    if not isinstance(card, ModelCard):
        raise ValueError("model must be made by create_model, which gives it a card")
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {path}")
    if getattr(model, "optimized", False):
        raise ValueError("an optimized model cannot be saved: save it before optimize()")
    try:
        from safetensors.torch import save  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ImportError(f"writing {path} needs safetensors: pip install safetensors") from None
    try:
        text = json.dumps(asdict(card) | {"facts": card.facts | facts})
    except TypeError as error:
        raise ValueError(f"options and facts must be what JSON can hold: {error}") from None
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        large = {key for key, value in state.items() if value.dtype == torch.float32 and value.numel() > _SMALL}
        state = {key: value.half() if key in large and value.dim() > 1 else value for key, value in state.items()}
    with replaced_file(path) as file:
        file.write_bytes(save(state, {_CARD: text}))


def weights_path(path: str | Path) -> Path:
    """Return the path of a file with weights: one that there is, or one that came with the package, by its name.

    With the package come "maskrcnn_scenes", "keypointrcnn_people" and "yolov2_scenes": small detectors for
    :func:`fastcv.data.synthetic_scenes`; "pointnet_solids", "pointnet2_solids" and "voxnet_solids", classifiers for
    :func:`fastcv.data.synthetic_solids`; "sparse_unet_streets", which classifies points of
    :func:`fastcv.data.synthetic_streets`. Their cards say how they were trained, and how good they are.
    """
    file = Path(path)
    shipped = _SHIPPED / f"{file}.safetensors"
    return shipped if not file.exists() and len(file.parts) == 1 and shipped.is_file() else file


def read_card(path: str | Path) -> ModelCard | None:
    """Return the card in a file that :func:`save_model` wrote, or None for other files.

    ``path`` may be a name, as in :func:`weights_path`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged.
    """
    path = weights_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.suffix != ".safetensors":
        return None
    try:
        from safetensors import SafetensorError, safe_open  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ImportError(f"reading {path} needs safetensors: pip install safetensors") from None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_CARD)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    if text is None:
        return None
    try:
        held = json.loads(text)
        names = {int(label): str(name) for label, name in held["names"].items()}
        card = ModelCard(str(held["model"]), str(held["task"]), dict(held["options"]), names, dict(held["facts"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: its card cannot be read: {type(error).__name__} {error}") from None
    return card


def load_model(path: str | Path, **options: Any) -> Any:
    """Make the model that a file's card describes, and load its weights.

    Parameters
    ----------
    path : path or str
        A file that :func:`save_model` wrote, such as those of ``fastcv train``; or a name, as in :func:`weights_path`.
    **options
        Override those of the card, such as ``score_thresh``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it has no card, or a damaged one.
    """
    path = weights_path(path)
    card = read_card(path)
    if card is None:
        raise ValueError(f"{path} does not say which model it belongs to: name it, as in create_model(name, weights)")
    model = create_model(card.model, names=card.names, **card.options | options)
    load_state(model, read_state(path), str(path))
    model.card = ModelCard(card.model, card.task, card.options | options, card.names, card.facts)
    return model


def _by_label(names: Names | None, first_label: int) -> dict[int, str]:
    """Return the names by label, checked."""
    if names is None:
        return {}
    if isinstance(names, str):
        raise TypeError(f"names must be a list or dict of names, got the str {names!r}")
    labelled = dict(names) if isinstance(names, Mapping) else dict(enumerate(names, first_label))
    for label, name in labelled.items():
        if not isinstance(label, int) or label < first_label or not isinstance(name, str):
            raise ValueError(f"names must be text by label, labels from {first_label}, got {label!r}: {name!r}")
    return labelled
