"""A training that is stopped, killed or resumed has the bits of one that ran through; files are whole or as before."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import training_problems
from torch import Tensor, nn
from training_problems import Blobs, Noisy, assert_same, make_trainer

from fastcv.engine import Callback, ClassificationTask, Trainer, TrainingError, TrainOptions
from fastcv.engine.checkpoint import random_states, read_checkpoint
from fastcv.engine.loader import epoch_order, sample_generator

pytest.importorskip("safetensors")
pytest.importorskip("yaml")


class StopAt(Callback):
    """Presses Ctrl-C in a step."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_step(self, trainer: Trainer, losses: dict[str, float]) -> None:
        if trainer.step in self.steps:
            signal.raise_signal(signal.SIGINT)


def checkpoint(folder: Path) -> Any:
    return torch.load(folder / "last.pt", weights_only=True)


def assert_same_run(one: Path, other: Path) -> None:
    assert_same(*(checkpoint(folder) | {"options": None} for folder in (one, other)))
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "metrics.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("workers", [0, 1])
def test_interrupted_and_resumed(tmp_path: Path, workers: int) -> None:
    """Ctrl-C in the middle of an epoch, in its last step, and in the first of the next: five steps make an epoch."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make_trainer(whole).train()
    before = signal.getsignal(signal.SIGINT)
    for stop in (3, 5, 6, 11):
        trainer = make_trainer(parts, [StopAt(stop)], workers=workers)
        if (parts / "last.pt").exists():
            trainer.resume()
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert trainer.step == stop, "the step is finished"
        assert signal.getsignal(signal.SIGINT) is before
    trainer = make_trainer(parts, workers=workers).resume(parts / "last.pt")
    assert len(trainer.train()) == 4
    assert_same_run(whole, parts)
    assert make_trainer(parts).resume().train() == trainer.history, "there is nothing left to do"


def test_killed_five_times(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    command = [sys.executable, training_problems.__file__, whole, killed]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    assert checkpoint(whole)["step"] == 40
    assert_same_run(whole, killed)
    assert not list(killed.glob(".*")), "what a killed process left"


@pytest.mark.parametrize("kind", ["python", "numpy", "torch"])
def test_each_generator_counts(tmp_path: Path, kind: str) -> None:
    """The tests above see it if one state is lost."""
    whole, parts = make_trainer(None, epochs=2), tmp_path / "parts"
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(parts, [StopAt(2)], epochs=2).train()
    state = checkpoint(parts)
    make_trainer(None)
    state["random"][0][kind] = random_states(torch.device("cpu"))[kind]  # of the start
    torch.save(state, parts / "last.pt")
    trainer = make_trainer(parts, epochs=2).resume()
    trainer.train()
    assert trainer.losses["loss"][:2] == whole.losses["loss"][:2]
    assert trainer.losses["loss"][2] != whole.losses["loss"][2]


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    drawn = {(s, e, i): torch.rand((), generator=sample_generator(s, e, i)).item() for s in (0, 1, 2**62)
             for e in range(9) for i in range(-1, 40)}  # fmt: skip
    assert len(set(drawn.values())) > len(drawn) - 5
    assert sorted(epoch_order(10, 10, 0, 0)) == list(range(10))
    assert epoch_order(10, 10, 0, 0) == epoch_order(10, 12, 0, 0)[:10]
    assert epoch_order(10, 12, 0, 0)[10:] == epoch_order(10, 12, 0, 0)[:2]
    assert epoch_order(10, 10, 0, 1) != epoch_order(10, 10, 0, 0) != epoch_order(10, 10, 1, 0)


def test_more_epochs(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2, schedule="constant", warmup=0).train()
    trainer = make_trainer(tmp_path, epochs=4, schedule="constant", warmup=0).resume()
    trainer.train()
    make_trainer(tmp_path / "whole", epochs=4, schedule="constant", warmup=0).train()
    assert_same(checkpoint(tmp_path)["model"], checkpoint(tmp_path / "whole")["model"])


@pytest.mark.parametrize(("options", "message"), [
    ({"batch": 2}, r"batch must be 4 to go on from .*last.pt, got 2"),
    ({"seed": 7}, "seed must be 0"), ({"ema": 0.0}, "ema must be 0.9"),
    ({"optimizer": "sgd"}, "optimizer must be 'adamw'"),
])  # fmt: skip
def test_resume_refuses_options(tmp_path: Path, options: Any, message: str) -> None:
    make_trainer(tmp_path, epochs=1).train()
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options).resume()


def test_resume_refuses_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*last\.pt"):
        make_trainer(tmp_path).resume()
    make_trainer(tmp_path, epochs=1).train()
    options = TrainOptions(batch=4, accumulate=2, ema=0.9, device="cpu")
    with pytest.raises(ValueError, match=r"body.0.weight must have shape \(5, 8\), got \(16, 8\)"):
        Trainer(ClassificationTask(), Noisy(width=5), Blobs(37), options=options).resume(tmp_path)
    with pytest.raises(KeyError, match="is a checkpoint of another model"):
        Trainer(ClassificationTask(), nn.Linear(8, 3), Blobs(37), options=options).resume(tmp_path)
    with pytest.raises(ValueError, match=r"data must have 37 samples to go on from .*, got 36"):
        Trainer(ClassificationTask(), Noisy(), Blobs(36), options=options).resume(tmp_path)
    data = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        make_trainer(tmp_path).resume()
    torch.save({"model": Path}, tmp_path / "last.pt")
    with pytest.raises(
        ValueError, match=r"last\.pt cannot be read as a checkpoint: it is damaged, or holds other things"
    ):
        make_trainer(tmp_path).resume()
    torch.save({"model": {}}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="is not a checkpoint of a training"):
        make_trainer(tmp_path).resume()


def test_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    """All of them: a checkpoint that is read is the one that was written."""
    make_trainer(tmp_path, epochs=1).train()
    whole, drawn = (tmp_path / "last.pt").read_bytes(), random.Random(0)
    state, refused, harmless = checkpoint(tmp_path), 0, 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(drawn.randint(1, 4)):
            damaged[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
        (tmp_path / "last.pt").write_bytes(damaged[: drawn.randint(1, 4) * len(whole) // 2])
        try:
            assert_same(read_checkpoint(tmp_path / "last.pt"), state)
        except ValueError as error:
            refused += "last.pt cannot be read as a checkpoint" in str(error)
        else:
            harmless += 1
    assert refused + harmless == 60
    assert refused > 30


class FullDisk(Callback):
    """Lets no file grow beyond a size from a step on, as a disk without space."""

    def on_step(self, trainer: Trainer, losses: dict[str, float]) -> None:
        import resource

        if trainer.step == 7:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=re.escape(str(tmp_path / "last.safetensors"))) as caught:
            make_trainer(tmp_path, [FullDisk()]).train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert checkpoint(tmp_path)["step"] == 5
    assert not list(tmp_path.glob(".*"))
    make_trainer(tmp_path).resume().train()
    make_trainer(tmp_path / "whole").train()
    assert_same_run(tmp_path / "whole", tmp_path)


class Spoiled(Blobs):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        points, label = super().__getitem__(index)
        return (points * float("nan") if index == 20 else points), label


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    """The step and the loss are named, and nothing is overwritten."""
    options = TrainOptions(epochs=3, batch=4, device="cpu", save_steps=1, plots=False)
    place = epoch_order(37, 40, 0, 0).index(20) // 4
    assert place > 1
    trainer = Trainer(ClassificationTask(), Noisy(), Spoiled(37), options=options, folder=tmp_path)
    with pytest.raises(
        TrainingError, match=rf"the loss of step {place + 1} is nan \(cross_entropy nan\).* step {place} stays"
    ):
        trainer.train()
    assert checkpoint(tmp_path)["step"] == place
    assert all(value.isfinite().all() for value in checkpoint(tmp_path)["model"].values())


class Steep(nn.Linear):
    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points) + (self.weight.sum() * 0).abs().sqrt()  # the gradient of the root is infinite


def test_a_gradient_that_is_not_finite() -> None:
    trainer = Trainer(ClassificationTask(), Steep(8, 3), Blobs(8), options=TrainOptions(device="cpu"))
    with pytest.raises(TrainingError, match="the gradient of step 1 is nan"):
        trainer.train()


def test_errors_of_data_come_through_workers() -> None:
    class Broken(Blobs):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            raise OSError(errno.ENOENT, "No such file or directory", "photo.jpg")

    for workers in (0, 1):
        trainer = Trainer(ClassificationTask(), Noisy(), Broken(8), options=TrainOptions(device="cpu", workers=workers))
        with pytest.raises(OSError, match=r"photo\.jpg"):
            trainer.train()
