"""`quire bench sim-check` from the command line. Knows: small work. Does not know: how fast anything is."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quire.cli.bench.sim_check_report import ALLOWED, errors, load_object, table
from quire.cli.bench.sim_check_run import CROWDS, Asked, Real, _simulated, in_turns, pace_of
from quire.cli.main import app
from quire.cli.resolve import BUNDLED
from quire.errors import InvalidSetting
from quire.scheduling.cost import Coefficients, StepShape
from quire.scheduling.limits import SchedulerLimits
from quire.sim.device import ModelledDevice
from quire.sim.law import read_law
from quire.sim.replay import Served
from quire.sim.trace import Arrival

needs_model = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = "".join(f"{number / 10},{20 + number % 37},{4 + number % 7}\n" for number in range(400))
    path.write_text("Timestamp,Request tokens,Response tokens\n" + rows)
    return path


@needs_model
def test_the_same_requests_are_served_and_simulated(trace: Path, tmp_path: Path) -> None:
    record, law = tmp_path / "record.json", tmp_path / "law.json"
    result = CliRunner().invoke(
        app,
        ["bench", "sim-check", "--trace", str(trace), "--seconds", "0.2", "--calibrate-seconds", "0.05", "--loads",
         "0.5,2", "--turns", "2", "--json",
         "--record", str(record), "--law", str(law), "--kv-cache-memory-bytes", "50000000"],
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [load["load"] for load in found["loads"]] == [0.5, 2.0]
    for load in found["loads"]:
        real, simulated = load["real"], load["simulated"]
        # The same tokens were asked for, so rates differ as durations do.
        assert simulated["output_tokens_per_s"] / simulated["requests_per_s"] == pytest.approx(
            real["output_tokens_per_s"] / real["requests_per_s"], rel=1e-3
        )
        assert set(load["error_percent"]) == set(load["error_at_pace_percent"]) == set(ALLOWED)
        assert real["ttft_p50_s"] <= real["ttft_p99_s"]
    assert read_law(law).law == Coefficients(**{name: found["law"][name] for name in Coefficients.__slots__})
    kept = json.loads(record.read_text())
    assert kept["ours"]["loads"] == found["loads"]
    assert kept["work"]["trace"] == "trace.csv"
    simulated = CliRunner().invoke(app, ["sim", str(trace), "--law", str(law), "--json"])
    assert json.loads(simulated.stdout)["ttft_s"]["p99"] > 0


def test_errors_are_per_cent_and_marked() -> None:
    real = dict.fromkeys(ALLOWED, 2.0)
    assert errors(real, {**real, "ttft_p99_s": 3.0})["ttft_p99_s"] == 50.0
    outcome = {"steps": 1, "busy_share": 1, "mean_running": 1, "ttft_mean_s": 1, "itl_mean_s": 1, "e2e_mean_s": 1}
    load = {
        "load": 1.0, "rate": 1.0, "requests": 3, "pace": [1.0], "real": real | outcome, "simulated": real | outcome,
        "simulated_at_pace": real | outcome, "error_percent": {"ttft_p99_s": 15.1, "itl_p50_s": -14.9},
        "error_at_pace_percent": {},
    }  # fmt: skip
    lines = table({"loads": [load]})
    assert any(line.startswith("ttft_p99_s") and "+15.1%!" in line for line in lines)
    assert any(line.startswith("itl_p50_s") and "-14.9% " in line for line in lines)
    assert load_object.__doc__


def test_the_pace_is_what_steps_took_of_what_the_law_says() -> None:
    device = ModelledDevice(Coefficients(fixed_s=1.0))
    shape = StepShape(1, 1, 1)
    real = Real(timed=[(shape, 2.0), (shape, 1.0), (shape, 3.0)], begun_s=[0.0, 2.0, 11.0])
    assert pace_of(real, device).factors == (1.5, 1.5, 3.0), "where nothing ran it goes on as before"


def test_turns_lie_apart_on_one_clock_and_empty_ones_are_left_out() -> None:
    arrivals = [Arrival(at_s, 7, 3) for at_s in (0.0, 0.9, 1.1, 3.2, 3.9)]
    turns = in_turns(arrivals, turn_s=1.0, apart_s=10.0)
    assert [[row.at_s for row in turn] for turn in turns] == [[0.0, 0.9], [pytest.approx(10.1)], [20.2, 20.9]]
    assert all(row.num_prompt == 7 for turn in turns for row in turn)


def test_what_lies_between_turns_is_not_counted() -> None:
    served = Served(SchedulerLimits(4, 64, 100, 4), 100, ModelledDevice(Coefficients(fixed_s=0.5)), lengths_known=True)
    one = _simulated([Arrival(0.0, 3, 4)], served, inf)
    two = _simulated([Arrival(0.0, 3, 4), Arrival(100.25, 3, 4)], served, 100.0)
    assert (one.seconds, one.num_steps) == (pytest.approx(2.0), 4)
    assert (two.seconds, two.busy_s) == (pytest.approx(2.0 + 2.25), pytest.approx(4.0))


@pytest.mark.parametrize(
    "changed", [{"turns": 0}, {"loads": "a"}, {"loads": "0"}, {"loads": ""}, {"shrink": 0.0}, {"seconds": -1.0}]
)
def test_what_cannot_be_meant_is_refused(changed: dict[str, object]) -> None:
    asked = Asked(None, None, Path("trace.csv"), **changed)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting):
        asked.shares()
    assert sorted(CROWDS) == list(CROWDS), "a budget that ends early has timed the smaller ones"
