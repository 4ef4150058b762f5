"""Clients that leave, whatever they asked for and wherever it stands: nothing is left of them, nobody else feels it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served, exchange, says, scope_of, served, wait_until
from test_leaving import Reader

from quire.engine.engine import Engine
from quire.engine.grammars import ThreadKeeper, Told
from quire.errors import QuireError, RequestError
from quire.request import Constraint
from quire.server.terms import DEADLINE_HEADER
from quire.settings import EngineSettings

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 60}
SAID = {"prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": True}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
MUCH = [{"role": "user", "content": "word " * 2000}]
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "whole": (PLAIN, SAID, {}),
    "stream": (PLAIN, {**SAID, "stream": True}, {}),
    "three": (CHAT, {**HELLO, "n": 3, "stream": True}, {}),
    "three prompts": (PLAIN, {**SAID, "prompt": ["One", "Two", "Three"], "n": 2, "stream": True}, {}),
    "best of": (PLAIN, {**SAID, "n": 1, "best_of": 3}, {}),
    "beams": (PLAIN, {**SAID, "ignore_eos": False, "n": 2, "use_beam_search": True, "best_of": 4, "max_tokens": 8}, {}),
    "prompt": (PLAIN, {**SAID, "prompt": "word " * 200, "prompt_logprobs": 2, "echo": True, "logprobs": 2}, {}),
    "long": (PLAIN, {**SAID, "prompt": "word " * 150, "max_tokens": 40}, {}),
    "much text": (CHAT, {**HELLO, "messages": MUCH, "truncate_prompt_tokens": 99}, {}),
    "tools": (CHAT, {**HELLO, "tools": [TOOL], "stream": True}, {}),
    "form": (CHAT, {**HELLO, "response_format": {"type": "json_object"}}, {}),
    "deadline": (PLAIN, SAID, {DEADLINE_HEADER: "60000"}),
    "render": (CHAT + "/render", {**HELLO, "response_format": {"type": "json_object"}}, {}),
    "tokens": ("/tokenize", {"prompt": "word " * 2000}, {}),
}  # fmt: skip


class Slow:
    """Grammars of which nobody knows when they are ready, until `tell` is called."""

    rows = memoryview(b"")

    def __init__(self) -> None:
        self.waiting: list[Told] = []

    def prepare(self, constraint: Constraint, told: Told, is_known: bool = False) -> None:
        self.waiting.append(told)

    def close(self) -> None:
        """Nothing is held."""

    def tell(self, answer: QuireError | None = None) -> None:
        while self.waiting:
            self.waiting.pop()(answer)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(says("word " * 50, end=False)) as running:
        yield running


class Leaver(Reader):
    """One who leaves after so many parts of its answer, or when it is told to."""

    def __init__(self, body: bytes, num_parts: int = 10**9) -> None:
        super().__init__(body)
        self._num_parts = num_parts

    async def send(self, message: dict[str, Any]) -> None:
        await super().send(message)
        if len(self.sent) >= self._num_parts:
            self.left.set()


def body_of(kind: str) -> tuple[str, bytes, dict[str, str]]:
    path, body, headers = KINDS[kind]
    return path, json.dumps(body).encode(), {"content-type": "application/json", **headers}


def begin(server: Served, kind: str, reader: Leaver) -> asyncio.Task[None]:
    path, _, headers = body_of(kind)
    return asyncio.create_task(server.app(scope_of("POST", path, headers), reader.receive, reader.send))


def check_nothing_is_left(server: Served) -> None:
    """Of nobody, in no table."""
    wait_until(server.is_idle)
    engine: Engine = server.engine
    scheduler = engine.scheduler
    scheduler.check()
    assert scheduler.cache_use().num_used == 0
    for table in (scheduler._families, scheduler._seats, scheduler._searches):
        assert not table
    assert engine.gate is None or not engine.gate._promises
    assert not server.service.door.by_tenant
    assert server.service.lifecycle.num_open == 0

    async def others() -> set[str]:
        return {str(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    wait_until(lambda: len(server.do(others())) <= 1)  # `do` itself waits with one


async def leave_at(server: Served, kind: str, phase: tuple[str, int]) -> None:
    """Ask, and leave at a phase: before the body ends, after so many steps of the engine or parts of an answer."""
    where, number = phase
    _, body, _ = body_of(kind)
    reader = Leaver(body, number if where == "parts" else 10**9)
    if where == "body":
        reader.waiting = [{"type": "http.request", "body": body[: number + 1], "more_body": True}]
        reader.left.set()
    task = begin(server, kind, reader)
    steps = server.runner.num_steps + number
    while not task.done() and where == "steps" and server.runner.num_steps < steps:
        await asyncio.sleep(0.0005)
    if where != "parts":
        reader.left.set()
    await asyncio.wait_for(task, 20)


PHASES = st.one_of(
    st.tuples(st.just("body"), st.integers(0, 20)),
    st.tuples(st.just("steps"), st.integers(0, 12)),
    st.tuples(st.just("parts"), st.integers(1, 6)),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), PHASES), min_size=1, max_size=8))
def test_nothing_is_left_of_those_who_leave_at_any_time(
    server: Served, leavers: list[tuple[str, tuple[str, int]]]
) -> None:
    body = json.dumps({**SAID, "max_tokens": 30, "seed": 4}).encode()

    async def all_of_them() -> bytes:
        stays = exchange(server.app, "POST", PLAIN, [body], {"content-type": "application/json"})
        answer, *_ = await asyncio.gather(stays, *(leave_at(server, kind, phase) for kind, phase in leavers))
        assert answer.status == 200
        return bytes(json.dumps(answer.json()["choices"]).encode())

    alone = server.post(PLAIN, body).json()["choices"]
    assert json.loads(server.do(all_of_them())) == alone
    check_nothing_is_left(server)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"render", "tokens"}))
def test_at_most_the_step_under_way_is_computed_for_nobody(server: Served, kind: str) -> None:
    """The engine stands within a step when the client leaves; with it, no other is computed."""

    async def leave() -> int:
        reader = Leaver(body_of(kind)[1])
        before = server.runner.num_steps
        task = begin(server, kind, reader)
        while server.runner.num_steps < before + 3:
            assert not task.done(), reader.sent
            await asyncio.sleep(0.0005)
        server.runner.gate.clear()
        reader.left.set()
        await asyncio.wait_for(task, 20)
        return server.runner.num_steps

    standing = server.do(leave())
    server.runner.gate.set()
    check_nothing_is_left(server)
    assert server.runner.num_steps <= standing + 1


@pytest.mark.parametrize("kind", ["form", "render", "tools"])
@pytest.mark.parametrize("answer", [None, RequestError("no such grammar")])
def test_one_who_waits_for_a_grammar_is_forgotten_whatever_becomes_of_it(kind: str, answer: QuireError | None) -> None:
    with served(says("word " * 50, end=False)) as server:
        slow = Slow()
        server.engine.grammars = slow  # type: ignore[assignment]
        body = {**KINDS["form"][1], "tool_choice": "required"} if kind == "tools" else {}
        path, data, _ = body_of(kind)
        data = json.dumps({**json.loads(data), **body}).encode()

        async def leave() -> None:
            readers = [Leaver(data), Leaver(data)]
            headers = {"content-type": "application/json"}
            tasks = [
                asyncio.create_task(server.app(scope_of("POST", path, headers), r.receive, r.send)) for r in readers
            ]
            await until(lambda: slow.waiting)
            for reader in readers:
                reader.left.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
            assert all(not reader.sent for reader in readers)

        server.do(leave())
        wait_until(lambda: slow.tell(answer) or not server.client._preparing._waiting)
        check_nothing_is_left(server)
        assert server.runner.num_steps == 0


@pytest.mark.parametrize("num_parts", [3, 10**9])
def test_grammars_keep_nothing_of_answers_that_have_ended(num_parts: int) -> None:
    """Whether their clients have left or have it all, with nobody behind them who would have the engine step."""
    with served(keep=ThreadKeeper) as server:
        keeper = server.engine.grammars
        assert isinstance(keeper, ThreadKeeper)
        body = {**HELLO, "response_format": {"type": "json_object"}, "stream": True, "max_tokens": 40}
        path, headers = CHAT, {"content-type": "application/json"}

        async def leave() -> None:
            reader = Leaver(json.dumps(body).encode(), num_parts)
            await server.app(scope_of("POST", path, headers), reader.receive, reader.send)
            assert len(reader.sent) >= min(num_parts, 5)

        server.do(leave())
        check_nothing_is_left(server)
        wait_until(lambda: keeper._matchers is not None and not len(keeper._matchers))


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


def test_one_whose_deadline_passes_in_the_queue_is_forgotten() -> None:
    engine = EngineSettings(max_model_len=512, max_num_seqs=1, max_num_batched_tokens=64)
    with served(says("word " * 50, end=False), engine) as server:
        for _ in range(3):
            server.complete(max_tokens=5)  # it learns how long a step takes
        server.runner.pace_s = 0.01

        async def crowd() -> list[int]:
            async def one(**headers: str) -> int:
                data = json.dumps({**SAID, "max_tokens": 40}).encode()
                kept = {"content-type": "application/json", **headers}
                return (await exchange(server.app, "POST", PLAIN, [data], kept)).status

            return list(await asyncio.gather(one(), *[one(**{DEADLINE_HEADER: "100"}) for _ in range(4)]))

        assert server.do(crowd()) == [200, 429, 429, 429, 429]
        check_nothing_is_left(server)
