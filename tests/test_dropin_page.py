"""The page of names of other packages is up to date, and its lists are those of the packages."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dropin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dropin", ROOT / "docs" / "dropin.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dropin"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(dropin: ModuleType) -> None:
    assert (ROOT / "docs" / "drop-in.md").read_text() == dropin.page(), "run python docs/dropin.py"


def test_tables_name_what_they_list(dropin: ModuleType) -> None:
    for peer in dropin.PEERS:
        names = peer.names.split()
        assert len(set(names)) == len(names)
        for table in (peer.others, peer.notes, peer.reasons):
            assert set(table) <= set(names), peer.title


@pytest.mark.parametrize("package", ["torchvision.ops", "spconv.pytorch", "mmcv.ops", "detectron2.layers"])
def test_lists_are_complete(dropin: ModuleType, package: str) -> None:
    """Where the package is installed."""
    peer = next(peer for peer in dropin.PEERS if peer.title == package)
    try:
        module = importlib.import_module(package)
    except (ImportError, RuntimeError, AssertionError) as error:
        pytest.skip(f"{package} does not load here: {error}")
    exported = getattr(module, "__all__", None)
    names = [name for name in peer.names.split() if exported is None or name in exported]
    assert not [name for name in exported or () if name not in peer.names.split()]
    assert [name for name in names if hasattr(module, name)]


def test_a_detector_of_torchvision_is_found_by_its_name(dropin: ModuleType) -> None:
    assert dropin.row(dropin.TORCHVISION, "RoIAlign")[1] == "`fastcv.ops.RoIAlign`"
    assert dropin.row(dropin.MMCV, "bbox_overlaps")[1:] == ("`fastcv.ops.box_iou`", "another name")
    assert dropin.row(dropin.DETECTRON2, "Linear")[1] == "–"
