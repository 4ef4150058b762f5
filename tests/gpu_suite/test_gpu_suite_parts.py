"""Every part of `make gpu`, end to end, at a size for a CPU, on a machine as bare as the one that has the GPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks.gpu import kernels  # noqa: E402
from benchmarks.gpu.context import Context  # noqa: E402
from benchmarks.gpu.one import PARTS  # noqa: E402
from benchmarks.gpu.rows import Row, Writer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {
    "ops": {"met"}, "draws": {"met"}, "models": {"met"}, "kernels": {"skipped"}, "roof": {"told", "skipped"},
    "attention": {"told", "skipped"}, "decode": {"told"}, "throughput": {"told"}, "start": {"told"},
    "baseline": {"skipped"},
}  # fmt: skip


def run(python: str, bare: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "benchmarks.gpu", "--device", "torch:cpu", "--tiny", *arguments]
    return subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_on_a_bare_machine(part: str, python: str, bare: dict[str, str], tmp_path: Path) -> None:
    done = run(python, bare, part, "--json", str(tmp_path / "told.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["rows"]
    assert {row["part"] for row in told["rows"]} == {part}
    assert {row["verdict"] for row in told["rows"]} == EXPECTED[part], done.stdout
    assert told["machine"]["versions"]["torch"]
    assert "verdict" in done.stdout, "a table comes last"


def test_transformers_stands_beside(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    import logging

    from benchmarks.gpu import baseline

    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    rows = Writer("baseline", None, print, False)
    baseline.run(Context("torch:cpu", True, 0.01, rows))
    assert [row.verdict for row in rows.rows] == ["told"], capsys.readouterr().out
    assert (rows.rows[0].got or 0) > 0


def test_a_kernel_that_cannot_be_launched_is_named_and_hides_no_other() -> None:
    launched = []

    def broken() -> None:
        raise ValueError("no such tile")

    rows = Writer("kernels", None, print, True)
    steps = [("one", lambda: launched.append(1)), ("two", broken), ("three", lambda: launched.append(3))]
    kernels.launch_all(Context("torch:cpu", True, 0.01, rows), steps)
    assert launched == [1, 3]
    first: Row = rows.rows[0]
    assert (first.verdict, first.got, first.unit) == ("MISSED", 1.0, "wrong of 3")
    assert "two: ValueError: no such tile" in first.why
