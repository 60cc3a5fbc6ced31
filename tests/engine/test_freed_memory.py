"""Memory that was freed goes back to the system while a training goes on."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from torch import nn
from training_problems import Blobs

from fastcv.engine import ClassificationTask, Trainer, TrainOptions
from fastcv.engine.memory import return_freed_memory


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere nothing happens")
def test_what_lies_between_maps_in_use_is_returned() -> None:
    kept = [bytes([n % 255 + 1]) * 60_000 for n in range(2000)]  # less than what glibc maps by itself
    del kept[:1998:2], kept[:990:2]
    before = resident()
    return_freed_memory()
    assert before - resident() > 40_000_000
    assert len(kept) > 400


def test_a_training_returns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr("fastcv.engine.trainer._TRIM_STEPS", 3)
    monkeypatch.setattr("fastcv.engine.trainer.return_freed_memory", lambda: steps.append(trainer.step))
    options = TrainOptions(device="cpu", epochs=2, batch=4)
    trainer = Trainer(ClassificationTask(), nn.Linear(8, 3), Blobs(16), options=options)
    trainer.train()
    assert steps == [3, 6]
