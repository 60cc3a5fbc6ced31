"""The loop: schedules, averages, groups of parameters, early stop, callbacks, files."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_problems import Blobs, Noisy, make_trainer

from fastcv.engine import Callback, ClassificationTask, Progress, Trainer, TrainOptions, rate_factor
from fastcv.models import read_card

pytest.importorskip("safetensors")
pytest.importorskip("yaml")


def plain(model: nn.Module, data: Any = None, **options: Any) -> Trainer:
    return Trainer(
        ClassificationTask(), model, Blobs(16) if data is None else data, options=TrainOptions(device="cpu", **options)
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_equals_a_loop_of_torch_alone(optimizer: str, accumulate: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    other, data = copy.deepcopy(model), Blobs(16)
    trainer = plain(
        model, data, epochs=3, batch=4 // accumulate, accumulate=accumulate, optimizer=optimizer, warmup=0.25,
        clip=0.5, learning_rate=0.1, schedule="cosine",
    )  # fmt: skip
    trainer.train()

    from fastcv.engine.loader import epoch_order

    decayed, others = [p for p in other.parameters() if p.dim() > 1], [p for p in other.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    made = torch.optim.SGD(groups, lr=0.1, momentum=0.9) if optimizer == "sgd" else torch.optim.AdamW(groups, lr=0.1)
    losses = []
    for step in range(12):
        rows = epoch_order(16, 16, 0, step // 4)[step % 4 * 4 :][:4]
        loss = nn.functional.cross_entropy(other(data.points[rows]), data.labels[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        for group in made.param_groups:
            group["lr"] = 0.1 * rate_factor(step, 12, "cosine", 0.25)
        made.step()
        made.zero_grad()
        losses.append(loss.item())
    assert trainer.losses["loss"] == pytest.approx(losses, rel=1e-5)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_schedules() -> None:
    cosine = [rate_factor(step, 100, "cosine", 0.1) for step in range(100)]
    assert cosine[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert cosine[10] == 1
    assert cosine[55] == pytest.approx(0.505)
    assert 0.01 < cosine[99] < 0.011
    drops = [rate_factor(step, 90, "step") for step in range(90)]
    assert drops == pytest.approx([1] * 60 + [0.1] * 20 + [0.01] * 10)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=40, pct_start=0.25, cycle_momentum=False)
    for step in range(40):
        assert rate_factor(step, 40, "one-cycle", 0.3) == pytest.approx(peer.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < 39:
            peer.step()
    assert rate_factor(3, 10, "constant") == 1
    for schedule in ("cosine", "step", "one-cycle", "constant"):
        for total in range(1, 9):
            assert all(0 < rate_factor(step, total, schedule, 0.3) <= 1 for step in range(total))


def test_moving_average() -> None:
    model = nn.Linear(8, 3)
    wanted = model.weight.detach().clone()

    class Follow(Callback):
        def on_step(self, trainer: Trainer, losses: dict[str, float]) -> None:
            decay = min(0.5, trainer.step / (9 + trainer.step))
            wanted.mul_(decay).add_(model.weight.detach(), alpha=1 - decay)

    trainer = plain(model, ema=0.5, epochs=4)
    trainer.callbacks = [Follow()]
    trainer.train()
    average: Any = trainer.trained_model
    torch.testing.assert_close(average.weight, wanted)
    assert not torch.equal(average.weight, model.weight)


def test_frozen_parts_and_statistics() -> None:
    model = Noisy(noise=False)
    before = copy.deepcopy(model.state_dict())
    plain(model, freeze=["body"], epochs=1).train()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) == name.startswith("body") for name in before)
    model = Noisy(noise=False)
    plain(model, freeze_norms=True, epochs=1).train()
    assert model.state_dict()["body.1.running_mean"].eq(0).all()
    assert not model.state_dict()["body.1.weight"].eq(1).all()
    with pytest.raises(ValueError, match="the model has no part 'neck' with parameters; it has body, head"):
        plain(Noisy(), freeze=["neck"])
    with pytest.raises(ValueError, match="all of them are frozen"):
        plain(Noisy(), freeze=["body", "head"])


def test_half_precision_on_a_cpu() -> None:
    seen = []

    class Spy(nn.Linear):
        def forward(self, points: torch.Tensor) -> torch.Tensor:
            seen.append(super().forward(points).dtype)
            return super().forward(points)

    trainer = plain(Spy(8, 3), amp=True, epochs=2)
    trainer.train()
    assert set(seen) == {torch.bfloat16}
    assert trainer.model.weight.dtype is torch.float32


def test_files(tmp_path: Path) -> None:
    class Count(Callback):
        def __init__(self) -> None:
            self.events: list[str] = []

        def on_start(self, trainer: Trainer) -> None:
            self.events.append("start")

        def on_step(self, trainer: Trainer, losses: dict[str, float]) -> None:
            self.events.append("step")
            assert {"loss", "cross_entropy", "learning_rate"} <= losses.keys()

        def on_epoch(self, trainer: Trainer, row: dict[str, Any]) -> None:
            self.events.append("epoch")

        def on_end(self, trainer: Trainer) -> None:
            self.events.append("end")

    count = Count()
    trainer = make_trainer(tmp_path, [count], epochs=2, plots=True)
    history = trainer.train()
    assert count.events == ["start", *["step"] * 5, "epoch", *["step"] * 5, "epoch", "end"]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["accuracy"]) == pytest.approx(history[1]["accuracy"])
    assert "accuracy/class/low" not in rows[0]
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert kept["history"][0]["accuracy/class/low"] == history[0]["accuracy/class/low"]
    assert kept["best"] == max(row["accuracy"] for row in history)
    if (tmp_path / "losses.png").exists():
        from PIL import Image

        assert Image.open(tmp_path / "losses.png").size[0] > 1000
        assert Image.open(tmp_path / "confusion.png").size[0] > 300
    assert TrainOptions.read_yaml(tmp_path / "options.yaml") == trainer.options
    assert read_card(tmp_path / "best.safetensors") is None, "the model has no card"


def test_the_best_is_kept_and_patience_ends(tmp_path: Path) -> None:
    class Scripted(ClassificationTask):
        scores = iter([0.2, 0.5, 0.4, 0.5, 0.9])

        def metrics(self, records: Any) -> dict[str, float]:
            return {"accuracy": next(self.scores)}

    trainer = make_trainer(tmp_path, task=Scripted(), epochs=9, patience=2)
    history = trainer.train()
    assert [row["best"] for row in history] == [True, True, False, False]
    assert trainer.best == 0.5
    assert (tmp_path / "best.safetensors").stat().st_mtime_ns < (tmp_path / "last.safetensors").stat().st_mtime_ns


@pytest.mark.parametrize(("every", "patience", "evaluated"), [
    (1, 0, [1, 2, 3, 4, 5, 6, 7]), (3, 0, [3, 6, 7]), (0, 0, [7]), (9, 0, [7]), (2, 1, [2, 4]), (0, 1, [7]),
])  # fmt: skip
def test_evaluations_between_epochs(tmp_path: Path, every: int, patience: int, evaluated: list[int]) -> None:
    """Patience counts evaluations, not epochs; the weights of epochs between are never the best."""

    class Scripted(ClassificationTask):
        scores = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01])

        def metrics(self, records: Any) -> dict[str, float]:
            return {"accuracy": next(self.scores)}

    trainer = make_trainer(tmp_path, task=Scripted(), epochs=7, evaluate_every=every, patience=patience)
    history = trainer.train()
    assert [row["epoch"] for row in history if "accuracy" in row] == evaluated
    assert len(history) == evaluated[-1]
    assert [row["epoch"] for row in history if row["best"]] == evaluated[:1]
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["epoch"]) for row in rows if row["accuracy"]] == evaluated


def test_a_step_of_more_samples_than_the_data_have() -> None:
    make_trainer(None, batch=100, epochs=1).train()
    for options in ({"batch": 10**9}, {"accumulate": 1000}):
        with pytest.raises(ValueError, match=r"batch times accumulate must be at most 1024 for \d+ samples, got \d+"):
            make_trainer(None, **options)


def test_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(None, [Progress()], epochs=2).train()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  step 5  loss 1.")
    assert "accuracy 0." in lines[1]
    make_trainer(None, [Progress(quiet=True)], epochs=1).train()
    assert capsys.readouterr().out == ""


def test_steps_in_place_of_epochs() -> None:
    trainer = make_trainer(None, steps=7)
    assert [row["step"] for row in trainer.train()] == [5, 7]


def test_empty_data() -> None:
    with pytest.raises(ValueError, match="data must hold at least one sample, got none"):
        plain(Noisy(), [])


def test_checkpoints_by_steps_and_by_time(tmp_path: Path) -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step(self, trainer: Trainer, losses: dict[str, float]) -> None:
            self.steps.append(trainer.saved[1])

    by_steps, by_time = Look(), Look()
    make_trainer(tmp_path / "steps", [by_steps], epochs=2, save_steps=2).train()
    assert by_steps.steps == [0, 0, 2, 2, 4, 5, 6, 6, 8, 8]
    make_trainer(tmp_path / "time", [by_time], epochs=2, save_minutes=1e-9).train()
    assert by_time.steps == list(range(10))
