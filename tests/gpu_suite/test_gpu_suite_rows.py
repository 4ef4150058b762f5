"""Rows, verdicts, files and options of `make gpu`; what it says where it cannot run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import __main__ as suite
from benchmarks.gpu import machine
from benchmarks.gpu.rows import Row, Writer, document, merged, read_rows, table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("got", "target", "most", "verdict"),
    [
        (0.85, 0.85, False, "met"), (0.84, 0.85, False, "MISSED"), (0.03, 0.03, True, "met"),
        (0.031, 0.03, True, "MISSED"), (5.0, None, False, "told"), (None, 1.0, False, "skipped"),
        (math.nan, 1.0, False, "MISSED"), (math.nan, 1.0, True, "MISSED"),
    ],
)  # fmt: skip
def test_verdicts(got: float | None, target: float | None, most: bool, verdict: str) -> None:
    assert Row("part", "name", got, "x", target, most).verdict == verdict


def test_what_failed_is_missed_though_it_has_no_figure() -> None:
    assert Row("part", "part", failed=True, why="it died").verdict == "MISSED"


def test_rows_are_in_the_file_at_once_and_a_line_cut_off_is_left_out(tmp_path: Path) -> None:
    path, said = tmp_path / "rows", []
    rows = Writer("roof", path, said.append, True)
    rows.add("read", 4300.0, "GB/s", 4000.0)
    assert [row.verdict for row in read_rows(path)] == ["met"]
    rows.check("ops", 2, 10, "linear")
    rows.skip("fp8", "there is none")
    rows.fail("mm", "it broke")
    with path.open("a") as file:
        file.write('{"part": "ro')
    assert [row.verdict for row in read_rows(path)] == ["met", "MISSED", "skipped", "MISSED"]
    assert len(said) == 4
    told = table(read_rows(path))
    assert "at least 4000" in told
    assert "skipped: there is none" in told


def test_targets_do_not_count_where_nothing_is_judged_but_comparisons_do() -> None:
    rows = Writer("decode", None, lambda text: None, False)
    rows.add("share", 0.01, "", 0.85)
    rows.check("tokens", 1, 3)
    assert [row.verdict for row in rows.rows] == ["told", "MISSED"]


def test_parts_of_an_earlier_run_stay_on_the_same_machine_alone() -> None:
    where, old = {"device": "H200", "commit": "a"}, [Row("roof", "read", 1.0), Row("ops", "rows", 0.0)]
    before = document(where, old)
    assert merged(before, where, [Row("ops", "rows", 5.0)]) == [Row("roof", "read", 1.0), Row("ops", "rows", 5.0)]
    assert merged(before, {**where, "commit": "b"}, [Row("ops", "rows", 5.0)]) == [Row("ops", "rows", 5.0)]
    assert merged(None, where, old) == old


def test_parts_and_groups_in_their_order() -> None:
    assert suite.chosen(["roof", "correctness"]) == ["ops", "draws", "models", "kernels", "roof"]
    assert suite.chosen([]) == list(suite.PARTS)
    with pytest.raises(machine.NotReady, match="no part spead"):
        suite.chosen(["spead"])


def test_a_part_that_dies_leaves_its_rows_and_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        path = Path(command[command.index("--rows") + 1])
        Writer("roof", path, lambda text: None, True).add("read", 3.0)
        return subprocess.CompletedProcess(command, -11)

    monkeypatch.setattr(suite.subprocess, "run", die)
    rows = suite.run_part("roof", suite.parse(["roof"]), tmp_path)
    assert [(row.got, row.verdict) for row in rows] == [(3.0, "told"), (None, "MISSED")]
    assert "ended with -11" in rows[-1].why

    def hang(command: list[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(suite.subprocess, "run", hang)
    assert "more than 530 s" in suite.run_part("ops", suite.parse(["ops"]), tmp_path)[-1].why


def test_results_are_kept_part_by_part(tmp_path: Path) -> None:
    options = suite.parse(["--json", str(tmp_path / "told.json")])
    where = {"device": "NVIDIA H200", "commit": "a"}
    path = suite.file_of(where, options)
    suite.keep(path, where, [Row("roof", "read", 1.0)])
    suite.keep(path, where, [Row("ops", "rows", 0.0, "wrong of 3", 0.0, True)])
    told = json.loads(path.read_text())
    assert [(row["part"], row["verdict"]) for row in told["rows"]] == [("ops", "met"), ("roof", "told")]
    assert suite.file_of(where, suite.parse([])).name.endswith("-nvidia-h200.json")


def test_without_a_gpu_it_says_what_is_missing_at_once() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    if not machine.missing("cuda"):
        pytest.skip("this machine has a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "roof"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Missing" in done.stderr
    assert "GPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    assert ["torch" in text for text in machine.missing("cuda")] == [True, False, False]
    assert len(machine.missing("torch:cpu")) == 2


def test_lengths_are_those_of_the_histogram_and_the_same_every_time() -> None:
    pytest.importorskip("torch")
    from benchmarks.gpu.throughput import lengths

    drawn = np.array(lengths(1000))
    assert drawn.mean(axis=0) == pytest.approx([215, 198], abs=1)
    assert lengths(50, 1) == lengths(50, 1) != lengths(50, 2)
    assert max(prompt + answer for prompt, answer in lengths(2000)) <= 2048


def test_overlapping_and_nested_intervals_count_once() -> None:
    pytest.importorskip("torch")
    from benchmarks.gpu.decode import busy_seconds

    assert busy_seconds([(3.0, 4.0), (0.0, 2.0), (1.0, 1.5), (1.5, 2.5)]) == pytest.approx(3.5)
    assert busy_seconds([]) == 0.0


def test_a_prompt_s_operations_are_counted_as_by_hand() -> None:
    pytest.importorskip("torch")
    from benchmarks.gpu.shapes import LLAMA_8B, spec_of
    from benchmarks.gpu.throughput import prefill_ops

    spec = spec_of(LLAMA_8B)
    assert spec.num_parameters == pytest.approx(8.03e9, rel=0.001)
    layers = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336)
    assert prefill_ops(spec, 1) == 2 * layers + 2 * 128256 * 4096 + 4 * 4096 * 32
