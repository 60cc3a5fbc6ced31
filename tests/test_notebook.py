"""The notebook in ``examples/``: it has no outputs, and its cells run in order and find what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

matplotlib = pytest.importorskip("matplotlib")
pyplot = pytest.importorskip("matplotlib.pyplot")
pytest.importorskip("safetensors")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "voxelize.ipynb"
if not NOTEBOOK.is_file():
    pytest.skip("the examples are not part of an installed package", allow_module_level=True)


@pytest.fixture
def without_screen() -> Any:
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    pyplot.close("all")  # what other tests have left
    yield
    pyplot.close("all")
    matplotlib.use(before)


@pytest.mark.usefixtures("without_screen")
def test_the_notebook_runs() -> None:
    from matplotlib import pyplot as plt

    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["answer"] == names["shape"]
    assert (names["by_hand"] == names["ids"]).all()
    assert names["occupied"] == int((names["counts"] > 0).sum())
    shares = list(names["shares"].values())
    assert shares == sorted(shares, reverse=True)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    assert len(figures) == 2
    for figure in figures:
        figure.canvas.draw()
    assert NOTEBOOK.stat().st_size < 20_000
