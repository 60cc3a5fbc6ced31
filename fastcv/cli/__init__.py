"""The ``fastcv`` command.

One module per subcommand; each is added in :mod:`fastcv.cli.app`. What it needs beyond torch is installed by the
extra ``demo``, so nothing of that is imported here.
"""

import sys
from importlib.util import find_spec

NEEDED = {"typer": "typer", "rich": "rich", "PIL": "pillow", "matplotlib": "matplotlib"}


def main() -> None:
    """Run the command line."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if not missing:
        from fastcv.cli.app import app

        app(prog_name="fastcv")
    elif sys.argv[1:] == ["info"]:
        # A bug report should not fail for want of a package that has nothing to do with the bug.
        from fastcv.cli.info import info_lines

        print("\n".join(info_lines()))
    else:
        sys.exit(f"fastcv: the command line needs {', '.join(missing)}: pip install 'fastcv[demo]'")
