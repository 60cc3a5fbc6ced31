"""The compiled module.

An operator ``fastcv::name`` is computed by ``name`` here, with the arguments of its schema: see fastcv/ops/_define.py.
Declared are the functions that are no operators.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

class Description:
    """What stands for a tensor in a trace: no memory."""

    def __init__(
        self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype, device: str, index: int = 0
    ) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> str: ...

def build_info() -> dict[str, Any]: ...
def conv2d_pack(weight: Tensor, groups: int, tile: int) -> Tensor | None: ...
def conv2d_tile(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    exact: bool,
) -> int: ...
def conv_transpose_pack(weight: Tensor, groups: int) -> Tensor | None: ...
def fail_allocation_after(count: int) -> int: ...
def set_cpu_variant(variant: str) -> None: ...
def sparse_output_shape(
    spatial_shape: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    subm: bool,
    transposed: bool,
) -> tuple[int, int, int]: ...
def voxel_grid_cells(grid: Sequence[float]) -> tuple[int, int, int]: ...
def __getattr__(name: str) -> Any: ...
