"""A process that was started without stdin, stdout or stderr has them before it opens anything else."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import os
from quire.cli.standard_streams import open_missing
num = open_missing()
free = os.open("/dev/null", os.O_RDONLY)
os._exit(num * 10 + (free > 2))
"""


@pytest.mark.parametrize(("closed", "num"), [("", 0), ("<&-", 1), ("2>&-", 1), ("<&- >&- 2>&-", 3)])
def test_missing_ones_are_opened(closed: str, num: int) -> None:
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, LOOK]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == num * 10 + 1
