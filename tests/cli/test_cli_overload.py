"""Figures of an overload, by hand. Knows: histograms and reports that are written down. Does not know: HTTP."""

from __future__ import annotations

import os
from math import inf

import pytest
from typer.testing import CliRunner

from quire.cli.bench.overload_load import OverloadLoad, full_rate, prediction_errors, resident_bytes, verdict
from quire.cli.main import app
from quire.errors import InvalidSetting, StartError

FAMILY = "step_prediction_error_ratio"


def metrics(*counts: int) -> str:
    edges = ("0.1", "0.2", "0.5", "+Inf")
    return "\n".join(f'quire_{FAMILY}_bucket{{le="{e}"}} {n}.0' for e, n in zip(edges, counts, strict=True))


def test_errors_are_those_of_the_time_between() -> None:
    found = prediction_errors(FAMILY, metrics(100, 100, 100, 100), metrics(150, 190, 200, 200))
    assert found == {"p50": pytest.approx(0.1), "p90": pytest.approx(0.2), "p99": pytest.approx(0.47)}
    assert prediction_errors(FAMILY, "", metrics(0, 0, 0, 10)) == {"p50": 0.5, "p90": 0.5, "p99": 0.5}
    assert prediction_errors(FAMILY, metrics(1, 1, 1, 1), metrics(1, 1, 1, 1)) is None
    assert prediction_errors(FAMILY, "", "") is None


def test_goodput_counts_for_the_time_in_which_was_asked() -> None:
    figures = {
        "requests": 800, "offered_requests_per_s": 8.0, "goodput_requests_per_s": 1.9, "seconds": 102.0,
        "ttft_s": {"p99": 1.9},
    }  # fmt: skip
    assert verdict(figures, 2.0, 2.0) == {"goodput_share": pytest.approx(1.9 * 102 / 100 / 2), "met": True}
    assert verdict(figures, 2.0, 1.8)["met"] is False
    assert verdict(figures | {"ttft_s": None}, 0.0, 1.8) == {"goodput_share": None, "met": None}


def test_a_server_that_fills_up_is_not_measured() -> None:
    """Two begin a second, each for 30 s: sixty are under way from 30 s on."""
    slow = [(0.5 * number, 30 + 0.5 * number if number < 140 else inf) for number in range(200)]
    assert full_rate(slow, 100.0) == pytest.approx(2.0, rel=0.06)  # 54 are nearly 60
    quick = [(0.1 * number, 1.0 + 0.1 * number) for number in range(1000)]
    assert full_rate(quick, 40.0) == pytest.approx(10.0, rel=0.01)  # a quarter of the time is left out at least
    for few in ([], slow, [(1.0, 2.0)] * 30):
        with pytest.raises(StartError, match="not full for long enough"):
            full_rate(few, 32.0)


def test_memory_of_a_process() -> None:
    assert resident_bytes(os.getpid()) > 2**20
    assert resident_bytes(2**30) == 0


def test_a_load_that_cannot_be_meant_is_refused() -> None:
    for bad in (OverloadLoad(0.0), OverloadLoad(1.0, deadline_ms=0.0), OverloadLoad(1.0, times=float("inf"))):
        with pytest.raises(InvalidSetting):
            bad.check()
    shown = CliRunner().invoke(app, ["bench", "overload", "--rate", "-1"])
    assert shown.exit_code != 0
    assert "--rate is out of range" in shown.output
