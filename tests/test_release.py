"""What a release says of itself: one version, one set of pinned tools."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import fastcv

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("the project's files are not part of an installed package", allow_module_level=True)


def project() -> dict[str, Any]:
    """The table [project] of pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    read: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return read


def test_the_version_is_that_of_pyproject() -> None:
    try:
        installed = version("fastcv")
    except PackageNotFoundError:  # a module built beside its sources
        installed = fastcv.ops.build_info()["version"]
        assert fastcv.__version__ == installed
        return
    assert fastcv.__version__ == installed == fastcv.ops.build_info()["version"] == project()["version"]


def test_other_files_know_the_version() -> None:
    number = project()["version"]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == number  # type: ignore[index]
    assert f"\nversion: {number}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_source_distribution_is_whole() -> None:
    """Pages show pictures of bench/results, tests and pages name the scripts of .ci: those who package it get them."""
    text = (ROOT / "pyproject.toml").read_text()
    assert "sdist.exclude" not in text
    assert "sdist.include" not in text  # all that git tracks is taken


def test_pre_commit_and_ci_have_the_same_tools() -> None:
    pinned = dict(line.split("==") for line in project()["optional-dependencies"]["lint"])
    assert set(pinned) == {"ruff", "mypy", "clang-format", "codespell"}
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    found = dict(re.findall(r"repo: \S+/(\S+)\n +rev: v(\S+)", text))
    names = {"ruff-pre-commit": "ruff", "mirrors-clang-format": "clang-format", "codespell": "codespell"}
    assert {names[name]: number for name, number in found.items()} == {k: v for k, v in pinned.items() if k != "mypy"}


def test_arm_tests_every_operator() -> None:
    """The words by which .ci/arm chooses tests choose some of every file of tests/ops that runs on backends."""
    script = (ROOT / ".ci/arm").read_text()
    chosen, left_out = (
        " or ".join(re.findall(rf'^{name}="(?:\${name} or )?(.*)"$', script, re.MULTILINE)).split(" or ")
        for name in ("words", "slow")
    )
    for file in sorted((ROOT / "tests/ops").glob("test_*.py")):
        tests = re.findall(r"^def (test_\w+)\([^)]*backend", file.read_text(), re.MULTILINE)
        found = [name for name in tests if any(word in f"{file.name} {name}" for word in chosen)]
        assert not tests or any(not any(word in name for word in left_out) for name in found), file.name
