"""Rule A: a server started inside a hostile folder runs nothing of it. Knows: processes. Does not know: engines."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import quire
from quire.cli.resolve import BUNDLED
from quire.engine.children import command
from quire.engine.process import spawn
from quire.hardware import Hardware
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.settings import EngineSettings

HOME = Path(quire.__file__).resolve().parents[1]
NAMES = ("numpy", "json", "msgspec", "quire", "llguidance", "tokenizers", "re", "typing", "runpy", "sitecustomize")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, full of modules by the names of those that are imported; what they would leave behind."""
    canary, folder = tmp_path / "canary", tmp_path / "model"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"import os\nos.makedirs({str(canary)!r}, exist_ok=True)\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", "")
    return canary


def test_the_way_python_does_it_would_run_them(hostile: Path) -> None:
    """What this is about: the folder that one stands in comes first."""
    subprocess.run([sys.executable, "-m", "json.tool", "--help"], capture_output=True, check=False, timeout=60)
    assert hostile.exists()


def test_a_child_of_ours_does_not(hostile: Path) -> None:
    asked = command("quire.engine.grammar_child", ())
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert "quire" in done.stderr, "it was started, and lacked its descriptors"
    assert not hostile.exists()


def test_an_engine_starts_there_and_serves(hostile: Path) -> None:
    if not (BUNDLED / "config.json").is_file():
        pytest.skip("the bundled model is not built")
    settings = EngineSettings(max_model_len=128, max_num_seqs=2, max_num_batched_tokens=64, threads=1)
    small = plan(settings, Hardware("test", 1, 8 * 2**30, 8 * 2**30), read_model_spec(BUNDLED), "bundled")

    async def serve() -> None:
        client = spawn(small, BUNDLED)
        await client.start()
        assert client.is_ready
        await client.close()

    asyncio.run(serve())
    assert not hostile.exists()


def test_a_child_finds_the_same_quire_as_its_parent(tmp_path: Path) -> None:
    (tmp_path / "tell.py").write_text(
        "import sys, quire; print(quire.__file__, sys.argv, __name__, sys.flags.safe_path)"
    )
    done = subprocess.run(
        command("tell", ("a", 1)), capture_output=True, text=True, timeout=60, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == quire.__file__
    assert "'a', '1']" in done.stdout
    assert "__main__ True" in done.stdout
