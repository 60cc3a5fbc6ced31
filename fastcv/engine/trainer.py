"""The training loop of all models."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastcv.engine import plots, processes, reports
from fastcv.engine.average import MovingAverage
from fastcv.engine.callbacks import Callback
from fastcv.engine.checkpoint import (
    random_states,
    restore_random_states,
    restore_training,
    training_state,
    write_checkpoint,
)
from fastcv.engine.evaluation import autocast, evaluate
from fastcv.engine.interrupt import DelayedInterrupt
from fastcv.engine.loader import Transform, training_batches
from fastcv.engine.options import TrainOptions
from fastcv.engine.schedule import rate_factor
from fastcv.engine.tasks import Task
from fastcv.engine.transfer import freeze, parameter_groups

__all__ = ["Trainer", "TrainingError"]

_PLOT_SECONDS = 30
_MOST_PER_STEP = 1024  # samples of a step, where the data are less


class TrainingError(RuntimeError):
    """A training that cannot go on: its loss or gradient is not finite."""


class Trainer:
    """Trains a model, evaluates it, and writes both down.

    Parameters
    ----------
    task : Task
        Such as :class:`fastcv.engine.DetectionTask`.
    model : nn.Module
        It is moved to ``options.device``.
    data, validation_data : data sets
        ``len(data)`` and ``data[i] -> (sample, target)``, as in :mod:`fastcv.data`.
    options : TrainOptions
    folder : path, optional
        For ``last.pt`` (everything, to resume), ``last.safetensors`` and ``best.safetensors`` (weights with the model's
        card), ``options.yaml``, ``metrics.csv``, ``metrics.json`` and plots. Default: nothing is written.
    callbacks : sequence of Callback
    transform : callable, optional
        Augmentation: ``transform(sample, target, generator) -> (sample, target)``. The generator depends on the seed,
        the epoch and the index of the sample alone. Data sets with a method ``sample(index, generator)`` get it too.
    facts : dict, optional
        To be kept with the weights, such as the command. The skeleton of the data's keypoints is added.

    Attributes
    ----------
    step : int
        Finished steps.
    history : list of dict
        Per epoch: epoch, step, learning_rate, losses (means over the epoch), metrics, and whether it is the best.
    losses : dict of lists
        By step: "loss" and its parts.

    Notes
    -----
    A resumed training has the bits of one that was never stopped, whenever it was stopped, if the machine, the number
    of threads and the number of processes are the same.

    In several processes (``torchrun --nproc-per-node 2 ...``) each takes its part of every batch, and gradients are
    averaged: for losses that are means over the batch, that is the gradient of one process with the whole batch. Batch
    normalisation sees the part alone, unless ``freeze_norms`` is set; the statistics that are saved are those of
    process 0.

    Examples
    --------
    >>> from fastcv.data import synthetic_scenes
    >>> from fastcv.engine import DetectionTask, TrainOptions
    >>> from fastcv.models import create_model
    >>> data, held_out = synthetic_scenes(4, 64), synthetic_scenes(2, 64, seed=1)
    >>> model = create_model("yolov2_tiny", names=data.names, size=64)
    >>> trainer = Trainer(DetectionTask(), model, data, held_out, TrainOptions(epochs=1, plots=False), "runs/first")
    >>> last = trainer.train()
    >>> more = TrainOptions(epochs=2, plots=False)
    >>> last = Trainer(DetectionTask(), model, data, held_out, more, "runs/first").resume().train()
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        data: Any,
        validation_data: Any = None,
        options: TrainOptions | None = None,
        folder: str | PathLike[str] | None = None,
        callbacks: Sequence[Callback] = (),
        *,
        transform: Transform | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.task, self.data, self.validation_data = task, data, validation_data
        self.options = options if options is not None else TrainOptions()
        self.folder = None if folder is None else Path(folder)
        self.callbacks = list(callbacks)
        skeleton = getattr(data, "skeleton", None)
        self.facts = ({"skeleton": skeleton} if skeleton else {}) | dict(facts or {})
        for name, several in (("data", data), ("validation_data", validation_data)):
            if several is not None and not len(several):
                raise ValueError(f"{name} must hold at least one sample, got none")
        opt = self.options
        self.device = processes.choose_device(opt.device)
        processes.start(self.device)
        if opt.batch % processes.count():
            raise ValueError(f"batch must be a multiple of the {processes.count()} processes, got {opt.batch}")
        per_step, most = opt.batch * opt.accumulate, max(len(data), _MOST_PER_STEP)
        if per_step > most:
            raise ValueError(f"batch times accumulate must be at most {most} for {len(data)} samples, got {per_step}")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        torch.manual_seed(opt.seed + processes.rank())
        self.model = freeze(model, *opt.freeze).to(self.device)
        processes.share_state(self.model)
        self.average = MovingAverage(self.model, opt.ema) if opt.ema else None
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        groups = parameter_groups(self.model, opt.learning_rate, opt.weight_decay, opt.learning_rates)
        self.rates = [group["lr"] for group in groups]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(groups) if opt.optimizer == "adamw" else torch.optim.SGD(groups, momentum=opt.momentum)
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=opt.amp and self.device.type == "cuda")
        self.steps_per_epoch = math.ceil(len(data) / (opt.batch * opt.accumulate))
        self.total_steps = opt.steps if opt.steps is not None else opt.epochs * self.steps_per_epoch
        self.total_epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        share = opt.batch // processes.count()
        self._batches = training_batches(
            data, transform, task.collate, per_epoch=self.steps_per_epoch * opt.accumulate, batch=opt.batch,
            share=slice(processes.rank() * share, (processes.rank() + 1) * share), seed=opt.seed, workers=opt.workers,
            pin=self.device.type == "cuda",
        )  # fmt: skip
        task.prepare(data if validation_data is None else validation_data)
        self.step = self.waited = 0
        self.best: float | None = None
        self.stopped = False
        self.history: list[dict[str, Any]] = []
        self.losses: dict[str, list[float]] = {}
        self._interrupt = DelayedInterrupt()
        self.saved = (time.monotonic(), 0)
        self._save_now = False
        self._plotted = time.monotonic()

    @property
    def trained_model(self) -> nn.Module:
        """The model to evaluate and to save: the moving average if there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def remaining_steps(self) -> int:
        """How many steps there are to go."""
        return 0 if self.stopped else max(0, self.total_steps - self.step)

    def train(self) -> list[dict[str, Any]]:
        """Train to the end, and return the history.

        Ctrl-C finishes the step, writes ``last.pt`` and raises KeyboardInterrupt; a second one raises at once.

        Raises
        ------
        TrainingError
            If the loss or the gradient is not finite. What was written before is not changed.
        OSError
            If a file cannot be written; the last good one stays.
        """
        if self.folder is not None and processes.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".fastcv-*.tmp"):  # by a training that was killed while it wrote
                left.unlink(missing_ok=True)
            self.options.write_yaml(self.folder / "options.yaml")
        self.saved = (time.monotonic(), self.step)
        with self._interrupt:
            self._tell("on_start")
            try:
                self._loop()
            finally:
                self._tell("on_end")
        return self.history

    def _loop(self) -> None:
        batches: Iterator[Any] | None = None
        while True:
            due = self.total_epochs if self.step >= self.total_steps else self.step // self.steps_per_epoch
            if len(self.history) < due:
                batches = None
                self._finish_epoch()
            if self.stopped or self.step >= self.total_steps:
                return
            if batches is None:
                epoch, within = divmod(self.step, self.steps_per_epoch)
                batches = self._batches(epoch, within * self.options.accumulate)
                self._set_training_mode()
            interrupted = self._one_step(batches)
            if interrupted:
                self._save()
                raise KeyboardInterrupt
            steps = self.options.save_steps
            if self._save_now or (steps and self.step % steps == 0):
                self._save()

    def _set_training_mode(self) -> None:
        """Training, but for batch normalisation that keeps its statistics: wanted so, or frozen with its part."""
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                frozen = [not parameter.requires_grad for parameter in module.parameters()]
                if self.options.freeze_norms or (frozen and all(frozen)):
                    module.eval()

    def _one_step(self, batches: Iterator[Any]) -> bool:
        """Make a step of the optimizer, and return whether to stop after it."""
        opt = self.options
        factor = rate_factor(self.step, self.total_steps, opt.schedule, opt.warmup)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        sums: dict[str, float] = {}
        for _ in range(opt.accumulate):
            batch = self.task.to(next(batches), self.device)
            with autocast(self.device, opt.amp):
                losses = self.task.losses(self.model, batch)
                loss = torch.stack([part.float() for part in losses.values()]).sum()
            self.scaler.scale(loss / opt.accumulate).backward()
            parts = torch.stack([loss.detach(), *(part.detach().float() for part in losses.values())]).tolist()
            for name, value in zip(("loss", *losses), parts, strict=True):
                sums[name] = sums.get(name, 0.0) + value / opt.accumulate
        flags = [float(self._interrupt.wanted), float(self._is_overdue())]  # what all processes have to agree on
        *values, stop, overdue = processes.means([*sums.values(), *flags], self.device)
        self._save_now = overdue > 0
        sums = dict(zip(sums, values, strict=True))
        if not math.isfinite(sums["loss"]):
            parts_text = ", ".join(f"{name} {value:.4g}" for name, value in sums.items() if name != "loss")
            raise TrainingError(f"the loss of step {self.step + 1} is {sums['loss']} ({parts_text}); {self._advice()}")
        processes.average_gradients(self._parameters)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._parameters, opt.clip or math.inf)
        if not self.scaler.is_enabled() and not math.isfinite(float(norm)):
            raise TrainingError(
                f"the gradient of step {self.step + 1} is {float(norm)} (its loss is {sums['loss']:.4g}); "
                f"{self._advice()}"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, self.step)
        for name in {**self.losses, **sums}:
            self.losses.setdefault(name, [math.nan] * self.step).append(sums.get(name, math.nan))
        self.step += 1
        self._tell("on_step", sums | {"learning_rate": opt.learning_rate * factor})
        return stop > 0 if processes.count() > 1 else self._interrupt.wanted  # all processes stop after the same step

    def _advice(self) -> str:
        kept = f"; the checkpoint of step {self.saved[1]} stays" if self.folder is not None and self.saved[1] else ""
        return f"a lower learning rate or a longer warm-up may help{kept}"

    def _finish_epoch(self) -> None:
        """Evaluate if it is time to, and write down what there is."""
        opt, epoch = self.options, len(self.history) + 1
        first = (epoch - 1) * self.steps_per_epoch
        row: dict[str, Any] = {"epoch": epoch, "step": self.step, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        row |= {name: _mean(values[first : self.step]) for name, values in self.losses.items()}
        last = self.step >= self.total_steps
        records: list[Any] | None = None
        metrics: dict[str, float] = {}
        is_due = last or (opt.evaluate_every > 0 and epoch % opt.evaluate_every == 0)
        if self.validation_data is not None and is_due:
            states = random_states(self.device)
            try:
                records, metrics = self._evaluate()
            except KeyboardInterrupt:
                restore_random_states(states, self.device)  # the evaluation is repeated after a resume
                self._save()
                raise
            restore_random_states(states, self.device)
        row |= metrics
        score = metrics[self.task.main(metrics)] if metrics else None
        row["best"] = score is not None and (self.best is None or score > self.best)
        if row["best"]:
            self.best, self.waited = score, 0
        elif score is not None:
            self.waited += 1
            self.stopped = bool(opt.patience) and self.waited >= opt.patience
        self.history.append(row)
        self._save(row, records)
        self._tell("on_epoch", row)
        if self.stopped and not last:
            self.note(f"stopped early: no better {self.task.main(metrics)} in {self.waited} evaluations")

    def evaluate(self, model: nn.Module | None = None) -> dict[str, float]:
        """Return the metrics of the trained model, or of another one, on the validation data."""
        if self.validation_data is None:
            raise ValueError("validation_data must be given for an evaluation")
        return self._evaluate(model)[1]

    def _evaluate(self, model: nn.Module | None = None) -> tuple[list[Any], dict[str, float]]:
        opt = self.options

        def look(done: int, total: int) -> None:
            if self._interrupt.wanted and processes.count() == 1:
                raise KeyboardInterrupt
            self._tell("on_evaluate", done, total)

        return evaluate(
            self.task, self.trained_model if model is None else model, self.validation_data, batch=opt.batch,
            workers=opt.workers, device=self.device, amp=opt.amp, on_batch=look,
        )  # fmt: skip

    def note(self, text: str) -> None:
        """Tell the user something."""
        self._tell("on_note", text)

    def _tell(self, event: str, *values: Any) -> None:
        if processes.rank() == 0:
            for callback in self.callbacks:
                getattr(callback, event)(self, *values)

    def _is_overdue(self) -> bool:
        return 0 < 60 * self.options.save_minutes < time.monotonic() - self.saved[0]

    def _save(self, row: dict[str, Any] | None = None, records: list[Any] | None = None) -> None:
        """Write ``last.pt`` and, at the end of an epoch (``row``), everything else."""
        if self.folder is None:
            return
        processes.share_state(self.model, buffers_only=True)
        state = training_state(self)
        if processes.rank() == 0:
            if row is not None:  # before last.pt: after a kill between them, the resumed training writes them again
                self._report(row, records)
            write_checkpoint(state, self.folder / "last.pt")
        self.saved = (time.monotonic(), self.step)

    def _report(self, row: dict[str, Any], records: list[Any] | None) -> None:
        """Write the files of an epoch but for the checkpoint."""
        assert self.folder is not None
        facts = self.facts | {"seed": self.options.seed, "step": self.step, "epoch": row["epoch"]}
        facts["metrics"] = {name: value for name, value in row.items() if name.count("/") < 2}
        reports.write_weights(self.trained_model, self.folder / "last.safetensors", facts)
        if row["best"]:
            reports.write_weights(self.trained_model, self.folder / "best.safetensors", facts)
        reports.write_csv(self.history, self.folder / "metrics.csv")
        reports.write_json({"best": self.best, "history": self.history}, self.folder / "metrics.json")
        ended = self.stopped or self.step >= self.total_steps
        if self.options.plots and plots.can_plot() and (ended or time.monotonic() - self._plotted > _PLOT_SECONDS):
            self._plotted = time.monotonic()
            plots.plot_losses(self.losses, self.history, self.folder / "losses.png")
            if records is not None:
                self.task.plot(records, self.folder)

    def resume(self, path: str | PathLike[str] | None = None) -> Trainer:
        """Go on where a checkpoint was written, and return the trainer.

        Parameters
        ----------
        path : path, optional
            ``last.pt`` or its folder. Default: that of the trainer's folder.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError, KeyError
            If it is damaged, of another model or data set, or of options with which one cannot go on.
        """
        file = Path(path) if path is not None else self.folder
        if file is None:
            raise ValueError("path must be given: the trainer has no folder")
        restore_training(self, file / "last.pt" if file.is_dir() else file)
        return self


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(torch.tensor(known, dtype=torch.float64).mean()) if known else math.nan
