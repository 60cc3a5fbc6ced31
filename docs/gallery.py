"""Prepares ``examples/`` for sphinx-gallery, and finds the pictures that they draw.

An example begins with a docstring: what it does, and lines that say how it is run. Sphinx wants a title before that,
and the lines as a block. The scripts stay free of both: copies of them get them, under ``generated/examples``.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
COPIES = HERE / "generated" / "examples"
WORDS = {"rcnn": "R-CNN", "unet": "U-Net", "lidar": "LiDAR", "yolo": "YOLO", "roi": "RoI", "mask": "Mask"}
STORED = {"predict_yolo": "pictures/predict.jpg"}  # of examples that draw nothing without files from elsewhere
FULL = bool(os.environ.get("FASTCV_GALLERY_FULL"))  # otherwise examples run in their short form


def title_of(name: str) -> str:
    """A title made of a file's name."""
    words = [WORDS.get(word, word) for word in name.split("_")]
    return words[0][:1].upper() + " ".join(words)[1:]


def prepare() -> None:
    """Write the copies."""
    COPIES.mkdir(parents=True, exist_ok=True)
    (COPIES / "README.rst").write_text(
        "Gallery\n=======\n\nScripts of at most 80 lines, from start to end, in ``examples/`` of a checkout. "
        + ("" if FULL else "The pictures here come from their short forms, in which networks are hardly trained.")
        + "\n"
    )
    for path in sorted(EXAMPLES.glob("*.py")):
        source = path.read_text()
        doc = ast.get_docstring(ast.parse(source), clean=False)
        assert doc is not None, path
        about, usage = doc.split("\n\n", 1)
        commands = "\n".join(f"    {line}" for line in usage.strip().splitlines())
        title = title_of(path.stem)
        made = f"{title}\n{'=' * len(title)}\n\n{about}\n\n.. code-block:: sh\n\n{commands}\n"
        thumbnail = ""
        if stored := STORED.get(path.stem):
            made += f"\n.. image:: /{stored}\n   :alt: What it has drawn\n"
            thumbnail = f"\n# sphinx_gallery_thumbnail_path = '{stored}'\n"
        text = re.sub(r'^"""', 'r"""', source, count=1).replace(doc, made, 1) + thumbnail
        copy = COPIES / path.name
        if not copy.is_file() or copy.read_text() != text:  # what is unchanged is not run again
            copy.write_text(text)


def arguments(gallery: Any, variables: dict[str, Any]) -> list[str]:
    """The arguments of an example."""
    return [] if FULL else ["--short"]


def pictures(block: Any, variables: dict[str, Any], gallery: Any) -> str:
    """Take the pictures that an example has drawn in its folder, for its page."""
    from sphinx_gallery.scrapers import figure_rst

    taken = []
    for drawn in sorted(COPIES.rglob("*.png")):
        place = next(variables["image_path_iterator"])
        shutil.move(drawn, place)
        taken.append(place)
    shutil.rmtree(COPIES / "runs", ignore_errors=True)
    return str(figure_rst(taken, gallery["src_dir"]))
