"""What ``torch.autocast`` does to the arguments of an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["AUTOCAST_KEYS", "call_cast"]

AUTOCAST_KEYS = {"cpu": torch._C.DispatchKey.AutocastCPU, "cuda": torch._C.DispatchKey.AutocastCUDA}
"""By type of device: autocast is on where this key is not excluded."""


def call_cast(function: Callable[..., Any], device: str, dtype: str, *arguments: Any) -> Any:
    """Call ``function`` with autocast off and the tensors of a type of device cast, as torch's autocast does it.

    Float64 stays as it is. ``dtype`` is "float32", or "lower" for the dtype of autocast.
    """
    wanted = torch.get_autocast_dtype(device) if dtype == "lower" else torch.float32

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor):
            changes = value.is_floating_point() and value.dtype is not torch.float64 and value.device.type == device
            return value.to(wanted) if changes else value
        return [cast(element) for element in value] if isinstance(value, list | tuple) else value

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(AUTOCAST_KEYS[device])):
        return function(*map(cast, arguments))
