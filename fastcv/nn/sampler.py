"""Which anchors and proposals a detector learns from."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BalancedSampler"]


class BalancedSampler:
    """Draws a fixed number of examples per image, of which no more than a fraction is positive.

    Equal to torchvision's BalancedPositiveNegativeSampler, random numbers included.

    Parameters
    ----------
    batch_size_per_image : int
        Examples per image, if there are so many.
    positive_fraction : float
        Greatest share of positive ones.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction

    def __call__(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return indices of the chosen positive and negative examples of an image, each in ascending order.

        Parameters
        ----------
        labels : Tensor (A,)
            1 or more for positive examples, 0 for negative ones, less for those that do not count.
        """
        positive, negative = torch.where(labels >= 1)[0], torch.where(labels == 0)[0]
        positives = min(len(positive), int(self.batch_size_per_image * self.positive_fraction))
        negatives = min(len(negative), self.batch_size_per_image - positives)
        # Both permutations are drawn in full, as torchvision does: the same seed then gives the same examples.
        chosen = torch.randperm(len(positive), device=labels.device)[:positives]
        others = torch.randperm(len(negative), device=labels.device)[:negatives]
        return positive[chosen].sort().values, negative[others].sort().values
