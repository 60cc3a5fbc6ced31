"""DropBlock: squares or cubes of a feature map that are dropped at random in training. Made of torch's operations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcv.ops._layers import found_in_nn

__all__ = ["drop_block2d", "drop_block3d"]


def drop_block2d(
    input: Tensor, p: float, block_size: int, inplace: bool = False, eps: float = 1e-6, training: bool = True
) -> Tensor:
    """Replace random squares of each channel by zeros, and scale the rest so that the mean stays.

    Parameters
    ----------
    input : Tensor (N, C, H, W)
        Of a floating dtype.
    p : float
        Probability of an element to be dropped, in [0, 1].
    block_size : int
        Side of a square, odd; at most the shorter side of the map is used.
    inplace : bool
        Write into ``input``.
    eps : float
        Added to the number of elements that are kept.
    training : bool
        Without it the input is returned.

    Returns
    -------
    Tensor (N, C, H, W)
        The same numbers are drawn as by ``torchvision.ops.drop_block2d`` from the same seed.

    Raises
    ------
    ValueError
        For a ``p`` outside [0, 1], an input with another number of axes or an even side.

    References
    ----------
    Ghiasi, Lin, Le: DropBlock (2018), algorithm 1.
    """
    return _drop_block(input, p, block_size, inplace, eps, training, 2)


def drop_block3d(
    input: Tensor, p: float, block_size: int, inplace: bool = False, eps: float = 1e-6, training: bool = True
) -> Tensor:
    """:func:`drop_block2d` with cubes of maps (N, C, D, H, W)."""
    return _drop_block(input, p, block_size, inplace, eps, training, 3)


def _drop_block(
    input: Tensor, p: float, block_size: int, inplace: bool, eps: float, training: bool, axes: int
) -> Tensor:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}")
    if input.dim() != axes + 2:
        raise ValueError(f"input must have {axes + 2} axes, got {tuple(input.shape)}")
    if not training or p == 0:
        return input
    sides = input.shape[2:]
    side = min(block_size, *sides)
    if side % 2 == 0:
        raise ValueError(f"block_size must be odd, got {side}")
    places = [length - side + 1 for length in sides]  # of a block that lies inside the map
    rate = p * math.prod(sides) / (side**axes * math.prod(places))
    seeds = torch.empty((*input.shape[:2], *places), dtype=input.dtype, device=input.device).bernoulli_(rate)
    seeds = F.pad(seeds, [side // 2] * (2 * axes))
    dropped = (F.max_pool2d if axes == 2 else F.max_pool3d)(seeds, side, stride=1, padding=side // 2)
    kept = 1 - dropped
    scale = kept.numel() / (eps + kept.sum())
    return input.mul_(kept).mul_(scale) if inplace else input * kept * scale


def __getattr__(name: str) -> Any:
    return found_in_nn(__name__, name, ("DropBlock2d", "DropBlock3d"))
