"""How Sphinx builds the pages: ``make -C docs html``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # for bench: its reports
sys.path.insert(0, str(HERE))

import gallery
import performance
import reference

import fastcv

project, author = "fastcv", "fastcv developers"
copyright = "2026, fastcv developers"
version = release = fastcv.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated"]
templates_path: list[str] = []

html_theme = "furo"
html_title = f"fastcv {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False

nitpicky = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "none"  # types stand in the docstrings, with the shapes
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp, .go"

sphinx_gallery_conf = {
    "examples_dirs": [str(gallery.COPIES)],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "reset_argv": gallery.arguments,
    "image_scrapers": (gallery.pictures,),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
}
suppress_warnings = ["config.cache", "myst.header"]

gallery.prepare()
reference.write(HERE / "api")
performance.write(HERE)
