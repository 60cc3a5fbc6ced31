"""``fastcv detect``: the former name of ``fastcv predict``."""

from __future__ import annotations

from functools import wraps
from typing import Any

from fastcv.cli.photo import open_photo
from fastcv.cli.predict import predict

__all__ = ["detect", "open_photo"]  # programs took the second from here, too


@wraps(predict)
def detect(*arguments: Any, **options: Any) -> None:
    """Do what ``fastcv predict`` does, under its former name."""
    predict(*arguments, **options)


detect.__name__, detect.__doc__ = "detect", "The former name of predict."
