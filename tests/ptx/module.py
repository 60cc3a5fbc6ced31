"""Loads `_C_ptx` such that a kernel may use the memory of its own call and no other."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path
from types import BuiltinFunctionType, ModuleType
from typing import Any


class PtxModule(ModuleType):
    """The compiled module; each of its functions first forgets the tensors of the call before."""

    def __init__(self, compiled: ModuleType) -> None:
        super().__init__(compiled.__name__)
        self.__file__ = compiled.__file__
        self.compiled = compiled
        self.forget_memory = ctypes.PyDLL(str(compiled.__file__)).fastcv_ptx_forget_memory

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.compiled, name)
        if not isinstance(function, BuiltinFunctionType):
            return function

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            self.forget_memory()
            return function(*arguments)

        setattr(self, name, call)
        return call


def load_extension(name: str, path: Path) -> ModuleType:
    """A compiled module from a file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_ptx_module() -> PtxModule:
    """Built where that is needed."""
    from ptx.build import MODULE_NAME, build_ptx_module

    return PtxModule(load_extension(MODULE_NAME, build_ptx_module()))
