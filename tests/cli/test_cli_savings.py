"""`quire bench savings` from the command line. Knows: small work. Does not know: how it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quire.cli.bench import savings_chart
from quire.cli.bench.savings_load import Load, asks_of, blank_prompts
from quire.cli.bench.savings_run import compare
from quire.cli.main import app
from quire.cli.resolve import BUNDLED
from quire.errors import GenerationFailed, InvalidSetting

needs_model = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")
LAW = "fixed=0.02,token=1e-3"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = "".join(f"{number / 10},{100 + number % 37},{20 + number % 11}\n" for number in range(60))
    path.write_text("Timestamp,Request tokens,Response tokens\n" + rows)
    return path


def savings(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["bench", "savings", *arguments])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, result.stderr


def found_by(*arguments: str) -> dict[str, Any]:
    code, out, err = savings(*arguments, "--json")
    assert code == 0, err
    assert "$/M" in err, "the table"
    result: dict[str, Any] = json.loads(out)
    return result


@needs_model
def test_real_policies_draw_the_same_tokens(trace: Path) -> None:
    found = found_by("--requests", "6", "--trace", str(trace), "--max-num-seqs", "3", "--concurrency", "4")
    assert found["outputs_equal"] is True
    assert [row["policy"] for row in found["policies"]] == ["one", "static", "contiguous-max", "quire"]
    for row in found["policies"]:
        assert row["output_tokens_per_s"] * row["seconds"] == pytest.approx(found["answer_tokens"], rel=1e-3)
        assert row["latency_s"]["mean"] <= row["seconds"]
        assert row["dollars_per_million_output_tokens"] * row["output_tokens_per_s"] == pytest.approx(
            1e6 / 3600, rel=1e-3
        )
    assert found["policies"][0]["throughput_ratio"] == 1.0


def test_another_token_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Served:
        def __init__(self, name: str, tokens: list[int]) -> None:
            self.policy = type("Policy", (), {"name": name})
            visit = type("Visit", (), {"tokens": tokens})
            self.serving = type("Serving", (), {"visits": {"0": visit}})

    compare([Served("one", [1, 2]), Served("quire", [1, 2])])  # type: ignore[list-item]
    with pytest.raises(GenerationFailed, match="request 0 under one and quire"):
        compare([Served("one", [1, 2]), Served("quire", [1, 3])])  # type: ignore[list-item]


def test_a_simulated_trace(trace: Path, tmp_path: Path) -> None:
    record = tmp_path / "found.json"
    found = found_by(
        "--simulate", LAW, "--trace", str(trace), "--requests", "30", "--rate", "5", "--reserve-tokens", "256,2048",
        "--num-blocks", "300", "--price-per-hour", "2.5", "--record", str(record),
    )  # fmt: skip
    rows = {row["policy"]: row for row in found["policies"]}
    assert list(rows) == ["one", "static", "contiguous-256", "contiguous-2048", "quire"]
    assert rows["contiguous-2048"]["peak_running"] == 2, "of 300 blocks 128 each"
    assert rows["quire"]["throughput_ratio"] <= found["limit_ratio"]
    assert rows["quire"]["latency_ratio"] < 0.5
    assert rows["quire"]["kv"]["waste_share"] < rows["contiguous-256"]["kv"]["waste_share"]
    assert rows["one"]["dollars_per_million_output_tokens"] == pytest.approx(
        2.5 / 3600 * 1e6 / rows["one"]["output_tokens_per_s"], rel=1e-3
    )
    kept = json.loads(record.read_text())
    assert (kept["work"]["trace"], kept["ours"]["policies"]) == ("trace.csv", found["policies"])
    assert kept["machine"]


def test_a_named_device() -> None:
    found = found_by("--simulate", "h200-llama-3.1-8b", "--requests", "40", "--policies", "one,quire")
    assert found["policies"][1]["throughput_ratio"] > 4
    assert found["kv_tokens"] > 800_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policies", "best"), "--policies has no such value"),
        (("--simulate", "fast"), "--law cannot be read"),
        (("--simulate", LAW, "--reserve-tokens", "many"), "--reserve-tokens cannot be read"),
        (("--simulate", LAW, "--price-per-hour", "0"), "--price-per-hour"),
        (("--simulate", LAW, "--kv-cache-memory-bytes", "9999999"), "Say --num-blocks"),
        (("--num-blocks", "9"), "--num-blocks needs --simulate"),
        (("--requests", "0"), "--requests is too small"),
        (("--rate", "1", "--concurrency", "2"), "contradict"),
        (("--repeat", "0"), "--repeat is too small"),
        (("model", "--simulate", LAW), "--simulate runs no model"),
        (("--simulate", LAW, "--plot", "x.doc"), "--plot names no picture"),
        (("--simulate", LAW, "--max-model-len", "100"), "longer than the context"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    code, _, err = savings(*arguments)
    assert code != 0
    assert said in err


def test_a_chart_that_cannot_be_drawn_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(savings_chart, "find_spec", lambda name: None)
    with pytest.raises(InvalidSetting, match=r"quire\[plot\]"):
        savings_chart.check_chart(Path("x.svg"))


def test_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "chart.svg"
    found_by("--simulate", LAW, "--requests", "8", "--plot", str(path))
    assert "<svg" in path.read_text()


def test_requests_of_a_trace_are_spread_over_it(trace: Path) -> None:
    arrivals = Load(6, trace=trace, rate=2.0).arrivals()
    assert [one.num_prompt for one in arrivals] == [100, 110, 120, 130, 103, 113]
    assert arrivals[-1].at_s == pytest.approx(3.0)
    assert all(one.at_s == 0 for one in Load(6, trace=trace).arrivals())
    asks = asks_of(arrivals, 145, blank_prompts)
    assert len(asks) == 4, "of 145 tokens at most"
    assert {ask.most_tokens for ask in asks} == {max(one.num_output for one in arrivals if one.num_prompt < 125)}
    assert len({ask.prompt[0] for ask in asks}) == 4
