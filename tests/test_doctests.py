"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

import fastcv

for name in ("matplotlib", "PIL", "pycocotools", "safetensors", "typer", "yaml"):
    pytest.importorskip(name)

FINDER = doctest.DocTestFinder(exclude_empty=True)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples() -> list[doctest.DocTest]:
    """All docstrings with examples, of the modules that import without other packages."""
    found = []
    for info in pkgutil.walk_packages(fastcv.__path__, "fastcv."):
        if info.name.rpartition(".")[2].startswith("_C") or info.name == "fastcv.__main__":
            continue
        module = importlib.import_module(info.name)
        for test in FINDER.find(module, info.name, extraglobs={"torch": torch, "fastcv": fastcv}):
            if test.examples:
                found.append(test)
    return found


EXAMPLES = examples()


def test_docstrings_have_examples() -> None:
    assert len(EXAMPLES) >= 80


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    results = doctest.DocTestRunner(optionflags=FLAGS).run(example)
    assert not results.failed, capsys.readouterr().out
