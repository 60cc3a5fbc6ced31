"""What a layer keeps between calls: its weight as the kernels read it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["PackedWeight"]


class PackedWeight:
    """A packed weight in some form, and the tensor that it was made of as it was then.

    It holds that tensor and its memory: no others can take their addresses. ``weight.data = other`` and exchanges of
    tensors, which count no versions, show in the address. Copies of a module pack for themselves, since the layout
    depends on the processor.
    """

    __slots__ = ("address", "dtype", "memory", "packed", "version", "weight")

    def __init__(self, weight: Tensor | None = None, packed: Any = None) -> None:
        self.weight = weight
        self.packed = packed
        self.version = None if weight is None else weight._version
        self.dtype = None if weight is None else weight.dtype
        self.address = None if weight is None else weight.data_ptr()
        self.memory = None if weight is None else weight.detach()

    def is_of(self, weight: Tensor | None) -> bool:
        return (
            weight is not None
            and self.weight is weight
            and self.version == weight._version
            and self.dtype is weight.dtype
            and self.address == weight.data_ptr()
        )

    def __deepcopy__(self, memo: Any) -> PackedWeight:
        return PackedWeight()

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[()]]:
        return PackedWeight, ()
