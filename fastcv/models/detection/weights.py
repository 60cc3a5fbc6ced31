"""Checkpoints: read without executing code from the file, and checked completely before the model changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["load_weights"]

_WRAPPINGS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "_orig_mod.")  # DistributedDataParallel's, Lightning's, torch.compile's

# First digits of the SHA-256 of torchvision's checkpoints of 2019, whose batch normalisation had no eps.
_WITHOUT_EPS = ("258fb6c6", "bf2d0c1e", "fc266e95", "9f466800")


def load_weights(model: nn.Module, path: str | Path | Mapping[str, Any]) -> nn.Module:
    """Load a checkpoint into a model, all of it or none of it, and return the model.

    Parameters
    ----------
    model : nn.Module
        The model; not one that is optimized.
    path : path or state_dict
        A ``.safetensors`` file (which needs the package safetensors), or a ``state_dict()`` written by ``torch.save``,
        such as torchvision's ``.pth`` files, which is read with ``weights_only=True``; or what would be in the file. A
        state_dict may be wrapped, with what training needs beside it, under "model", "state_dict" or
        "model_state_dict", and its names may have the prefixes of wrappers: "module.", "model." and "_orig_mod.".

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    KeyError
        If the checkpoint is of another model. Lists missing and unexpected names.
    ValueError
        If a tensor has another shape or kind of dtype, or if the file is not a state_dict of dense tensors.
    """
    return load_state(model, read_state(path), "the state_dict" if isinstance(path, Mapping) else str(path))


def read_state(path: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without what it is wrapped in."""
    if isinstance(path, Mapping):
        return _unwrapped(path, "the state_dict")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    state: Any
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError  # type: ignore[import-not-found, unused-ignore]
            from safetensors.torch import load_file  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise ImportError(f"reading {path} needs safetensors: pip install safetensors") from None
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load passes on the errors of its many readers
            raise ValueError(f"{path} cannot be read as a checkpoint of tensors: {_why(path, error)}") from None
    return _unwrapped(state, path)


def _why(path: Path, error: Exception) -> str:
    """Return why ``torch.load`` failed, in one line. Its own advice is to execute what is in the file."""
    with path.open("rb") as file:
        start = file.read(2)
    if not start:
        return "it is empty"
    if start != b"PK" and start[:1] != b"\x80":  # torch's archives, and its pickles of old
        return "it was not written by torch.save"
    text = str(error).strip()
    if "weights_only" in text:
        return "it is damaged, or holds other things than tensors"
    return text.splitlines()[0] if text else type(error).__name__


def _unwrapped(state: Any, name: str | Path) -> dict[str, Tensor]:
    """Return the state_dict that training scripts keep beside their optimizer, without what wrappers add to names."""
    while isinstance(state, Mapping):
        inner = next((state[key] for key in _WRAPPINGS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    check_state(state, name)
    state = dict(state)
    while prefix := next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    bare = {key.replace("._orig_mod.", "."): value for key, value in state.items()}  # of parts that were compiled
    return bare if len(bare) == len(state) else state


def check_state(state: Any, path: str | Path) -> None:
    """Raise ValueError unless ``state`` holds dense tensors of real numbers by name."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state_dict, names and tensors, got {type(state).__name__}")
    for key, tensor in state.items():
        if not isinstance(key, str):
            raise ValueError(f"{path} must hold tensors by name, got the key {key!r}")
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_meta:
            kind = "quantized" if tensor.is_quantized else "without data" if tensor.is_meta else "sparse or nested"
            raise ValueError(f"{path}: {key} must be a dense tensor, got one that is {kind}")
        if tensor.is_complex():
            raise ValueError(f"{path}: {key} must hold real numbers, got {_dtype(tensor)}")


def lacks_eps(path: str | Path | Mapping[str, Any]) -> bool:
    """Whether a checkpoint is one of those that were trained with eps = 0 in batch normalisation."""
    if isinstance(path, Mapping):
        return False
    path = Path(path)
    if not path.is_file() or path.suffix == ".safetensors":
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest().startswith(_WITHOUT_EPS)


def load_state(model: nn.Module, state: Mapping[str, Tensor], name: str) -> nn.Module:
    """Load tensors by name, old names included. Nothing is loaded unless everything fits."""
    if getattr(model, "optimized", False):
        raise ValueError("an optimized model cannot load weights: load them first")
    wanted = model.state_dict()
    if any(tensor.is_meta for tensor in wanted.values()):
        raise ValueError("the model is on the device meta, which holds no values: make it on another device")
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
        if key in wanted and tensor.is_floating_point() != wanted[key].is_floating_point():
            raise ValueError(f"{name}: {key} must be of a dtype like {_dtype(wanted[key])}, got {_dtype(tensor)}")
    model.load_state_dict({key: value for key, value in renamed.items() if key in wanted}, strict=False)
    return model


def _renamed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under their current names, by the modules' own rules."""
    renamed = dict(state)
    for prefix, module in model.named_modules():
        rename = getattr(module, "rename_old_keys", None)
        if rename is not None:
            rename(renamed, f"{prefix}." if prefix else "")
    return renamed


def _some(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
    return f"{len(keys)} {what}" + (f" ({shown})" if keys else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
