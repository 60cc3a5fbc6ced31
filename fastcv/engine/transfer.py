"""Training a part of a model, a part of it slower, or with another head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fastcv.models import ModelCard, create_model

__all__ = ["class_count", "freeze", "parameter_groups", "replace_head"]


def freeze(model: nn.Module, *parts: str) -> nn.Module:
    """Exclude parts of a model from training, and return the model.

    Batch normalisation in them keeps its statistics when :class:`fastcv.engine.Trainer` trains the model.

    Parameters
    ----------
    model : nn.Module
    *parts : str
        Names of modules or parameters, such as "backbone" or "backbone.body.conv1".

    Examples
    --------
    >>> from fastcv.models import load_model
    >>> model = freeze(load_model("maskrcnn_scenes"), "backbone.body")
    """
    for part in parts:
        for _, parameter in _of_part(model, part):
            parameter.requires_grad_(False)
    return model


def _of_part(model: nn.Module, part: str) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of a part, or raise ValueError with the names of the parts."""
    found = [(name, p) for name, p in model.named_parameters() if f"{name}.".startswith(f"{part.rstrip('.')}.")]
    if not found:
        above = part.rpartition(".")[0]
        while above and not any(name == above for name, _ in model.named_modules()):
            above = above.rpartition(".")[0]
        parts = [
            name for name, child in model.get_submodule(above).named_children() if any(True for _ in child.parameters())
        ]
        raise ValueError(f"the model has no part {part!r} with parameters; {above or 'it'} has {', '.join(parts)}")
    return found


def parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, learning_rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Return the groups of an optimizer: by learning rate, and without weight decay for biases and normalisation.

    Parameters
    ----------
    model : nn.Module
        Parameters that require no gradient are left out.
    learning_rate, weight_decay : float
    learning_rates : dict of str to float
        Factors of the learning rate by the names of parts; of several that fit, the longest name counts.
    """
    rates = dict(learning_rates or {})
    for part in rates:
        _of_part(model, part)
    norms = {
        parameter
        for module in model.modules()
        if "Norm" in type(module).__name__ and not any(True for _ in module.children())
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        fitting = [part for part in rates if f"{name}.".startswith(f"{part.rstrip('.')}.")]
        factor = rates[max(fitting, key=len)] if fitting else 1.0
        decay = 0.0 if parameter.dim() <= 1 or parameter in norms else weight_decay
        groups.setdefault((learning_rate * factor, decay), []).append(parameter)
    if not groups:
        raise ValueError("the model has no parameters to train: all of them are frozen")
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def class_count(model: nn.Module) -> int | None:
    """Return how many classes the model tells apart, the background included, or None if that cannot be told."""
    for path in ("roi_heads.box_predictor.cls_score", "head"):
        layer: Any = model
        for name in path.split("."):
            layer = getattr(layer, name, None)
        count = getattr(layer, "out_features", getattr(layer, "out_channels", None))
        if isinstance(count, int):
            return count
    count = getattr(model, "classes", getattr(model, "num_classes", None))
    return count if isinstance(count, int) else None


def replace_head(model: nn.Module, classes: int | Sequence[str] | Mapping[int, str]) -> Any:
    """Return the model for other classes: what depends on them starts at random, the rest keeps its weights.

    Parameters
    ----------
    model : nn.Module
        A model of :func:`fastcv.models.create_model` or :func:`fastcv.models.load_model`.
    classes : int, list of str or dict
        The number of classes, as the model's builder counts them (detectors of the R-CNN family with the background);
        or their names, as in :func:`fastcv.models.create_model`.

    Examples
    --------
    Transfer learning in three lines:

    >>> from fastcv.models import load_model
    >>> model = replace_head(load_model("maskrcnn_scenes"), ["cat", "dog"])
    >>> model = freeze(model, "backbone.body")
    >>> model.card.names
    {1: 'cat', 2: 'dog'}
    """
    card = getattr(model, "card", None)
    if not isinstance(card, ModelCard):
        raise ValueError("model must be made by create_model or load_model, which know how to make it again")
    names = None if isinstance(classes, int) else classes
    options = {key: value for key, value in card.options.items() if key not in ("num_classes", "classes", "weights")}
    key = "classes" if card.model.startswith("yolo") else "num_classes"
    if isinstance(classes, int):
        options[key] = classes
    made = create_model(card.model, names=names, **options)
    count = class_count(made)
    other = create_model(card.model, **options | {key: (count or 1) + 1})
    depends = {name for name, value in other.state_dict().items() if value.shape != made.state_dict()[name].shape}
    kept: dict[str, Tensor] = {name: value for name, value in model.state_dict().items() if name not in depends}
    made.load_state_dict({name: value for name, value in made.state_dict().items() if name in depends} | kept)
    made.card = replace(made.card, options=made.card.options | ({key: count} if count else {}))
    weight = next(model.parameters(), None)
    return made if weight is None else made.to(weight.device)
