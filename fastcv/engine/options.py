"""The options of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fastcv.engine.schedule import SCHEDULES
from fastcv.engine.yaml_options import OptionError, Options

__all__ = ["TrainOptions"]

OPTIMIZERS = ("adamw", "sgd")


@dataclass(kw_only=True)
class TrainOptions(Options):
    """Options of a training.

    Attributes
    ----------
    epochs : int
        How often each sample is seen.
    steps : int, optional
        Number of steps of the optimizer, in place of ``epochs``.
    batch : int
        Samples per pass, of all processes together. The last batch of an epoch is filled from its start.
    accumulate : int
        Passes whose gradients are averaged before a step.
    optimizer : {"adamw", "sgd"}
    learning_rate : float
        The largest of the schedule.
    learning_rates : dict of str to float
        Factors for parts of the model, by the start of their parameters' names: ``{"backbone": 0.1}``.
    momentum : float
        Of SGD.
    weight_decay : float
        Not for biases and normalisation.
    schedule : {"cosine", "step", "one-cycle", "constant"}
        See :func:`fastcv.engine.schedule.rate_factor`.
    warmup : float
        Fraction of all steps in which the learning rate rises; one-cycle has its own.
    clip : float
        Largest norm of the gradient; 0 for any.
    amp : bool
        Compute in bfloat16 on a CPU, and in float16 with scaled losses on a GPU.
    ema : float
        Decay of the moving average of the weights, such as 0.999; 0 for none. The average is evaluated and saved.
    freeze : list of str
        Parts of the model that are not trained, such as "backbone"; see :func:`fastcv.engine.freeze`.
    freeze_norms : bool
        Batch normalisation keeps its statistics.
    seed : int
        Of the order of the samples, their augmentation, and torch.
    workers : int
        Processes that load samples; 0 loads them between the steps. The bits are the same.
    device : str
        "auto" is the GPU where there is one.
    evaluate_every : int
        Epochs from one evaluation to the next; the last epoch is always evaluated. 0 evaluates nothing else.
    patience : int
        Stop after so many evaluations without a better one; 0 for never.
    save_steps : int
        Steps from one checkpoint to the next, besides those at the end of each epoch; 0 for none.
    save_minutes : float
        The same in minutes.
    plots : bool
        Draw losses and evaluations: at the end, and now and then on the way.
    """

    epochs: int = 20
    steps: int | None = None
    batch: int = 4
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    learning_rates: dict[str, float] = field(default_factory=dict)
    momentum: float = 0.9
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 5.0
    amp: bool = False
    ema: float = 0.0
    freeze: list[str] = field(default_factory=list)
    freeze_norms: bool = False
    seed: int = 0
    workers: int = 0
    device: str = "auto"
    evaluate_every: int = 1
    patience: int = 0
    save_steps: int = 0
    save_minutes: float = 10.0
    plots: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for names, least in (
            (("epochs", "batch", "accumulate"), 1),
            (
                ("evaluate_every", "weight_decay", "clip", "seed", "workers", "patience", "save_steps", "save_minutes"),
                0,
            ),
        ):
            for name in names:
                if not getattr(self, name) >= least:
                    raise OptionError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise OptionError(f"steps must be at least 1, got {self.steps}")
        for name, rate in (("learning_rate", self.learning_rate), *self.learning_rates.items()):
            if not 0 < rate < math.inf:
                raise OptionError(f"{name} must be a positive learning rate, got {rate}")
        for name in ("momentum", "ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} must be from 0 to less than 1, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise OptionError(f"seed must be less than 2**63, got {self.seed}")
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise OptionError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
