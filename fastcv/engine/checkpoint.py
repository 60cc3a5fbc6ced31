"""Everything that a training needs to go on: written completely or not at all."""

from __future__ import annotations

import io
import random
import zipfile
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastcv._files import replaced_file
from fastcv.engine import processes
from fastcv.models.detection.weights import load_state

__all__ = [
    "random_states",
    "read_checkpoint",
    "restore_random_states",
    "restore_training",
    "training_state",
    "write_checkpoint",
]

VERSION = 1
_FIXED = (  # the options with which alone a training can go on
    "batch", "accumulate", "optimizer", "momentum", "weight_decay", "learning_rates", "freeze", "seed"
)  # fmt: skip


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the random number generators of Python, NumPy and torch, on the CPU and the GPU."""
    version, numbers, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": (version, list(numbers), gauss),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(place),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set the generators to states that :func:`random_states` returned."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


def write_checkpoint(state: dict[str, Any], path: str | PathLike[str]) -> None:
    """Write a state of tensors, numbers, text, lists and dictionaries. A full disk leaves the file as it was."""
    memory = io.BytesIO()  # torch reports a full disk as an error of its own, without the reason
    torch.save({"version": VERSION, **state}, memory)
    with replaced_file(path) as file:
        file.write_bytes(memory.getbuffer())


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write_checkpoint` wrote, without executing code from the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load passes on the errors of its many readers
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "weights_only" in str(error):  # torch advises to execute what is in the file
            why = "it is damaged, or holds other things than tensors"
        raise ValueError(f"{path} cannot be read as a checkpoint: {why}") from None
    if not isinstance(state, dict) or not {"version", "model", "optimizer", "step", "random"} <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of a training: it lacks the optimizer's state")
    if state["version"] != VERSION:
        raise ValueError(f"{path} must have version {VERSION}, got {state['version']}")
    return state


def training_state(trainer: Any) -> dict[str, Any]:
    """Return everything that a :class:`fastcv.engine.Trainer` needs to go on."""
    card, average = getattr(trainer.model, "card", None), trainer.average
    return {
        "model": trainer.model.state_dict(),
        "average": None if average is None else average.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "step": trainer.step,  # the learning rate and the place in the data follow from it
        "best": trainer.best,
        "waited": trainer.waited,
        "stopped": trainer.stopped,
        "history": trainer.history,
        "losses": {name: torch.tensor(values, dtype=torch.float64) for name, values in trainer.losses.items()},
        "random": processes.gather(random_states(trainer.device)),
        "options": asdict(trainer.options),
        "samples": len(trainer.data),
        "card": None if card is None else asdict(card),
    }


def restore_training(trainer: Any, path: Path) -> None:
    """Bring a trainer into the state of a checkpoint; errors as of :meth:`fastcv.engine.Trainer.resume`."""
    state = read_checkpoint(path)
    for name in _FIXED:
        was, now = state["options"].get(name), getattr(trainer.options, name)
        if was != now:
            raise ValueError(f"{name} must be {was!r} to go on from {path}, got {now!r}")
    if state["samples"] != len(trainer.data):
        raise ValueError(f"data must have {state['samples']} samples to go on from {path}, got {len(trainer.data)}")
    if (state["average"] is None) != (trainer.average is None):
        raise ValueError(f"ema must be {state['options'].get('ema')} to go on from {path}, got {trainer.options.ema}")
    if len(state["random"]) != processes.count():
        raise ValueError(f"{path} needs {len(state['random'])} processes to go on, got {processes.count()}")
    load_state(trainer.model, state["model"], str(path))
    if trainer.average is not None:
        load_state(trainer.average.model, state["average"], str(path))
    try:
        trainer.optimizer.load_state_dict(state["optimizer"])
    except ValueError:
        raise ValueError(f"{path} is of a model other parts of which were trained") from None
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.step, trainer.best, trainer.waited = state["step"], state["best"], state["waited"]
    trainer.stopped, trainer.history = state["stopped"], state["history"]
    trainer.losses = {name: values.tolist() for name, values in state["losses"].items()}
    restore_random_states(state["random"][processes.rank()], trainer.device)
