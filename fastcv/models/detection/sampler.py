"""Random choice of the anchors and proposals that a detector is trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["BalancedSampler"]


class BalancedSampler:
    """Samples a fixed number of examples per image, at most a given fraction of them positive.

    Equal to torchvision's BalancedPositiveNegativeSampler, random numbers included.

    Parameters
    ----------
    batch_size_per_image : int
        Maximum examples per image.
    positive_fraction : float
        Maximum fraction of positive examples.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def __call__(self, labels: Any) -> Any:
        """Return the indices of the sampled positive and negative examples of an image, each in ascending order.

        Parameters
        ----------
        labels : Tensor (A,) or list of them
            At least 1 for positive examples, 0 for negative ones, negative for examples to ignore. For a list the
            result is torchvision's: two lists of masks (A,), uint8, in place of indices.
        """
        if not isinstance(labels, Tensor):
            pairs = [[_mask(rows, index) for index in self(rows)] for rows in labels]
            return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
        positives = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        negatives = min(len(negative), self.batch_size_per_image - positives)
        # Both permutations are drawn in full, as torchvision draws them: the same seed gives the same examples.
        chosen = torch.randperm(len(positive), device=labels.device)[:positives]
        others = torch.randperm(len(negative), device=labels.device)[:negatives]
        return positive[chosen].sort().values, negative[others].sort().values


def _mask(labels: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(labels, dtype=torch.uint8).index_fill_(0, index, 1)
