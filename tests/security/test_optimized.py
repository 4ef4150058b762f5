"""Rule B: under `python -O` the same requests are refused. `make optimized` runs all of the server's tests so.

Knows: how pytest is run by another interpreter. Does not know: what is refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-O", "-m", "pytest", "-W", "ignore::pytest.PytestConfigWarning", "-p", "no:cacheprovider"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*PYTEST, "-q", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_what_is_refused_is_refused_without_asserts() -> None:
    done = run("tests/server/test_hostile_numbers.py", "tests/server/test_refusals.py", "tests/text/test_stops.py")
    assert done.returncode == 0, done.stdout[-3000:]


def test_tests_still_fail_without_asserts(tmp_path: Path) -> None:
    """Else the one above would say nothing."""
    wrong = tmp_path / "test_wrong.py"
    wrong.write_text("def test_wrong():\n    assert __debug__\n")
    done = run(str(wrong), "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path))
    assert done.returncode == 1, done.stdout[-3000:]
    assert "1 failed" in done.stdout
