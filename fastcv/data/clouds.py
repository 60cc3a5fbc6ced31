"""What all data sets of point clouds have in common: names, and what networks have to know about the points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["CloudDataset", "choose_points"]


class CloudDataset(Dataset[tuple[Tensor, Any]]):
    """Point clouds: ``data[i]`` is float32 points (N, 3 or more), and what is to be learnt about them.

    Attributes
    ----------
    names : dict of int to str
        The name of each label.
    first_label : int
        The least label.
    task : str
        "classification": a label, an int. "point-segmentation": labels (N,), int64.
    points : int or None
        How many points each cloud has; None where they differ.
    model_options : dict
        Keywords for models of such clouds, for each that takes them: ``in_channels``, the columns of the points; and
        for metric scans ``voxel_size``, ``point_cloud_range`` and ``height``.
    """

    names: dict[int, str]
    first_label: int
    task: str
    points: int | None
    model_options: dict[str, Any]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        raise NotImplementedError


def choose_points(available: int, wanted: int, generator: np.random.Generator) -> Tensor:
    """Return the indices of ``wanted`` points: no point twice unless there are too few, then each as often, or once
    more.
    """
    whole, rest = divmod(wanted, available)
    if whole == 0:
        return torch.from_numpy(generator.permutation(available)[:wanted])
    order = np.concatenate([np.tile(np.arange(available), whole), generator.permutation(available)[:rest]])
    return torch.from_numpy(generator.permutation(order))
