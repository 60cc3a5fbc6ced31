"""``python -m fastcv`` is the ``fastcv`` command."""

from fastcv.cli import main

if __name__ == "__main__":
    main()
