"""The pages: every public name is on one, every block of code runs, every command exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("PIL")
pytest.importorskip("pycocotools")
pytest.importorskip("safetensors")
pytest.importorskip("typer")
pytest.importorskip("yaml")

import fastcv
from fastcv.cli.app import COMMANDS, load
from fastcv.data import synthetic_scenes
from fastcv.data.images import save_picture
from fastcv.models import create_model, save_model
from fastcv.models.detection import maskrcnn_resnet50_fpn
from fastcv.models.yolo import yolov3_tiny

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "docs" / "reference.py").is_file():
    pytest.skip("the pages are not part of an installed package", allow_module_level=True)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = {"adding-an-op.md"}  # its blocks are parts of files
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(path.read_text()) if name == language]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_a_page(reference: ModuleType) -> None:
    for page in reference.PAGES.values():
        names, public = reference.page_names(page), importlib.import_module(page.module).__all__
        assert len(set(names)) == len(names), page.module
        modules = {"nn", "ops", "sparse", "__version__"} if page.module == "fastcv" else set()
        expected = set(public) - modules
        unnamed, gone = sorted(expected - set(names)), sorted(set(names) - expected)
        assert not unnamed, f"in {page.module}.__all__, and on no page of docs/reference.py: {', '.join(unnamed)}"
        assert not gone, f"on a page of docs/reference.py, and not in {page.module}.__all__: {', '.join(gone)}"


def test_every_public_package_has_a_page(reference: ModuleType) -> None:
    documented = {page.module for page in reference.PAGES.values()}
    packages = {path.parent.name for path in Path(fastcv.ops.__file__).parents[1].glob("*/__init__.py")}
    assert {f"fastcv.{name}" for name in packages - {"cli", "weights"}} <= documented


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages speak of: a photo, weights, Darknet's weights, torchvision's checkpoints."""
    monkeypatch.chdir(tmp_path)
    image, _ = synthetic_scenes(1, 96)[0]
    save_picture(fastcv.data.images.as_picture(image), tmp_path / "photo.jpg")
    save_model(create_model("yolov2_tiny", names=["square", "circle"], size=64), tmp_path / "best.safetensors")
    yolov3_tiny().network.save_weights(tmp_path / "yolov3-tiny.weights")
    return tmp_path


def save_checkpoints(text: str, folder: Path) -> None:
    """Write torchvision's checkpoints that a page loads, with random weights."""
    for file in set(re.findall(r'"((?:maskrcnn|resnet)[\w.-]+\.pth)"', text)):
        model = maskrcnn_resnet50_fpn()
        part = model if file.startswith("maskrcnn") else model.backbone.body
        torch.save(part.state_dict(), folder / file)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.stem)
def test_code_runs(page: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page run one after the other, in one namespace."""
    if page.name in SNIPPETS:
        pytest.skip("its blocks are parts of files")
    if "torchvision" in page.read_text():
        pytest.importorskip("torchvision")
    if "fastcv.onnx" in page.read_text():
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    save_checkpoints(page.read_text(), files)
    scope: dict[str, Any] = {"__name__": "page"}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), scope)


def commands(page: Path) -> list[list[str]]:
    """The words of every command of a page; several may stand on one line."""
    lines = [line for text in blocks(page, "sh") for line in text.splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while "&&" in words:
            found.append(words[: words.index("&&")])
            words = words[words.index("&&") + 1 :]
        if words:
            found.append(words)
    return found


ALL_COMMANDS = [pytest.param(w, id=f"{page.stem}: {shlex.join(w)}") for page in PAGES for w in commands(page)]


@pytest.mark.parametrize("words", ALL_COMMANDS)
def test_a_command_exists(words: list[str]) -> None:
    program, *rest = [word for word in words if not re.fullmatch(r"[A-Z_]+=\w+", word)]
    if program == "fastcv":
        check_fastcv(rest)
    elif program == "pip":
        tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(rest)):
            assert set(extras.split(",")) <= set(known)
    elif program in ("python", "bash"):
        target = rest[1].replace(".", "/") + ".py" if rest[0] == "-m" else rest[0]
        assert (ROOT / target).is_file(), target
    else:
        assert program in {"pytest", "ruff", "mypy", "clang-format", "git", "cd", "make", "codespell", "pre-commit"}


def test_nothing_installs_the_fastcv_of_pypi() -> None:
    """It is another package: pages and messages name a checkout, or what is missing."""
    sources = Path(fastcv.ops.__file__).parents[1].rglob("*.py")
    texts = {path: path.read_text() for path in sources}
    texts |= {path: "\n".join(blocks(path, "sh")) for path in PAGES}
    assert len(texts) > 100
    named = [str(path) for path, text in texts.items() if re.search(r"pip install [^.\n]*\bfastcv\b", text)]
    assert not named


def check_fastcv(words: list[str]) -> None:
    """Subcommand and options are there."""
    if words == ["--version"] or words == ["--help"]:
        return
    assert words[0] in COMMANDS
    known = {option for parameter in load(words[0]).params for option in getattr(parameter, "opts", ())}
    options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    assert options <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    made = {"api", "gallery", "generated"}  # by the build, which checks them
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
        if "://" in target or target.split("/")[0] in made or "." not in target:
            continue
        assert (page.parent / target).exists(), target
