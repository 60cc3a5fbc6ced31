"""Computer-vision operators for PyTorch: hand-written CUDA kernels and vectorised CPU kernels in one wheel.

``fastcv.ops`` holds the operators as functions and ``fastcv.nn`` as layers; ``fastcv.sparse`` holds sparse convolution
layers, ``fastcv.models`` complete models, and ``fastcv.reference`` the operators written in plain torch.
"""

import gc
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if find_spec("fastcv._C") is None:
    # This is the source folder of a checkout, which comes first where Python was started. It stands back for the
    # package that was installed from it.
    for _entry in sys.path:
        if any((Path(_entry) / "fastcv").glob("_C.*.so")):
            __path__[:] = [str(Path(_entry) / "fastcv")]
            break
    else:
        raise ImportError("fastcv is not installed, and its source folder has no compiled module: run pip install .")

from fastcv import _interrupt

if _interrupt.is_command():
    _interrupt.exit_on_interrupt()  # a command imports what it needs: the list of them and the version need no torch
else:
    # Registers the operators with torch, so that programs of torch.export and torch.jit load. Thousands of objects that
    # stay: looking for garbage among them, and among all of torch's, would take as long as making them.
    _collects = gc.isenabled()
    gc.disable()
    try:
        from fastcv import ops
    finally:
        if _collects:
            gc.enable()

if TYPE_CHECKING:
    from fastcv import nn, ops, sparse
    from fastcv.accelerate import accelerate_torchvision
    from fastcv.detections import Detections
    from fastcv.fusion import optimize
    from fastcv.slicing import predict_sliced

    __version__: str

__all__ = ["Detections", "__version__", "accelerate_torchvision", "nn", "ops", "optimize", "predict_sliced", "sparse"]

_LAZY = {
    "Detections": "fastcv.detections",
    "accelerate_torchvision": "fastcv.accelerate",
    "optimize": "fastcv.fusion",
    "predict_sliced": "fastcv.slicing",
}


def __getattr__(name: str) -> Any:
    """Import what most programs do not need when it is asked for."""
    if name == "__version__":
        value: Any = _version()
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in __all__:
        value = import_module(f"fastcv.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """Return the version in pyproject.toml, by the installed package or, beside its sources, by the compiled module."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastcv")
    except PackageNotFoundError:
        from fastcv.ops import build_info

        return str(build_info()["version"])
