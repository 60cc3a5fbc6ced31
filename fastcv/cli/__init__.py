"""The ``fastcv`` command.

One module per subcommand; :mod:`fastcv.cli.app` collects them. They need the packages of the extra ``demo``, so this
file imports none of those.
"""

import os
import sys
import warnings
from importlib.util import find_spec

from fastcv import _interrupt

NEEDED = {"typer": "typer", "rich": "rich", "PIL": "pillow", "matplotlib": "matplotlib", "safetensors": "safetensors"}


def main() -> None:
    """Run the command line."""
    if _interrupt.is_command():
        warnings.simplefilter("ignore")  # warnings are for programmers
    try:
        run()
    except KeyboardInterrupt:
        print("fastcv: interrupted", file=sys.stderr)
        sys.exit(_interrupt.STATUS)
    finally:
        flush()
        if _interrupt.is_command():
            _interrupt.exit_on_interrupt()  # while Python shuts down


def run() -> None:
    """Run the subcommand, or print which packages are missing."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if not missing:
        from fastcv.cli.app import app

        app(prog_name="fastcv")
    elif sys.argv[1:] == ["info"]:
        # A bug report must not depend on packages that are not part of the bug.
        from fastcv.cli.info import info_lines

        print("\n".join(info_lines()))
    else:
        needs = f"{', '.join(missing)}: pip install {' '.join(missing)}"
        print(f"fastcv: the command line needs {needs}", file=sys.stderr)
        sys.exit(2)


def flush() -> None:
    """Flush the standard output. A reader that has closed its end, such as ``head``, is not an error."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would flush again, and complain
        if not isinstance(error, BrokenPipeError):
            print(f"fastcv: cannot write to the standard output: {error.strerror}", file=sys.stderr)
            sys.exit(2)
