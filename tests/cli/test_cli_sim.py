"""`quire sim` from the command line. Knows: a small trace. Does not know: how it is simulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quire.cli.main import app


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = "".join(f"{number / 10},{100 + number % 37},{20 + number % 11}\n" for number in range(60))
    path.write_text("Timestamp,Request tokens,Response tokens\n" + rows)
    return path


def sim(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["sim", *arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def test_one_json_object(trace: Path) -> None:
    code, out, err = sim(str(trace), "--json", "--tenants", "3", "--requests", "50")
    assert code == 0, err
    found = json.loads(out)
    assert (found["num_requests"], found["scheduling_policy"], found["trace"]) == (50, "fair", "trace.csv")
    assert found["ttft_s"]["p50"] <= found["ttft_s"]["p99"] <= found["ttft_s"]["max"]
    assert found["simulated_requests_per_s"] > 0
    assert 0 < found["fairness"] <= 1
    assert found["samples"][0]["num_running"] >= 1


def test_a_table(trace: Path) -> None:
    code, out, _ = sim(str(trace), "--scheduling-policy", "fcfs", "--itl-target", "0")
    assert code == 0
    assert "goodput_rps" in out
    assert "p99" in out


def test_a_slower_device_is_slower(trace: Path) -> None:
    def mean(law: str) -> float:
        return float(json.loads(sim(str(trace), "--json", "--law", law)[1])["ttft_s"]["mean"])

    assert mean("fixed=0.2,token=1e-3,extra_token=1e-3,knee=16") > mean("fixed=0.02") > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--law", "fixed=x"), "--law cannot be read"),
        (("--law", "speed=3"), "--law cannot be read"),
        (("--law", "knee=3"), "takes no time"),
        (("--speed", "0"), "--speed is out of range"),
        (("--tenants", "0"), "--tenants is out of range"),
        (("--scheduling-policy", "best"), "no such scheduling policy"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(trace: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = sim(str(trace), *arguments)
    assert code != 0
    assert said in err
