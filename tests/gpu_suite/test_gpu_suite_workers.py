"""Comparisons spread over processes, and what becomes of one that dies."""

from __future__ import annotations

from benchmarks.gpu import workers
from benchmarks.gpu.context import Context
from benchmarks.gpu.rows import Writer
from tests.gpu_suite.tasks import compare


def test_each_has_a_process_and_one_that_dies_harms_no_other() -> None:
    rows = Writer("ops", None, lambda text: None, True)
    found = workers.spread(Context("cuda", True, 0.0, rows), compare, [(0, 5), (2, 2), (1, 7)])
    workers.together(rows, "all", found)
    assert [len(each) for each in found] == [1, 1, 1]
    assert (rows.rows[0].got, rows.rows[0].unit, rows.rows[0].verdict) == (2.0, "wrong of 13", "MISSED")
    assert rows.rows[0].why == "the process of these comparisons died; one of them"


def test_on_a_cpu_there_is_one_process() -> None:
    rows = Writer("ops", None, lambda text: None, True)
    found = workers.spread(Context("torch:cpu", True, 0.0, rows), compare, [(0, 5), (0, 8)])
    workers.together(rows, "all", found)
    assert rows.rows[0].verdict == "met"
    assert rows.rows[0].unit == "wrong of 13"
