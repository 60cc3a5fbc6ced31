"""A short form of tests/fuzz.py with fixed seeds. A longer one: pytest tests/test_fuzz.py --fuzz-calls 100000."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

MOST_REFERENCES = 25  # functions whose reference takes the arguments of the samples
SCRIPT = Path(__file__).with_name("fuzz.py")


def test_random_calls(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Right values or readable errors, in a process of its own, which must not die."""
    calls = request.config.getoption("--fuzz-calls")
    log = tmp_path / "call"
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--calls", str(calls), "--log", str(log)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode in (0, 1), (
        f"died with {result.returncode} in: --only {log.read_text()}{result.stderr[-2000:]}"
    )
    assert result.returncode == 0, result.stdout[-5000:]
    compared = re.search(r"(\d+) of \d+ functions compared", result.stdout)
    assert compared is not None
    assert int(compared[1]) >= MOST_REFERENCES, result.stdout[-500:]
