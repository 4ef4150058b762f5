"""Deadlines and full queues over HTTP. Knows: headers, statuses. Does not know: how anything is predicted."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from served import Answer, Served, served, wait_until

from quire.errors import Overloaded
from quire.scheduling.cost import StepShape, num_chunk_pairs
from quire.settings import EngineSettings

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
DEADLINE = "x_quire_deadline_ms"  # the helpers make the dashes
BODIES: list[tuple[str, dict[str, Any]]] = [
    (COMPLETIONS, {"prompt": "Hi", "max_tokens": 3}),
    (CHAT, {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}),
]
SMALL = EngineSettings(max_model_len=512, max_num_seqs=2, max_num_batched_tokens=128)


@pytest.fixture
def busy() -> Iterator[Served]:
    """Two rows, both taken for a while, by an engine that knows that a step takes 0.1 s."""
    with served(engine=SMALL, max_queue_seconds=30.0) as server:
        shapes = [StepShape(n, n, n) for n in (1, 2)] + [StepShape(n, 1, n, num_chunk_pairs(0, n)) for n in (8, 64)]
        server.engine.scheduler.cost.calibrate([(shape, 0.1) for shape in shapes])
        server.runner.gate.clear()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            fill = {"prompt": "Once upon", "max_tokens": 200, "ignore_eos": True}
            asked = [pool.submit(server.post, COMPLETIONS, fill) for _ in range(2)]
            wait_until(lambda: server.client.num_open == 2 and server.engine.scheduler.num_running)
            yield server
            server.runner.gate.set()
            assert all(each.result().status == 200 for each in asked)


@pytest.mark.parametrize("value", ["", "0", "-5", "abc", "1e3", "nan", "inf", "0.5", "3600001", "1 2", "99999999999"])
@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_deadline_that_cannot_be_meant_is_refused(rambler: Served, path: str, body: Any, value: str) -> None:
    answer = rambler.post(path, body, **{DEADLINE: value})
    assert (answer.status, answer.error["param"]) == (400, "x-quire-deadline-ms")
    assert "1 to 3600000 milliseconds" in answer.error["message"]


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("value", ["60000", "1500.5", "3600000"])
def test_a_deadline_with_time_enough_changes_nothing(rambler: Served, path: str, body: Any, value: str) -> None:
    assert rambler.post(path, body, **{DEADLINE: value}).status == 200


def later(server: Served, path: str, body: Any, **headers: str) -> Answer:
    """An answer that is given while the engine still stands at its gate: the refusal must not wait for a step."""
    server.runner.gate.set()
    return server.post(path, body, **headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_deadline_that_cannot_be_made_is_a_429(busy: Served, path: str, body: Any, stream: bool) -> None:
    busy.runner.pace_s = 0.02
    answer = later(busy, path, {**body, "stream": stream}, **{DEADLINE: "3000"})
    error = answer.error
    assert (answer.status, error["type"], error["code"]) == (429, "rate_limit_error", "deadline_unreachable")
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json", "not a stream that breaks off"
    later_ms, estimate_ms = int(answer.headers["retry-after-ms"]), int(answer.headers["x-quire-estimate-ms"])
    assert 1000 * (int(answer.headers["retry-after"]) - 1) <= later_ms <= 1000 * int(answer.headers["retry-after"])
    assert estimate_ms > 3000
    assert "to the first token" in error["message"]
    assert b'refused_total{cause="deadline_unreachable"} 1.0' in busy.get("/metrics").body
    busy.runner.pace_s = 0.0


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_that_passes_in_the_queue_is_a_429_then(busy: Served, stream: bool) -> None:
    gate = busy.engine.gate
    assert gate is not None
    gate.judge = _hopeful(gate.judge)  # type: ignore[method-assign]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        body = {"prompt": "Hi", "max_tokens": 3, "stream": stream}
        asked = pool.submit(busy.post, COMPLETIONS, body, **{DEADLINE: "40"})
        busy.runner.gate.set()
        busy.runner.pace_s = 0.01
        answer = asked.result()
    busy.runner.pace_s = 0.0
    assert (answer.status, answer.error["code"]) == (429, "deadline_exceeded")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/json"
    assert b'refused_total{cause="deadline_exceeded"} 1.0' in busy.get("/metrics").body
    wait_until(lambda: busy.client.num_open == 2 or busy.is_idle())


def _hopeful(judge: Any) -> Any:
    """The gate lets in whoever has a deadline, however late it would be."""
    from dataclasses import replace

    from quire.request import Request

    def let_in(request: Request, now: float) -> Any:
        promise = judge(replace(request, deadline_s=None), now)
        promise.deadline_s = request.deadline_s if request.deadline_s is not None else promise.deadline_s
        return promise

    return let_in


def test_a_wait_over_the_bound_is_a_429_without_any_deadline() -> None:
    with served(engine=SMALL, max_queue_seconds=2.0) as server:
        shapes = [StepShape(n, n, n) for n in (1, 2)] + [StepShape(n, 1, n, num_chunk_pairs(0, n)) for n in (8, 64)]
        server.engine.scheduler.cost.calibrate([(shape, 0.1) for shape in shapes])
        server.runner.pace_s = 0.01
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            long = {"prompt": "Once upon", "max_tokens": 100, "ignore_eos": True}
            answers = list(pool.map(lambda _: server.post(COMPLETIONS, long), range(8)))
        statuses = [answer.status for answer in answers]
        assert statuses.count(200) >= 2
        refused = [answer for answer in answers if answer.status == 429]
        assert refused
        assert all(answer.error["code"] == "rate_limit_exceeded" for answer in refused)
        assert "--max-queue-seconds" in refused[0].error["message"]
        assert server.complete(max_tokens=1).status == 200, "and once it is idle again all is well"


def test_openai_s_client_comes_back_when_it_is_told_to(busy: Served) -> None:
    gate = busy.engine.gate
    assert gate is not None
    judged: list[float] = []
    judge = gate.judge

    def counted(request: Any, now: float) -> Any:
        if request.deadline_s is not None:
            judged.append(now)
        try:
            return judge(request, now)
        except Overloaded as error:
            error.retry_after_s = 0.05
            raise

    gate.judge = counted  # type: ignore[method-assign]
    client = openai.OpenAI(base_url=f"{busy.url}/v1", api_key="none", max_retries=2)
    busy.runner.gate.set()
    busy.runner.pace_s = 0.005
    with pytest.raises(openai.RateLimitError) as caught:
        client.completions.create(
            model="default", prompt="Hi", max_tokens=3, extra_headers={"x-quire-deadline-ms": "2"}
        )
    busy.runner.pace_s = 0.0
    assert caught.value.code in ("deadline_unreachable", "deadline_exceeded")
    assert len(judged) == 3, "asked, and came back twice"
    assert judged[2] - judged[0] < 2.0, "after what retry-after-ms said"


def test_several_prompts_are_one_job(busy: Served) -> None:
    busy.runner.gate.set()
    answer = busy.post(COMPLETIONS, {"prompt": ["a", "b", "c"], "max_tokens": 2}, **{DEADLINE: "1"})
    assert answer.status == 429
    wait_until(lambda: busy.client.num_open <= 2)
    whole = busy.post(COMPLETIONS, {"prompt": ["a", "b", "c"], "max_tokens": 2})
    assert (whole.status, len(whole.json()["choices"])) == (200, 3)
