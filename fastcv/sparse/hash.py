"""A table of integer keys and values, with the names of ``spconv.pytorch.hash``."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["HashTable"]


class HashTable:
    """Keys in ascending order, and a value for each, on any device; every method gives the same for every run.

    Parameters
    ----------
    device : torch.device
        Where keys and values are.
    key_dtype : torch.dtype
        int32 or int64.
    value_dtype : torch.dtype
        int32, int64, float32 or float64.
    max_size : int
        Not used: the table grows.
    """

    def __init__(
        self, device: torch.device, key_dtype: torch.dtype, value_dtype: torch.dtype, max_size: int = -1
    ) -> None:
        self.key_dtype, self.value_dtype = key_dtype, value_dtype
        self._keys = torch.empty(0, dtype=key_dtype, device=device)
        self._values = torch.empty(0, dtype=value_dtype, device=device)

    def insert(self, keys: Tensor, values: Tensor | None = None) -> None:
        """Enter keys, with values or 0. Of keys that come more than once, or are there, the last value stays."""
        values = torch.zeros_like(keys, dtype=self.value_dtype) if values is None else values
        joined, place = torch.cat([self._keys, keys]).unique(return_inverse=True)
        order = torch.arange(len(place), device=place.device)
        last = torch.zeros_like(joined, dtype=torch.long).scatter_reduce_(0, place, order, "amax")
        self._keys, self._values = joined, torch.cat([self._values, values])[last]

    def query(self, keys: Tensor, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the value of each key, and where there is none (bool)."""
        row, missing = self._find(keys)
        values = torch.zeros_like(keys, dtype=self.value_dtype) if values is None else values
        values[~missing] = self._values[row[~missing]]
        return values, missing

    def insert_exist_keys(self, keys: Tensor, values: Tensor) -> Tensor:
        """Give keys that are there another value; return where there is none (uint8)."""
        row, missing = self._find(keys)
        self._values[row[~missing]] = values[~missing]
        return missing.to(torch.uint8)

    def assign_arange_(self) -> Tensor:
        """Number the keys: their values become 0, 1, ... Returns how many there are, as a tensor (1,)."""
        self._values = torch.arange(len(self._keys), device=self._keys.device).to(self.value_dtype)
        return torch.tensor([len(self._keys)], device=self._keys.device)

    def items(self, max_size: int = -1) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, values, and how many there are, as a tensor (1,)."""
        return self._keys, self._values, torch.tensor([len(self._keys)], device=self._keys.device)

    def _find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        if len(self._keys) == 0:
            return torch.zeros_like(keys, dtype=torch.long), torch.ones_like(keys, dtype=torch.bool)
        row = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        return row, self._keys[row] != keys
