"""Where nothing is built and little is installed the torch path imports; the CPU's kernels say what is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import quire.engine.build, quire.ops.program, quire.ops.roof, quire.sampling.sampler
from quire.errors import InvalidSetting
from quire.ops.open_device import open_device
try:
    open_device("cpu", 1)
except InvalidSetting as problem:
    print(problem)
"""


def test_the_cpu_s_kernels_are_asked_for_and_missing(python: str, bare: dict[str, str]) -> None:
    done = subprocess.run([python, "-c", ASK], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kernels are not built here" in done.stdout
    assert "make install" in done.stdout


def test_the_bare_machine_is_really_bare(python: str, bare: dict[str, str]) -> None:
    for name in ("msgspec", "pydantic", "quire.kernels.cpu._cpu"):
        command = [python, "-c", f"import {name}"]
        done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
        assert "ModuleNotFoundError" in done.stderr, name


def test_a_torch_device_opens_without_them(python: str, bare: dict[str, str]) -> None:
    pytest.importorskip("torch")
    ask = "from quire.ops.open_device import open_device; print(open_device('torch:cpu', 1).explain()[0][0])"
    done = subprocess.run([python, "-c", ask], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "linear", done.stderr
