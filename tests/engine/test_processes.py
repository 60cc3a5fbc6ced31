"""Two processes with half of each batch are as one with the whole: losses, weights, metrics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_problems
from training_problems import FOR_PROCESSES, make_trainer

pytest.importorskip("safetensors")
pytest.importorskip("yaml")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes(tmp_path: Path) -> None:
    """Batch normalisation keeps its statistics: otherwise each process has those of its half."""
    command = [sys.executable, training_problems.__file__, "processes", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert len(state["random"]) == 2
    alone = make_trainer(None, epochs=4, **FOR_PROCESSES)
    history = alone.train()
    assert state["losses"]["loss"].tolist() == pytest.approx(alone.losses["loss"], rel=1e-5)
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(state["model"][name], value, rtol=1e-4, atol=1e-6)
    assert [row["accuracy"] for row in state["history"]] == [row["accuracy"] for row in history]
    with pytest.raises(ValueError, match="needs 2 processes to go on, got 1"):
        make_trainer(tmp_path, **FOR_PROCESSES).resume()
