"""Readers that leave, engines that die, work that goes wrong: everything ends, with a word where one can be said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from served import Served, exchange, says, scope_of, served, wait_until

from quire.errors import InternalError
from quire.settings import EngineSettings
from quire.step import Step, StepResult

BODIES = {
    "/v1/chat/completions": b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 450, "n": 2%s}',
    "/v1/completions": b'{"prompt": ["One", "Two", "Three"], "max_tokens": 450, "ignore_eos": true%s}',
}
HEADERS = {"content-type": "application/json"}


class Reader:
    """A client that reads as long as `stays` says and then disconnects."""

    def __init__(self, body: bytes) -> None:
        self.waiting = [{"type": "http.request", "body": body, "more_body": False}]
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.on_send: Callable[[], None] = lambda: None

    async def receive(self) -> dict[str, Any]:
        if self.waiting:
            return self.waiting.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.on_send()


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_aborted_within_a_step(path: str, stream: bool) -> None:
    with served(says("word " * 50, end=False)) as server:
        body = BODIES[path] % (b', "stream": true' if stream else b"")

        async def leave() -> None:
            reader = Reader(body)
            task = asyncio.create_task(server.app(scope_of("POST", path, HEADERS), reader.receive, reader.send))
            while server.runner.num_steps < 8:
                await asyncio.sleep(0.001)
            server.runner.gate.clear()  # the engine stands within a step
            reader.left.set()
            await asyncio.wait_for(task, 5)
            assert server.client.num_open == 0
            assert all(message.get("more_body", True) for message in reader.sent), "the answer was ended for nobody"

        server.do(leave())
        standing = server.runner.num_steps
        server.runner.gate.set()
        wait_until(server.is_idle)
        assert server.runner.num_steps <= standing + 2
        assert server.engine.scheduler.cache_use().num_used == 0
        server.engine.scheduler.check()


def test_a_client_that_leaves_while_its_body_is_read_gets_nothing(rambler: Served) -> None:
    async def leave() -> list[dict[str, Any]]:
        reader = Reader(b"")
        reader.waiting = [{"type": "http.request", "body": b'{"prompt', "more_body": True}]
        reader.left.set()
        await rambler.app(scope_of("POST", "/v1/completions", HEADERS), reader.receive, reader.send)
        return reader.sent

    assert rambler.do(leave()) == []


def test_a_slow_reader_holds_back_only_itself() -> None:
    with served(says("word " * 50, end=False)) as server:

        async def slowly() -> None:
            go_on, num_sent = asyncio.Event(), 0

            async def send(message: dict[str, Any]) -> None:
                nonlocal num_sent
                num_sent += 1
                if num_sent > 2:
                    await go_on.wait()

            body = BODIES["/v1/completions"] % b', "stream": true'
            reader = Reader(body)
            task = asyncio.create_task(server.app(scope_of("POST", "/v1/completions", HEADERS), reader.receive, send))
            other = await exchange(server.app, "POST", "/v1/completions", [b'{"prompt": "x"}'], HEADERS)
            assert other.status == 200
            go_on.set()
            await task

        server.do(slowly())
        assert server.is_idle()


def test_a_reader_that_never_reads_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.server.reply.SEND_TIMEOUT_S", 0.05)
    with served(says("word " * 50, end=False)) as server:

        async def never() -> None:
            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.body":
                    await asyncio.Event().wait()

            reader = Reader(BODIES["/v1/completions"] % b', "stream": true')
            await server.app(scope_of("POST", "/v1/completions", HEADERS), reader.receive, send)

        server.do(never())
        wait_until(server.is_idle)


def breaking(server: Served, at_step: int) -> None:
    run = server.runner.run

    def break_down(step: Step) -> StepResult:
        if server.runner.num_steps >= at_step:
            raise InternalError("the runner broke")
        return run(step)

    server.runner.run = break_down  # type: ignore[method-assign]


def test_an_engine_that_dies_before_the_answer_gives_a_status() -> None:
    with served() as server:
        breaking(server, 0)
        answer = server.complete()
        assert answer.status >= 500
        assert answer.error["type"] == "server_error"
        health = server.get("/health")
        assert health.status == 503
        assert health.error["code"] == "engine_dead"
        assert server.complete().status >= 500


def test_an_engine_that_dies_within_a_stream_ends_it_with_an_error_event() -> None:
    with served(says("word " * 50, end=False)) as server:
        breaking(server, 5)
        events = server.complete(stream=True, max_tokens=100).events()
    assert events[0]["choices"][0]["text"]
    assert set(events[-1]["error"]) == {"message", "type", "param", "code"}
    assert "[DONE]" not in events


def test_one_prompt_that_goes_wrong_ends_the_request_and_no_other() -> None:
    with served(says("word " * 20, end=False)) as server:
        run = server.runner.run

        def spoil(step: Step) -> StepResult:
            result = run(step)
            works = [
                type(made)(error="non-finite logits") if work.draw is not None and 77 in work.draw.history else made
                for work, made in zip(step.works, result.works, strict=True)
            ]
            return StepResult(tuple(works))

        server.runner.run = spoil  # type: ignore[method-assign]
        answer = server.complete(prompt=[[5, 6], [76, 77]])
        assert (answer.status, answer.error["code"]) == (500, "generation_failed")
        assert server.complete().status == 200
        wait_until(server.is_idle)


def test_unexpected_exceptions_say_nothing_of_themselves(
    talker: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*arguments: object, **named: object) -> None:
        raise KeyError("a secret detail")

    monkeypatch.setattr(talker.service.tokenizer.__class__, "encode", explode)
    answer = talker.complete()
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert b"secret" not in answer.body
    assert any("secret detail" in (record.exc_text or str(record.exc_info)) for record in caplog.records)


def test_too_many_waiting_are_sent_away_with_a_time_to_come_back() -> None:
    engine = EngineSettings(max_model_len=512, max_num_seqs=2, max_num_batched_tokens=64)
    with served(says("word " * 50, end=False), engine, max_waiting=1) as server:
        server.runner.gate.clear()
        body = b'{"prompt": "x", "max_tokens": 3}'

        async def crowd() -> list[int]:
            async def one() -> int:
                answer = await exchange(server.app, "POST", "/v1/completions", [body], HEADERS)
                if answer.status == 429:
                    assert answer.headers["retry-after"] == "1"
                    assert answer.error["code"] == "rate_limit_exceeded"
                    server.runner.gate.set()
                return answer.status

            return list(await asyncio.gather(*(one() for _ in range(8))))

        statuses = server.do(crowd())
        assert statuses.count(200) == 3
        assert statuses.count(429) == 5
