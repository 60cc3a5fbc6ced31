"""Options of ``fastcv train`` and ``fastcv val``, and what they name: data, models, tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_file, known_model
from fastcv.engine import (
    ClassificationTask,
    DetectionTask,
    OptionError,
    Options,
    PointSegmentationTask,
    SegmentationTask,
    Task,
    TrainOptions,
    class_count,
    replace_head,
)
from fastcv.models import create_model, model_names, read_card
from fastcv.models.registry import model_keywords

__all__ = [
    "AUGMENTS",
    "CLOUD_AUGMENTS",
    "RunOptions",
    "ValOptions",
    "check_fits",
    "fitting_options",
    "is_of_clouds",
    "make_model",
    "make_task",
    "names_for",
    "open_data",
    "option_pairs",
    "read_options",
]

AUGMENTS = ("none", "flip", "strong", "mosaic")  # of images; the first but none is the default
CLOUD_AUGMENTS = ("none", "turn", "strong")
TASKS: dict[str, type[Task]] = {
    "detection": DetectionTask,
    "segmentation": SegmentationTask,
    "classification": ClassificationTask,
    "point-segmentation": PointSegmentationTask,
}


@dataclass(kw_only=True)
class RunOptions(TrainOptions):
    """All options of a run of ``fastcv train``; they are written to ``options.yaml`` in its folder.

    Attributes
    ----------
    data, validation : str
        What :func:`fastcv.data.open_dataset` takes. Default of validation: the split "val" of data; "none" for none.
    data_options : dict
        Keywords of :func:`fastcv.data.open_dataset`.
    model, weights, new_head, size, model_options
        As the options of the command.
    augment : str, optional
        "none", "flip", "strong" or "mosaic"; for point clouds "none", "turn" or "strong". Default: flip and turn.
    """

    data: str = ""
    validation: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    weights: str | None = None
    new_head: bool = False
    size: int | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    augment: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = tuple(dict.fromkeys((*AUGMENTS, *CLOUD_AUGMENTS)))
        if self.augment is not None and self.augment not in known:
            raise OptionError(f"augment must be one of {', '.join(known)}, got {self.augment!r}")
        if self.size is not None and self.size < 16:
            raise OptionError(f"size must be at least 16, got {self.size}")


@dataclass(kw_only=True)
class ValOptions(Options):
    """All options of a run of ``fastcv val``."""

    data: str = ""
    split: str = "val"
    data_options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    weights: str = ""
    size: int | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    batch: int = 4
    workers: int = 0
    device: str = "auto"
    amp: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, least in (("batch", 1), ("workers", 0), ("size", 16)):
            value = getattr(self, option)
            if value is not None and value < least:
                raise OptionError(f"{option} must be at least {least}, got {value}")


def read_options(kind: Any, file: Path | None, given: Mapping[str, Any]) -> Any:
    """Return options of a file, with those of the command line in place of its own."""
    try:
        if file is None:
            return kind.from_dict(dict(given))
        read = kind.read_yaml(file)
        return kind.from_dict({**vars(read), **given})
    except (OptionError, ImportError) as error:
        fail(reason(error).removeprefix("options: "))


def option_pairs(values: list[str] | None, option: str) -> dict[str, Any] | None:
    """Return NAME=VALUE options as a dictionary; values are numbers, lists or text, as in YAML."""
    if not values:
        return None
    import yaml  # type: ignore[import-untyped, unused-ignore]

    pairs = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"{option} must be NAME=VALUE, got {text}")
        try:
            pairs[name.replace("-", "_") if option != "--rate" else name] = yaml.safe_load(value)
        except yaml.YAMLError:
            fail(f"{option} {text}: {value} cannot be read")
    return pairs


def open_data(path: str, split: str, first_label: int, options: Mapping[str, Any]) -> Any:
    """Open a data set with at least one sample, or end the command."""
    from fastcv.data import open_dataset

    try:
        data = open_dataset(path, split=split, first_label=first_label, **options)
    except OSError as error:
        fail(f"{error.filename}: {reason(error)}" if error.filename else reason(error))
    except (ValueError, TypeError, KeyError, ImportError) as error:
        fail(reason(error))
    if not len(data):
        fail(f"{path} ({split}) holds no {'point clouds' if is_of_clouds(data) else 'images'}")
    return data


def is_of_clouds(data: Any) -> bool:
    """Whether a data set is one of point clouds."""
    from fastcv.data.clouds import CloudDataset

    return isinstance(data, CloudDataset)


def check_fits(name: str, data: Any, source: str, options: Any) -> None:
    """End the command if a model is not for data of that kind, or an option not for such data."""
    tasks = [data.task] if is_of_clouds(data) else ["detection", "segmentation"]
    known = [each for task in tasks for each in model_names(task)]
    if name not in known:
        what = {"classification": "point clouds with one label each", "point-segmentation": "labelled points"}
        listed = ", ".join(known if is_of_clouds(data) else [*known[:2], "yolov3_tiny", "unet"])
        fail(f"{source} holds {what.get(tasks[0], 'images')}: --model must be one for them, as {listed}, got {name}")
    if not is_of_clouds(data):
        return
    if options.size is not None:
        fail("--size is for images, not for point clouds")
    if data.points is None and "pointnet" in name:
        fail(f"{name} takes clouds of one size: choose so many of their points, as by --data-option points=4096")


def fitting_options(name: str, data: Any) -> dict[str, Any]:
    """Return the keywords that a model's builder has to get for data like these, such as the columns of clouds."""
    if not is_of_clouds(data):
        points = len(getattr(data, "keypoint_names", []))
        return {"num_keypoints": points} if points and name.startswith("keypointrcnn") else {}
    return {key: value for key, value in data.model_options.items() if key in model_keywords(name)}


def model_name(name: str | None, weights: str | None) -> str:
    """Return the name of a model: that given, or that in the weights' card. End the command if there is none."""
    try:
        card = None if weights is None else read_card(check_file(Path(weights)))
    except (OSError, ValueError, ImportError) as error:
        fail(reason(error))
    chosen = name if name is not None else None if card is None else card.model
    if chosen is None:
        fail("--model is needed: " + ("the weights do not say theirs" if weights else f"such as {_some_models()}"))
    chosen = known_model(chosen)
    if card is not None and card.model != chosen:
        fail(f"{weights} holds weights of {card.model}, not of {chosen}")
    return chosen


def _some_models() -> str:
    return "maskrcnn_resnet50_fpn, fasterrcnn_tiny_fpn, yolov3_tiny"


def first_label_of(name: str) -> int:
    """Return the least label of a model's classes."""
    points = {*model_names("classification"), *model_names("point-segmentation")}
    return 0 if name.startswith("yolo") or name in points else 1


def names_for(name: str, data: Any) -> dict[int, str]:
    """Return the names of the classes that a model of that name tells apart in the data."""
    return {0: "background", **data.names} if name in model_names("segmentation") else dict(data.names)


def make_model(
    options: Any,
    name: str,
    names: Mapping[int, str] | None,
    new_head: bool = False,
    fitting: Mapping[str, Any] | None = None,
) -> Any:
    """Make the model of the options for classes of these names, or end the command.

    ``names`` None keeps those of the weights. ``fitting`` are keywords for a model that is not told otherwise: by the
    options, or by the card of its weights.
    """
    more = dict(options.model_options)
    if options.size is not None and "rcnn" in name:
        more = {"min_size": options.size, "max_size": options.size * 5 // 3, **more}
    elif options.size is not None and name.startswith("yolo"):
        more = {"size": options.size, **more}
    try:
        if options.weights is None:
            return create_model(name, names=names, **{**(fitting or {}), **more})
        from fastcv.models import load_model

        if read_card(options.weights) is not None:
            model = load_model(options.weights, **more)
        else:
            model = create_model(name, weights=options.weights, names=None if new_head else names,
                                 **{**(fitting or {}), **more})  # fmt: skip
        if new_head and names is not None:
            return replace_head(model, names)
        _check_classes(model, names, options.weights)
        return model
    except FileNotFoundError as error:
        fail(reason(error))
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", reason(error))
        fail(f"--model-option: {name} has no option {unknown[1]!r}" if unknown else f"{name}: {reason(error)}")
    except (ValueError, KeyError, ImportError) as error:
        text = reason(error)
        fail(text + ("; --new-head starts with a new head" if "number of classes" in text and names else ""))


def _check_classes(model: Any, names: Mapping[int, str] | None, weights: str) -> None:
    """End the command if the classes of data do not fit those of the model."""
    if not names:
        return
    count, needed = class_count(model), max(names) + 1
    least = min(names)
    if count is not None and count != needed:
        _misfit(f"{weights} tells {count - least} classes apart, the data have {needed - least}")
    known = model.card.names
    other = [label for label in names if label in known and known[label] != names[label]]
    if other:
        label = other[0]
        _misfit(f"class {label} is {known[label]!r} in {weights} and {names[label]!r} in the data")


def _misfit(text: str) -> NoReturn:
    fail(f"{text}: use data with the same classes or, in a training, --new-head")


def make_task(model: Any) -> Task:
    """Return the task of a model, or end the command."""
    task = model.card.task
    if task not in TASKS:
        fail(f"{model.card.model} is for {task}, which is not trained by this command")
    return TASKS[task](model.card.names)
