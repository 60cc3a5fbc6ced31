"""Checkpoints: read without running what is in them, and compared with the model before it changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["load_weights"]

# torchvision's checkpoints of 2019 were trained with a normalisation that left eps out: how their hashes begin.
_WITHOUT_EPS = ("258fb6c6", "bf2d0c1e", "fc266e95", "9f466800")


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a checkpoint into a model, all of it or none of it, and return the model.

    Parameters
    ----------
    model : nn.Module
        A model that is not optimized.
    path : path
        ``.safetensors`` (which needs the package safetensors), or what ``torch.save`` made of a ``state_dict()``, as
        torchvision's ``.pth`` files are; that is read with ``weights_only=True``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If it is of another model: names what is missing and what is not expected.
    ValueError
        If a tensor has another shape, or the file holds no state_dict.
    """
    return load_state(model, read_state(path), str(path))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    state: Any
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError  # type: ignore[import-not-found, unused-ignore]
            from safetensors.torch import load_file  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise ImportError(f"reading {path} needs safetensors: pip install 'fastcv[safetensors]'") from None
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from None
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever its readers do
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{path} cannot be read as a checkpoint of tensors: {reason}") from None
        if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
            state = state["model"]  # torchvision's training script keeps the optimizer beside it
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state_dict, names and tensors, got {type(state).__name__}")
    return dict(state)


def lacks_eps(path: str | Path) -> bool:
    """Whether a checkpoint is one of those that want a normalisation without eps."""
    path = Path(path)
    if not path.is_file() or path.suffix == ".safetensors":
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest().startswith(_WITHOUT_EPS)


def load_state(model: nn.Module, state: Mapping[str, Tensor], name: str) -> nn.Module:
    """Load tensors by name. Names of old checkpoints are understood; nothing is loaded unless everything fits."""
    if getattr(model, "optimized", False):
        raise ValueError("an optimized model cannot load weights: load them first")
    wanted = model.state_dict()
    renamed = _renamed(model, state)
    missing = [key for key in wanted if key not in renamed and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in renamed if key not in wanted and not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise KeyError(
            f"{name} is a checkpoint of another model: {_some('missing', missing)}; {_some('unexpected', unexpected)}"
        )
    for key, tensor in renamed.items():
        if key in wanted and tensor.shape != wanted[key].shape:
            raise ValueError(
                f"{name}: {key} must have shape {tuple(wanted[key].shape)}, got {tuple(tensor.shape)}; the model may "
                "have another number of classes"
            )
    model.load_state_dict({key: value for key, value in renamed.items() if key in wanted}, strict=False)
    return model


def _renamed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under today's names: what the modules' own hooks make of them."""
    renamed = dict(state)
    for prefix, module in model.named_modules():
        rename = getattr(module, "rename_old_keys", None)
        if rename is not None:
            rename(renamed, f"{prefix}." if prefix else "")
    return renamed


def _some(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
    return f"{len(keys)} {what}" + (f" ({shown})" if keys else "")
