"""The detector that ``fastcv predict`` runs: made from its weights, with what the options ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastcv.cli.errors import fail, reason
from fastcv.cli.options import check_file, known_model

DEFAULT = "fasterrcnn_resnet50_fpn"  # of weights without a card, if no model is named


def load_detector(name: str | None, weights: Path, size: int | None, device: torch.device) -> Any:
    """Return a detector in evaluation mode, or end the command.

    Its name is that of the card in the weights, or the one that the file's name begins with, unless one is given.
    """
    from fastcv.models.registry import create_model, load_model, model_names, read_card

    options: dict[str, Any] = {} if size is None else {"min_size": size, "max_size": size * 5 // 3}
    try:
        card = read_card(check_file(weights))
        if name is None and card is None:
            name = model_of_file(weights)
        if name is None and card is None and weights.suffix == ".weights":
            fail(f"{weights} does not say which model it belongs to: name it, as in --model yolov3-tiny")
        name = known_model(name or (DEFAULT if card is None else card.model))
        if name not in model_names("detection"):
            fail(f"{name} is no detector: choose one of {', '.join(model_names('detection'))}")
        if options and name.startswith("yolo"):
            fail(f"--size is not for {name}: its network has a size of its own")
        if card is not None and card.model != name:
            fail(f"{weights} holds weights of {card.model}, not of {name}")
        model = create_model(name, weights, **options) if card is None else load_model(weights, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        fail(str(error) if isinstance(error, FileNotFoundError) and not error.strerror else reason(error))
    model.eval()
    if hasattr(model, "optimize"):
        model.optimize()
    return model.to(device)


def model_of_file(weights: Path) -> str | None:
    """Return the longest name of a detector that a file's name begins with, such as yolov3-tiny.weights, or None."""
    from fastcv.models.registry import model_names

    stem = weights.stem.replace("-", "_").lower()
    return max((name for name in model_names("detection") if stem.startswith(name)), key=len, default=None)


def set_score(model: Any, score: float | None) -> float:
    """Make a detector return everything from a score on, and return that score.

    By default it is 0.5, or YOLO's own, which is at least 0.2: one that was trained may have a lower one, for metrics.
    """
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        model.score_thresh = max(model.score_thresh, 0.2) if score is None else score
        return float(model.score_thresh)
    wanted = 0.5 if score is None else score
    heads.score_thresh = min(heads.score_thresh, wanted)
    return wanted


def classes_of(wanted: str | None, names: dict[int, str]) -> Sequence[int] | None:
    """Return the labels of classes given as "person,tie" or "1,32", or end the command."""
    from fastcv._rows import labels_of

    if wanted is None:
        return None
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    if not parts:
        fail("--classes must name at least one class, such as person,tie")
    try:
        labels = [label for part in parts for label in labels_of(int(part) if part.isdecimal() else part, names)]
    except ValueError as error:
        fail(f"--classes: {reason(error)}")
    unknown = [label for label in labels if label not in names] if names else []
    if unknown:
        fail(f"--classes: there is no class {unknown[0]}: labels are {min(names)} to {max(names)}")
    return labels
