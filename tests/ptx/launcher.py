"""Launches single translated kernels on numpy arrays, for the translator's own tests."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class PtxFault(Exception):
    """What the runtime found."""


class Launcher:
    """The kernels of a library that `ptx.build.build_cases` has made, by name."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.fastcv_ptx_launch.restype = ctypes.c_char_p
        self.numbers = {name: number for number, name in enumerate(names)}

    def __call__(
        self, name: str, *arguments: npt.NDArray[Any] | int, blocks: int = 1, threads: int = 128, shared: int = 0
    ) -> None:
        """Arrays are passed as pointers to memory the kernel may use, numbers as 32-bit integers."""
        self.library.fastcv_ptx_forget_memory()
        count = len(arguments)
        sizes, values = (ctypes.c_uint * count)(), (ctypes.c_uint64 * count)()
        for i, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                address, size = ctypes.c_void_p(argument.ctypes.data), ctypes.c_size_t(argument.nbytes)
                self.library.fastcv_ptx_note_memory(address, size)
                sizes[i], values[i] = 8, argument.ctypes.data
            else:
                sizes[i], values[i] = 4, argument
        error = self.library.fastcv_ptx_launch(
            self.numbers[name], blocks, threads, ctypes.c_size_t(shared), count, sizes, values
        )
        if error is not None:
            raise PtxFault(error.decode())

    def set_seed(self, seed: int) -> None:
        """Of the order in which threads run."""
        self.library.fastcv_emulator_set_seed(ctypes.c_uint64(seed))
