"""Streams beside long prompts: what counts, and that it is seen. Knows: made-up servers. Does not know: HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from quire.cli.bench import stall_load
from quire.cli.bench.http_client import Outcome, Target, send
from quire.cli.bench.stall_load import Seen, StallLoad, gaps_within, observe, report
from quire.cli.bench.workload import Ask, TextMaker
from quire.cli.main import app
from quire.errors import InvalidSetting, StartError

LOAD = StallLoad(num_streams=3, stream_tokens=40, prompt_tokens=9, seconds=0.08, alone_seconds=0.02)


def test_gaps_count_where_they_end() -> None:
    stream = Outcome(0.0, chunk_s=[1.0, 2.0, 4.0, 5.5])
    assert gaps_within([stream, Outcome(0.0)], 2.0, 5.5) == [1.0, 2.0]


def test_figures_of_a_window_by_hand() -> None:
    seen = Seen(
        [Outcome(0.0, chunk_s=[8.0, 9.0, 11.0, 13.0, 19.0, 21.0])],
        [
            Outcome(10.0, chunk_s=[14.0], num_prompt_tokens=400),
            Outcome(14.0, end_s=24.0, num_prompt_tokens=400, failure="no text"),  # half a character
            Outcome(15.0, failure="HTTP 429"),
        ],
        alone_s=7.0,
        begin_s=10.0,
        end_s=20.0,
    )
    found = report(seen, replace(LOAD, target_s=5.0))
    assert found["inter_token_s"]["max"] == 6.0
    assert found["met"] is False
    assert found["alone_inter_token_s"]["max"] == 1.0
    assert found["output_tokens_per_s"] == pytest.approx(3 / 10)
    assert found["prompt_tokens_per_s"] == pytest.approx((400 + 400 * 6 / 10) / 10), "the second was read on outside"
    assert found["tokens_per_s"] == pytest.approx(found["output_tokens_per_s"] + found["prompt_tokens_per_s"])
    assert found["prompt_ttft_s"]["max"] == 10.0
    assert found["failures"] == {"HTTP 429": 1}
    assert report(seen, replace(LOAD, target_s=6.0))["met"] is True
    assert report(Seen(), LOAD)["met"] is None
    json.dumps(report(Seen(), LOAD))


@pytest.mark.parametrize("rate", [None, 100.0])
def test_streams_go_on_while_prompts_come_and_prompts_are_waited_for(rate: float | None) -> None:
    start = time.perf_counter()

    def now() -> float:
        return time.perf_counter() - start

    asked: list[Ask] = []

    async def answer(ask: Ask, outcome: Outcome) -> Outcome:
        asked.append(ask)
        for _ in range(ask.max_tokens):
            await asyncio.sleep(0.001 if ask.max_tokens > 1 else 0.015)
            outcome.chunk_s.append(now())
        outcome.num_prompt_tokens, outcome.end_s = 10, now()
        return outcome

    seen = asyncio.run(observe(replace(LOAD, prompt_rate=rate), TextMaker(), answer, now))
    assert seen.end_s - seen.begin_s >= LOAD.seconds
    assert all(outcome.chunk_s for outcome in seen.prompts)
    assert len(seen.streams) >= LOAD.num_streams
    assert len({ask.prompt for ask in asked}) == len(asked), "nothing may be cached"
    if rate is None:
        assert all(later.due_s >= earlier.chunk_s[0] for earlier, later in pairwise(seen.prompts))
    else:
        assert len(seen.prompts) == 8
    assert report(seen, LOAD)["tokens_per_s"] > 0


def test_streams_that_never_begin_are_one_sentence() -> None:
    async def refuse(ask: Ask, outcome: Outcome) -> Outcome:
        outcome.failure = "HTTP 503"
        return outcome

    with pytest.raises(StartError, match="HTTP 503"):
        asyncio.run(observe(LOAD, TextMaker(), refuse, lambda: 0.0))


@pytest.mark.parametrize(
    "changed",
    [{"num_streams": 0}, {"prompts_at_once": 0}, {"seconds": 0.0}, {"prompt_rate": -1.0}, {"alone_seconds": -1.0}],
)
def test_a_load_that_cannot_be_meant_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting):
        replace(LOAD, **changed).check()


def test_every_id_is_a_token_even_without_text() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert (body["return_token_ids"], body["logit_bias"]) == (True, {"9": 100})
        chunks = [{"choices": [{"text": "", "token_ids": ids}]} for ids in ([5], [6, 7])]
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return httpx.Response(200, text=text)

    async def run() -> Outcome:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await send(
                client, Target("http://server", "m", token_ids=True, only_token=9), Ask(0.0, "hi", 3), 0.0
            )

    assert len(asyncio.run(run()).chunk_s) == 3


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(target: Target, load: StallLoad) -> dict[str, Any]:
        return {"url": target.url, "streams": load.num_streams, "target_s": load.target_s}

    monkeypatch.setattr(stall_load, "run", measured)
    arguments = ["bench", "stall", "--url", "http://x", "--streams", "5", "--target", "0.2"]
    invoke: Callable[[list[str]], Any] = lambda more: CliRunner().invoke(app, [*arguments, *more])  # noqa: E731
    assert json.loads(invoke(["--json"]).stdout) == {"url": "http://x", "streams": 5, "target_s": 0.2}
    assert "streams" in invoke([]).stdout
