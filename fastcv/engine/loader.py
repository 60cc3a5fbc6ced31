"""Batches in an order that depends on the seed and the epoch alone, so that a training can go on anywhere."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

__all__ = ["Transform", "epoch_order", "evaluation_loader", "sample_generator", "training_batches"]

Transform = Callable[[Any, Any, torch.Generator], tuple[Any, Any]]
_PRIMES = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def sample_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Return the generator for the augmentation of a sample: the same wherever and whenever it is loaded."""
    mixed = 0
    for number, prime in zip((seed, epoch + 1, index + 1), _PRIMES, strict=True):
        mixed = ((mixed ^ (number * prime)) * _PRIMES[0]) % 2**64
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed % 2**63)


def epoch_order(samples: int, wanted: int, seed: int, epoch: int) -> list[int]:
    """Return the samples of an epoch in random order; ``wanted`` of them, the first again after the last."""
    order = torch.randperm(samples, generator=sample_generator(seed, epoch, -1)).tolist()
    return [order[place % samples] for place in range(wanted)]


class _Failure:
    """An exception on its way from a worker: torch would wrap it in the text of a traceback."""

    def __init__(self, error: Exception) -> None:
        try:
            pickle.loads(pickle.dumps(error))
            self.error = error
        except Exception:
            self.error = RuntimeError(f"{type(error).__name__}: {error}")


class _Samples(Dataset[Any]):
    """Samples by (epoch, index), augmented unless the epoch is negative; a failure in place of one that raises."""

    def __init__(self, data: Any, transform: Transform | None, seed: int) -> None:
        self.data, self.transform, self.seed = data, transform, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        try:
            if epoch < 0:
                return self.data[index]
            generator = sample_generator(self.seed, epoch, index)
            draw = getattr(self.data, "sample", None)  # of data sets that draw random numbers themselves
            sample, target = self.data[index] if draw is None else draw(index, generator)
            if self.transform is not None:
                sample, target = self.transform(sample, target, generator)
        except Exception as error:
            return _Failure(error)
        return sample, target


class _Collate:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        for sample in samples:
            if isinstance(sample, _Failure):
                return sample
        try:
            return self.collate(samples)
        except Exception as error:
            return _Failure(error)


class _Batches:
    """The batches of an epoch, from one on, as lists of (epoch, index)."""

    def __init__(self, samples: int, per_epoch: int, batch: int, share: slice, seed: int) -> None:
        self.samples, self.per_epoch, self.batch, self.share, self.seed = samples, per_epoch, batch, share, seed
        self.epoch = self.first = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = epoch_order(self.samples, self.per_epoch * self.batch, self.seed, epoch)
        for number in range(self.first, self.per_epoch):
            batch = order[number * self.batch : (number + 1) * self.batch]
            yield [(epoch, index) for index in batch[self.share]]

    def __len__(self) -> int:
        return self.per_epoch - self.first


def _ignore_interrupt(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to all processes; the trainer decides


def _loader(data: Any, batches: Any, collate: Callable[[list[Any]], Any], workers: int, pin: bool) -> DataLoader[Any]:
    return DataLoader(
        data,
        batch_sampler=batches,
        collate_fn=_Collate(collate),
        num_workers=workers,
        worker_init_fn=_ignore_interrupt,
        persistent_workers=workers > 0,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # the global one is the model's
    )


def _raised(batches: DataLoader[Any]) -> Iterator[Any]:
    for batch in batches:
        if isinstance(batch, _Failure):
            raise batch.error
        yield batch


def training_batches(
    data: Any,
    transform: Transform | None,
    collate: Callable[[list[Any]], Any],
    *,
    per_epoch: int,
    batch: int,
    share: slice,
    seed: int,
    workers: int,
    pin: bool,
) -> Callable[[int, int], Iterator[Any]]:
    """Return a function that yields the batches of an epoch, from one on: ``batches(epoch, first)``."""
    sampler = _Batches(len(data), per_epoch, batch, share, seed)
    loader = _loader(_Samples(data, transform, seed), sampler, collate, workers, pin)

    def batches(epoch: int, first: int) -> Iterator[Any]:
        sampler.epoch, sampler.first = epoch, first
        return _raised(loader)

    return batches


def evaluation_loader(
    data: Any, indices: Sequence[int], collate: Callable[[list[Any]], Any], batch: int, workers: int, pin: bool
) -> Iterator[Any]:
    """Yield batches of these samples, in order."""
    keys = [[(-1, index) for index in indices[first : first + batch]] for first in range(0, len(indices), batch)]
    return _raised(_loader(_Samples(data, None, 0), keys, collate, workers, pin))
