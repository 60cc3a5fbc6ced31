"""``fastcv.sparse`` in the place of spconv 2."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from fastcv import sparse
from fastcv.sparse import constants, utils

__all__ = ["install_as_spconv"]

VERSION = "2.3.8"
"""The version whose names and behaviour ``fastcv.sparse`` has."""

_SUBMODULES = (
    "constants",
    "conv",
    "core",
    "functional",
    "hash",
    "identity",
    "modules",
    "ops",
    "pool",
    "tables",
    "utils",
)


def install_as_spconv() -> None:
    """Make ``import spconv.pytorch`` and its submodules give ``fastcv.sparse``, in this process.

    Programs written for spconv 2 then run unchanged. To be called before they import it. ``cumm.tensorview``, with
    whose ``from_numpy`` they hand points to ``spconv.utils.Point2VoxelCPU3d``, is put in place too where there is no
    cumm.

    Raises
    ------
    RuntimeError
        If the program has imported spconv itself before.

    Examples
    --------
    >>> from fastcv.compat import install_as_spconv
    >>> install_as_spconv()
    >>> import spconv.pytorch as spconv
    >>> spconv.SubMConv3d(16, 32, 3, indice_key="a")
    SubMConv3d(16, 32, kernel_size=[3, 3, 3], stride=[1, 1, 1], indice_key='a')
    """
    made = sys.modules.get("spconv")
    if made is not None and getattr(made, "pytorch", None) is sparse:
        return
    if made is not None:
        raise RuntimeError("install_as_spconv must be called before spconv is imported, and it has been imported")
    modules: dict[str, Any] = {"spconv.pytorch": sparse}
    for name in _SUBMODULES:
        modules[f"spconv.pytorch.{name}"] = importlib.import_module(f"fastcv.sparse.{name}")
    modules["spconv.constants"] = constants
    modules["spconv.core"] = _module("spconv.core", ConvAlgo=constants.ConvAlgo, AlgoHint=constants.AlgoHint)
    modules["spconv.utils"] = _module("spconv.utils", Point2VoxelCPU3d=utils.Point2VoxelCPU3d)
    modules["spconv"] = _module(
        "spconv",
        __path__=[],
        __version__=VERSION,
        SPCONV_VERSION_NUMBERS=[int(number) for number in VERSION.split(".")],
        ConvAlgo=constants.ConvAlgo,
        AlgoHint=constants.AlgoHint,
        pytorch=sparse,
        constants=constants,
        core=modules["spconv.core"],
        utils=modules["spconv.utils"],
    )
    sys.modules.update(modules)
    if "cumm" not in sys.modules and not _is_installed("cumm"):
        tensorview = _module("cumm.tensorview", from_numpy=utils._as_tensor)
        sys.modules["cumm.tensorview"] = tensorview
        sys.modules["cumm"] = _module("cumm", __path__=[], tensorview=tensorview)


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name, f"fastcv in the place of {name}.")
    vars(module).update(content)
    return module


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # put into sys.modules without a spec
        return True
