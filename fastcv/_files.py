"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from secrets import token_hex

__all__ = ["check_writable", "replaced_file"]


@contextmanager
def replaced_file(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file in the folder of ``path``, which replaces ``path`` when the block ends.

    If an exception leaves the block, Ctrl-C included, the temporary file is removed and ``path`` does not change. Links
    are followed, and an existing file's permissions are kept. A device or pipe is written to directly.

    Raises
    ------
    OSError
        If ``path`` cannot be written; raised before the block starts, with that name.

    Examples
    --------
    >>> with replaced_file("scan.bin") as file:
    ...     file.write_bytes(b"points")
    6
    """
    target = Path(os.path.realpath(path))
    before = _status(target, path)
    if before is not None and not stat.S_ISREG(before.st_mode):
        yield target
        return
    temporary = _create_beside(target, path)
    try:
        if before is not None:
            shutil.copymode(target, temporary)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # before the rename: some file systems report only now that they are full
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)) and error.errno is not None:
            raise _named(error, path) from None
        raise


def check_writable(path: str | PathLike[str]) -> None:
    """Raise OSError, with the name ``path``, if a file cannot be written there. To be called before long work."""
    target = Path(os.path.realpath(path))
    before = _status(target, path)
    if before is None or stat.S_ISREG(before.st_mode):
        _create_beside(target, path).unlink()


def _status(target: Path, path: str | PathLike[str]) -> os.stat_result | None:
    """Return the status of an existing file or None. Raise OSError for what must not be replaced."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _named(error, path) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return status


def _create_beside(target: Path, path: str | PathLike[str]) -> Path:
    temporary = target.with_name(f".fastcv-{token_hex(8)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # as open() does, under the umask
    except OSError as error:
        raise _named(error, path) from None
    return temporary


def _named(error: OSError, path: str | PathLike[str]) -> OSError:
    """Return the error with the caller's name for the file."""
    return OSError(error.errno, error.strerror, str(path))
