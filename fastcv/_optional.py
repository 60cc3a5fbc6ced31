"""Packages that only a part of fastcv needs: they are imported when that part is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_INSTALLED_AS = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml"}


def require(module: str, what: str) -> Any:
    """Import a module, or say which package ``what`` needs.

    Raises
    ------
    ImportError
        If the package is not installed: one line, with the command that installs it.
    """
    root = module.partition(".")[0]
    try:
        import_module(root)
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != root:  # installed, but something that it needs itself is not
            raise
        package = _INSTALLED_AS.get(root, root)
        raise ImportError(f"{what} needs {package}: pip install {package}") from None
