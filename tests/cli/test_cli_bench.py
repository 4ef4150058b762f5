"""The load generator's arithmetic and its promise: requests go out when they are due."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from quire.cli.bench import open_loop
from quire.cli.bench.figures import medians, percentile, spread
from quire.cli.bench.http_client import Outcome, Target, send
from quire.cli.bench.offline import covered
from quire.cli.bench.serve import Load, arrivals
from quire.cli.bench.workload import Ask, Sizes, TextMaker, made_up, replayed
from quire.cli.main import app
from quire.cli.resolve import BUNDLED
from quire.errors import InvalidSetting
from quire.sim.trace import Arrival

TIMES = st.floats(0, 1e6, allow_nan=False)
needs_model = pytest.mark.skipif(not (BUNDLED / "config.json").is_file(), reason="the bundled model is not built")


@given(st.lists(TIMES, min_size=1), st.floats(0, 1))
def test_a_percentile_lies_among_the_values_and_grows_with_the_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    assert ordered[0] <= percentile(ordered, share) <= ordered[-1]
    assert percentile(ordered, 0) == ordered[0]
    assert percentile(ordered, 1) == ordered[-1]
    assert percentile(ordered, share / 2) <= percentile(ordered, share)


def test_percentiles_of_a_known_list() -> None:
    assert percentile([0.0, 1.0, 2.0, 3.0, 4.0], 0.9) == pytest.approx(3.6)
    found = spread([3.0, 1.0, 2.0])
    assert found is not None
    assert (found["mean"], found["p50"], found["max"]) == (2.0, 2.0, 3.0)
    assert spread([]) is None
    assert medians([{"a": 1.0}, {"a": 5.0}, {"a": 2.0}]) == {"a": 2.0}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=12))
def test_covered_time_is_the_number_of_instants_under_some_span(spans: list[tuple[int, int]]) -> None:
    instants = {second for begin, length in spans for second in range(begin, begin + length)}
    assert covered([(begin, begin + length) for begin, length in spans]) == len(instants)


def test_arrivals_are_poisson_seeded_and_of_the_wanted_sizes() -> None:
    def make(seed: int) -> list[Ask]:
        return made_up(Random(seed), 2000, 50.0, Sizes(20, 7, 30), TextMaker(1.0, 4.0))

    asks = make(1)
    assert asks == make(1)
    assert asks != make(2)
    assert asks[-1].at_s == pytest.approx(2000 / 50.0, rel=0.1)
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(asks)]
    mean = sum(gaps) / len(gaps)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.2)  # exponential
    prefixes = {" ".join(ask.prompt.split()[: 30 - 4]) for ask in asks}
    assert len(prefixes) == 1
    assert {len(ask.prompt.split()) for ask in asks} == {30 - 4 + 20}
    assert len({ask.prompt for ask in asks}) == 2000


def test_a_trace_keeps_its_rhythm_and_its_lengths() -> None:
    rows = [Arrival(0.0, 10, 3), Arrival(1.0, 20, 4), Arrival(4.0, 5, 1)]
    asks = replayed(rows, Random(0), None, TextMaker())
    assert [ask.at_s for ask in asks] == [0.0, 1.0, 4.0]
    assert [(len(ask.prompt.split()), ask.max_tokens) for ask in asks] == [(10, 3), (20, 4), (5, 1)]
    faster = replayed(rows, Random(0), 3.0, TextMaker())
    assert [ask.at_s for ask in faster] == [0.0, 0.25, 1.0]


def test_a_stalled_server_does_not_delay_what_is_due() -> None:
    """The first answer takes as long as all arrivals together; the others must go out meanwhile."""
    asks = [Ask(number * 0.005, "x", 1) for number in range(20)]
    sent: list[float] = []

    async def answer(ask: Ask, start: float) -> Outcome:
        sent.append(time.perf_counter() - start)
        outcome = Outcome(due_s=ask.at_s, sent_s=sent[-1])
        if ask.at_s == 0.0:
            while len(sent) < len(asks):
                await asyncio.sleep(0)
        outcome.chunk_s = [time.perf_counter() - start]
        outcome.end_s = outcome.chunk_s[-1]
        return outcome

    outcomes = asyncio.run(open_loop.run(asks, answer))
    assert [outcome.due_s for outcome in outcomes] == [ask.at_s for ask in asks]
    assert all(outcome.sent_s >= outcome.due_s for outcome in outcomes)
    first = outcomes[0].ttft_s
    assert first is not None
    assert first >= asks[-1].at_s


def test_waiting_counts_from_when_a_request_was_due() -> None:
    late = Outcome(due_s=1.0, sent_s=3.0, chunk_s=[4.0, 4.5], end_s=5.0, num_prompt_tokens=8, num_output_tokens=3)
    failed = Outcome(due_s=2.0, sent_s=2.0, end_s=2.5, failure="HTTP 429")
    report = open_loop.report([late, failed])
    assert report["ttft_s"]["max"] == 3.0
    assert report["e2e_s"]["max"] == 4.0
    assert report["late_s"]["max"] == 2.0
    assert report["inter_token_s"]["max"] == 0.5
    assert report["time_per_output_token_s"]["max"] == 0.25
    assert (report["completed"], report["failed"], report["failures"]) == (1, 1, {"HTTP 429": 1})
    assert report["output_tokens_per_s"] == pytest.approx(3 / 5)
    json.dumps(report)


def test_a_report_of_nothing_but_failures_is_still_json() -> None:
    report = open_loop.report([Outcome(due_s=0.0, failure="ConnectError")])
    assert report["ttft_s"] is None
    assert json.loads(json.dumps(report))["failed"] == 1


def ask_once(handler: Any, target: Target) -> Outcome:
    async def run() -> Outcome:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await send(client, target, Ask(0.0, "hi", 5), time.perf_counter())

    return asyncio.run(run())


def stream_of(*chunks: object, done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + (["data: [DONE]\n\n"] if done else [])
    return httpx.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})


def test_one_request_is_what_the_api_says_and_its_stream_is_read() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        usage = {"prompt_tokens": 4, "completion_tokens": 2}
        return stream_of({"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}, {"choices": [], "usage": usage})

    outcome = ask_once(handler, Target("http://server/", "m", api_key="secret", ignore_eos=True))
    assert str(seen[0].url) == "http://server/v1/completions"
    assert seen[0].headers["authorization"] == "Bearer secret"
    body = json.loads(seen[0].content)
    assert body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["prompt"], body["max_tokens"], body["temperature"]) == ("m", "hi", 5, 0)
    assert (outcome.failure, len(outcome.chunk_s), outcome.num_prompt_tokens, outcome.num_output_tokens) == (
        None,
        2,
        4,
        2,
    )


def test_chat_uses_the_other_route_and_other_fields() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/chat/completions"
        assert json.loads(request.content)["messages"] == [{"role": "user", "content": "hi"}]
        return stream_of({"choices": [{"delta": {"role": "assistant"}}]}, {"choices": [{"delta": {"content": "x"}}]})

    outcome = ask_once(handler, Target("http://server/v1", "m", chat=True))
    assert (outcome.failure, len(outcome.chunk_s)) == (None, 1)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (httpx.Response(429, text="{}"), "HTTP 429"),
        (stream_of({"choices": [{"text": "a"}]}, done=False), "the stream ended without [DONE]"),
        (stream_of({"error": {"code": "engine_dead"}}), "error in the stream: engine_dead"),
        (stream_of(), "no text"),
        (httpx.Response(200, text="data: {nonsense\n\n"), "a chunk that is not JSON of the API"),
        (httpx.Response(200, text="data: [1, 2]\n\n"), "a chunk that is not JSON of the API"),
    ],
)
def test_whatever_a_server_does_wrong_is_a_failure_with_a_name(answer: httpx.Response, failure: str) -> None:
    assert ask_once(lambda request: answer, Target("http://server", "m")).failure == failure


def test_a_server_that_is_not_there_is_a_failure_too() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    assert ask_once(handler, Target("http://server", "m")).failure == "ConnectError"


@pytest.mark.parametrize(
    "load",
    [
        Load("nonsense", 1, 1.0, Sizes(1, 1)),
        Load("random", 1, None, Sizes(1, 1)),
        Load("random", 1, 0.0, Sizes(1, 1)),
        Load("random", 1, float("nan"), Sizes(1, 1)),
        Load("trace", 1, None, Sizes(1, 1)),
    ],
)
def test_a_load_that_cannot_be_meant_is_refused(load: Load) -> None:
    with pytest.raises(InvalidSetting):
        load.check()


def test_only_the_shared_prefix_workload_shares(tmp_path: Path) -> None:
    sizes = Sizes(5, 2, shared_tokens=9)
    assert all(len(ask.prompt.split()) == 5 for ask in arrivals(Load("random", 3, 1.0, sizes), TextMaker()))
    assert all(len(ask.prompt.split()) == 14 for ask in arrivals(Load("shared-prefix", 3, 1.0, sizes), TextMaker()))
    trace = tmp_path / "trace.csv"
    trace.write_text("Timestamp,Request tokens,Response tokens\n5,3,2\n7,4,1\n")
    asks = arrivals(Load("trace", 1, None, sizes, trace), TextMaker())
    assert [(ask.at_s, len(ask.prompt.split()), ask.max_tokens) for ask in asks] == [(0.0, 3, 2)]


@needs_model
def test_offline_reports_medians_of_repeats_as_one_json_object() -> None:
    arguments = (
        "--requests 3 --input-tokens 20 --output-tokens 4 --shared-prefix-tokens 32 --repeat 2 --warmup 0 --json"
    )
    result = CliRunner().invoke(app, ["bench", "offline", *arguments.split()])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert len(report["runs"]) == 2
    for name in ("output_tokens_per_s", "prompt_tokens_per_s", "decode_tokens_per_s", "ttft_s", "seconds"):
        assert report[name] > 0
    for run in report["runs"]:
        assert run["output_tokens_per_s"] * run["seconds"] == pytest.approx(3 * 4, rel=1e-3)
        assert run["prompt_tokens_per_s"] * run["seconds"] == pytest.approx(3 * 52, rel=1e-3)
        assert run["ttft_s"] <= run["seconds"]
    assert report["cached_prompt_tokens"] in range(2 * 32 + 1)  # within a run, never from the one before


@needs_model
def test_offline_refuses_work_over_the_context() -> None:
    result = CliRunner().invoke(app, ["bench", "offline", "--input-tokens", "5000"])
    assert result.exit_code == 1
    assert "longer than the context" in result.stderr


def test_kv_waste_prints_shares_for_every_reservation(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = "".join(f"{number / 10},{100 + number % 37},{20 + number % 11}\n" for number in range(60))
    trace.write_text("Timestamp,Request tokens,Response tokens\n" + rows)
    result = CliRunner().invoke(app, ["bench", "kv-waste", str(trace), "--json"])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert 0 < report["waste_share"] < 0.08
    shares = report["contiguous_waste_share"]
    longest = max(100 + number % 37 + 20 + number % 11 for number in range(60))
    assert set(shares) == {"2048", "4096", "8192", str(longest)}
    assert shares["8192"] > shares["4096"] > shares["2048"] > report["waste_share"]


def test_kv_waste_of_no_trace_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "kv-waste", str(tmp_path / "no.csv")])
    assert result.exit_code == 2
    assert "the trace cannot be read" in result.stderr
    assert "Traceback" not in result.output


def test_kernels_and_quality_say_what_they_cannot_do() -> None:
    for arguments, words in (
        (["kernels", "--shape", "gpt-5"], "qwen3-0.6b"),
        (["kernels", "--rows", "one"], "such as 1,8,32"),
        (["kernels", "--format", "int3"], "int4-g32"),
        (["quality", "--variants", "int3"], "int4-g32/int8-g128"),
        (["quality", "--window", "2"], "--window and --stride"),
        (["quality", "--text", "/does/not/exist"], "--text cannot be read"),
    ):
        result = CliRunner().invoke(app, ["bench", *arguments])
        assert result.exit_code != 0
        assert words in result.output


def test_quality_of_a_text(tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text("Once upon a time there was a small dog. " * 8, encoding="utf-8")
    arguments = ["bench", "quality", "--text", str(text), "--window", "32", "--variants", "int8-g128", "--threads", "2"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "int8-g128" in shown.output
    result = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert result["text"] == "story.txt"
    assert result["rows"][0]["top1_percent"] > 50
