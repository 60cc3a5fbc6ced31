"""The numbers of a training as files, and the weights with what made them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fastcv._files import replaced_file
from fastcv.models import ModelCard, save_model

__all__ = ["as_json", "write_csv", "write_json", "write_weights"]


def write_csv(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a line per epoch; metrics by class are left out."""
    columns = dict.fromkeys(name for row in history for name in row if name.count("/") < 2)
    with replaced_file(path) as file, file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns), restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows([{name: _short(value) for name, value in row.items()} for row in history])


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def write_json(value: Any, path: Path) -> None:
    """Write JSON; numbers that are not finite become null."""
    with replaced_file(path) as file:
        file.write_text(json.dumps(as_json(value), indent=1) + "\n", encoding="utf-8")


def as_json(value: Any) -> Any:
    """Return the value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | None) else str(value)


def write_weights(model: nn.Module, path: Path, facts: Mapping[str, Any]) -> None:
    """Write the weights with the model's card and the facts; without a card where the model has none."""
    if isinstance(getattr(model, "card", None), ModelCard):
        save_model(model, path, **as_json(facts))
        return
    try:
        from safetensors.torch import save
    except ImportError:
        raise ImportError(f"writing {path} needs safetensors: pip install safetensors") from None
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with replaced_file(path) as file:
        file.write_bytes(save(state, {"facts": json.dumps(as_json(facts))}))
