"""What is imported when: ``import fastcv`` brings the operators, and commands that need no torch do without."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastcv

pytest.importorskip("typer")

from fastcv.cli.app import COMMANDS

PACKAGE = Path(fastcv.ops.__file__).parents[1]


def python(code: str, *path: Path) -> str:
    """What a new Python prints that runs the code, with these folders and the package's on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, PACKAGE.parent]))}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def command(*words: str) -> str:
    """Code that runs ``fastcv`` with these words, and says whether it imported torch."""
    return f"""
import sys
sys.argv = ["/bin/fastcv", *{words!r}]
from fastcv.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the metadata of an installed fastcv 9.8.7."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "fastcv-9.8.7.dist-info").mkdir()
    (folder / "fastcv-9.8.7.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fastcv\nVersion: 9.8.7\n")
    return folder


def test_the_version_needs_no_torch(metadata: Path) -> None:
    assert python(command("--version"), metadata).split() == ["fastcv", "9.8.7", "False"]
    assert python("import fastcv; print(fastcv.__version__)", metadata).split() == ["9.8.7"]


@pytest.mark.parametrize("wanted", [True, False])
def test_garbage_is_collected_after_the_import_as_before(wanted: bool) -> None:
    """And not during it: one look through all of torch's objects took as long as the rest of the import."""
    code = f"""
import gc, torch
collections = []
gc.callbacks.append(lambda phase, details: collections.append(phase))
if not {wanted}:
    gc.disable()
collections.clear()
import fastcv.ops
print(gc.isenabled(), len(collections) < 5)
"""
    assert python(code).split() == [str(wanted), "True"]


def test_the_list_of_commands_needs_no_torch() -> None:
    printed = python(command("--help"))
    assert printed.endswith("False\n")
    assert [name for name, entry in COMMANDS.items() if entry.hidden == (f" {name} " in printed)] == []


def test_completion_needs_no_torch_for_names_and_loads_a_command_for_its_options() -> None:
    def complete(words: str, position: int) -> str:
        shell = {"_FASTCV_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        return python(f"import os; os.environ.update({shell!r})\n" + command())

    assert complete("fastcv v", 1).split() == ["val", "voxelize", "False"]
    assert {"--weights", "--data-option"} <= set(complete("fastcv val --", 2).split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_list_entry_says_what_the_command_says(name: str) -> None:
    module = ast.parse((PACKAGE / "cli" / f"{name}.py").read_text())
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)
    assert (ast.get_docstring(function) or "").split("\n\n")[0].replace("\n", " ") == COMMANDS[name].help


def test_import_brings_the_operators_and_nothing_else() -> None:
    unneeded = ["fastcv.nn", "fastcv.sparse", "fastcv.models", "fastcv.data", "PIL", "matplotlib", "typer", "rich"]
    code = f"""
import sys
import torch
before = set(sys.modules)
import fastcv
print(torch.ops.fastcv.nms.default.name())
print([name for name in {unneeded!r} if name in set(sys.modules) - before])
"""
    assert python(code) == "fastcv::nms\n[]\n"


def test_every_name_is_found() -> None:
    names = sorted(fastcv.__all__)
    code = f"import fastcv\nfor name in {names!r}: getattr(fastcv, name); assert name in dir(fastcv)\n"
    code += "import fastcv.fusion\nprint(callable(fastcv.optimize), fastcv.nn.Conv2d.__name__)\n"
    assert python(code) == "True Conv2d\n"
    with pytest.raises(AttributeError, match="module 'fastcv' has no attribute 'nothing'"):
        fastcv.nothing  # noqa: B018
