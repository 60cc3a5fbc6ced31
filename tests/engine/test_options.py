"""Options: what is refused, and in which words; YAML there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastcv.engine import OptionError, TrainOptions

pytest.importorskip("yaml")


@pytest.mark.parametrize(("values", "message"), [
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"epochs": "ten"}, "epochs must be an integer, got str 'ten'"),
    ({"epochs": 1.5}, "epochs must be an integer, got float 1.5"),
    ({"epochs": True}, "epochs must be an integer, got true"),
    ({"epochs": None}, "epochs must be an integer, got nothing"),
    ({"learning_rate": -1}, "learning_rate must be a positive learning rate, got -1.0"),
    ({"learning_rate": float("nan")}, "learning_rate must be a number, got nan"),
    ({"learning_rate": "fast"}, "learning_rate must be a number, got str 'fast'"),
    ({"learning_rates": {"backbone": 0}}, "backbone must be a positive learning rate, got 0.0"),
    ({"learning_rates": {"backbone": "slow"}}, "learning_rates: backbone must be a number"),
    ({"learning_rates": [1]}, r"learning_rates must be a dict, got list \[1\]"),
    ({"freeze": "backbone"}, "freeze must be a list, got str 'backbone'"),
    ({"freeze": [1]}, r"freeze\[0\] must be text, got int 1"),
    ({"amp": "yes"}, "amp must be true or false, got str 'yes'"),
    ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, got 'adam'"),
    ({"schedule": "linear"}, "schedule must be one of cosine, step, one-cycle, constant, got 'linear'"),
    ({"warmup": 1}, "warmup must be from 0 to less than 1, got 1.0"), ({"ema": -0.1}, "ema must be from 0"),
    ({"steps": 0}, "steps must be at least 1, got 0"), ({"seed": -1}, "seed must be at least 0, got -1"),
    ({"seed": 2**63}, r"seed must be less than 2\*\*63"),
    ({"epoch": 3}, r"options: there is no option 'epoch'; did you mean 'epochs'\?"),
])  # fmt: skip
def test_refused(values: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TrainOptions.from_dict(values)


def test_yaml(tmp_path: Path) -> None:
    options = TrainOptions(epochs=3, learning_rates={"backbone": 0.1}, freeze=["body"], ema=0.9, steps=7)
    options.write_yaml(tmp_path / "options.yaml")
    assert TrainOptions.read_yaml(tmp_path / "options.yaml") == options
    file = tmp_path / "other.yaml"
    file.write_text("learning_rate: 1e-3\nepochs: 2\nsteps:\n")
    assert TrainOptions.read_yaml(file) == TrainOptions(epochs=2)
    file.write_text("")
    assert TrainOptions.read_yaml(file) == TrainOptions()


@pytest.mark.parametrize(("text", "message"), [
    (b"epochs: [1\nbatch: 2", "other.yaml, line 2: not YAML"),
    (b"- epochs", "other.yaml must hold options, one a line"),
    (b"epochs: \xff", "other.yaml is not a text file"), (b"bathc: 2", "other.yaml: there is no option 'bathc'"),
    (b"batch: two", "other.yaml: batch must be an integer, got str 'two'"), (b"a: \x00", "not YAML"),
])  # fmt: skip
def test_bad_yaml(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "other.yaml"
    file.write_bytes(text)
    with pytest.raises(OptionError, match=message):
        TrainOptions.read_yaml(file)


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"there is no file .*none\.yaml"):
        TrainOptions.read_yaml(tmp_path / "none.yaml")
