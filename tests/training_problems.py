"""Small data, models and trainings that take milliseconds."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fastcv.engine import Callback, ClassificationTask, Trainer, TrainOptions


class Blobs:
    """Vectors of eight numbers around the centre of their class."""

    names: ClassVar = {0: "low", 1: "middle", 2: "high"}

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(3, (count,), generator=generator)
        self.points = self.labels[:, None] - 1 + 0.7 * torch.randn(count, 8, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.points[index], int(self.labels[index])


def jitter(points: Tensor, label: int, generator: torch.Generator) -> tuple[Tensor, int]:
    return points + 0.1 * torch.randn(points.shape, generator=generator), label


class Noisy(nn.Module):
    """A network that needs all generators of random numbers, and has statistics."""

    def __init__(self, noise: bool = True, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU())
        self.head = nn.Linear(width, 3)
        self.noise = noise

    def forward(self, points: Tensor) -> Tensor:
        hidden = self.body(points)
        if self.training and self.noise:
            hidden = nn.functional.dropout(hidden, 0.2) + 0.01 * random.random()
            hidden = hidden * float(np.random.uniform(0.9, 1.1))  # noqa: NPY002
        logits: Tensor = self.head(hidden)
        return logits


def make_trainer(
    folder: Path | str | None, callbacks: Any = (), noise: bool = True, task: Any = None, **options: Any
) -> Trainer:
    torch.manual_seed(0)
    chosen = {
        "epochs": 4,
        "batch": 4,
        "accumulate": 2,
        "ema": 0.9,
        "device": "cpu",
        "save_minutes": 0,
        "plots": False,
        **options,
    }
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    return Trainer(
        task or ClassificationTask(), Noisy(noise), Blobs(37), Blobs(10, seed=1), TrainOptions(**chosen), folder,
        callbacks, transform=jitter,
    )  # fmt: skip


def assert_same(one: Any, other: Any, path: str = "") -> None:
    """All values the same, tensors to the bit."""
    assert type(one) is type(other), path
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype, path
        assert one.numpy().tobytes() == other.numpy().tobytes(), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}/{index}")
    else:
        assert one == other, path


class Told(Callback):
    """Writes a point for each step to a pipe."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_step(self, trainer: Trainer, losses: dict[str, float]) -> None:
        os.write(self.pipe, b".")


def train_and_be_killed(folder: str, kills: int, seed: int) -> list[int]:
    """Train in processes that are killed at random times, and then to the end; return the steps done before each kill.

    The processes are forked, because importing torch takes longer than the training. Nothing of torch has run before.
    """
    drawn = random.Random(seed)
    done = []
    for attempt in range(kills + 1):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            torch.set_num_threads(1)
            trainer = make_trainer(folder, [Told(writer)], epochs=8, save_steps=3)
            if (Path(folder) / "last.pt").exists():
                trainer.resume()
            trainer.train()
            os._exit(0)
        os.close(writer)
        steps = 0
        wanted = drawn.randint(1, 9) if attempt < kills else 10**9
        while steps < wanted and os.read(reader, 1):
            steps += 1
        if attempt < kills:
            time.sleep(drawn.uniform(0, 0.004))  # within the next step, or while a file is written
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert status == (signal.SIGKILL if attempt < kills else 0), status
        os.close(reader)
        done.append(steps)
    return done


# SGD, as AdamW does not see the scale of a gradient; a schedule that does not depend on the number of epochs.
FOR_PROCESSES: Any = {
    "noise": False, "freeze_norms": True, "schedule": "constant", "warmup": 0, "optimizer": "sgd", "learning_rate": 0.1
}  # fmt: skip


def train_in_processes(folder: str, count: int) -> None:
    """Train in processes that are told of each other as ``torchrun`` tells them; half of it after a resume."""
    children = []
    port = random.SystemRandom().randint(20000, 60000)
    for rank in range(count):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), **where}
            make_trainer(folder, epochs=2, **FOR_PROCESSES).train()
            make_trainer(folder, epochs=4, **FOR_PROCESSES).resume().train()
            torch.distributed.destroy_process_group()
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


if __name__ == "__main__":
    import torch._dynamo  # which the first optimizer imports, in a second

    if sys.argv[1] == "processes":
        train_in_processes(sys.argv[2], 2)
        sys.exit()
    whole, killed = sys.argv[1:]
    print(train_and_be_killed(whole, 0, 0), train_and_be_killed(killed, 5, int.from_bytes(random.randbytes(4), "big")))
