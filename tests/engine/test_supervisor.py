"""Real engine processes that die in the middle of things: whoever reads an answer does not notice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import faulty_engine
import pytest

from quire.beams import Beams
from quire.engine import restarts, vitals
from quire.engine import supervisor as supervisor_module
from quire.engine.client import EngineClient
from quire.engine.process import MODULE, ProcessLink, spawn
from quire.engine.supervisor import Supervisor
from quire.errors import EngineDead, KilledEngine
from quire.events import EngineLoss
from quire.form import StructuredOutputsParams
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import Plan, plan
from quire.request import Constraint, Finish, Request, SamplingParams
from quire.settings import EngineSettings
from quire.step import Delta
from quire.structured.source import grammar_of

FAULTY = "faulty_engine"
SPEC = read_model_spec(BUNDLED)
FORM = Constraint(grammar_of(StructuredOutputsParams(regex="[A-Z][a-z]{20,40}( [0-9]{2}){2,5}")), "somebody")
PROMPT = (5, 6, 7, 8, 9, 10, 11, 12)


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find the faulty engine beside this file."""
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))


def small_plan() -> Plan:
    return plan(EngineSettings(max_model_len=512, max_num_seqs=8), probe(), SPEC, str(BUNDLED))


def request(name: str, max_tokens: int = 60, prompt: tuple[int, ...] = PROMPT, **params: object) -> Request:
    values = {"seed": 3, "temperature": 1.0, "max_tokens": max_tokens, "ignore_eos": True} | params
    return Request(name, prompt, SamplingParams(**values))  # type: ignore[arg-type]


async def read(client: EngineClient, asked: Request, at: Callable[[int], None] | None = None) -> list[Delta]:
    """All deltas; `at` is told how many tokens there are after each."""
    deltas: list[Delta] = []
    async for delta in client.stream(asked):
        deltas.append(delta)
        if at is not None:
            at(sum(len(each.tokens) for each in deltas))
    return deltas


def supervisor(client: EngineClient) -> Supervisor:
    assert isinstance(client.keeper, Supervisor)
    return client.keeper


def kill(client: EngineClient, number: signal.Signals = signal.SIGKILL) -> None:
    supervisor(client).link.process.send_signal(number)  # type: ignore[attr-defined]


def serving(job: Callable[[EngineClient, list[EngineLoss]], Awaitable[None]], module: str = MODULE) -> None:
    async def run() -> None:
        client = spawn(small_plan(), BUNDLED, module=module)
        losses: list[EngineLoss] = []
        client.on_loss = losses.append
        try:
            await client.start()
            await asyncio.wait_for(job(client, losses), 240)  # seconds, but for a crowded machine
            assert client.num_open == 0
        finally:
            await client.close()

    asyncio.run(run())


def of(deltas: list[Delta], index: int) -> list[int]:
    return [token for delta in deltas if delta.index == index for token in delta.tokens]


def same(one: list[Delta], other: list[Delta], n: int = 1) -> None:
    """The same tokens, log probabilities and ends; how they were cut into deltas may differ."""
    for index in range(n):
        mine, theirs = ([delta for delta in deltas if delta.index == index] for deltas in (one, other))
        assert of(one, index) == of(other, index)
        assert [entry for delta in mine for entry in delta.logprobs] == [e for delta in theirs for e in delta.logprobs]
        assert [delta.finish for delta in mine if delta.finish] == [delta.finish for delta in theirs if delta.finish]
        assert mine[-1].finish is not None
    told = [[entry for delta in deltas for entry in delta.prompt_logprobs] for deltas in (one, other)]
    assert told[0] == told[1]


ASKED = {
    "greedy": request("greedy", temperature=0.0),
    "seeded": request("seeded"),
    "three": request("three", n=3, logprobs=2),
    "penalties": request("penalties", repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.2),
    "prompt": request("prompt", prompt=PROMPT * 40, prompt_logprobs=1, logprobs=1),
    "least": request("least", min_tokens=50, ignore_eos=False),
    "formed": replace(request("formed", ignore_eos=False, n=2), constraint=FORM, eos_ids=SPEC.eos_ids),
    "searched": replace(request("searched", n=2, temperature=1.0), beams=Beams(3)),
}


def test_streams_go_on_to_the_bit_when_the_engine_is_killed() -> None:
    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        calm = dict(zip(ASKED, await asyncio.gather(*(read(client, each) for each in ASKED.values())), strict=True))
        kills = [0, 3, 25]

        def shoot(num_tokens: int) -> None:
            if kills and num_tokens >= kills[0]:
                kills.pop(0)
                kill(client)

        await client.prepare(FORM)
        shoot(0)  # nobody has been told anything; more than can run are waiting
        together = [read(client, each, shoot if name == "seeded" else None) for name, each in ASKED.items()]
        results = await asyncio.gather(*together)
        assert not kills
        for name, deltas in zip(ASKED, results, strict=True):
            same(deltas, calm[name], ASKED[name].params.n)
        ends = [loss for loss in losses if loss.seconds is not None]
        assert len(ends) == 3
        assert [(loss.cause, loss.how, loss.culprit) for loss in ends] == [("killed", "killed by SIGKILL", None)] * 3
        assert all(loss.num_replayed for loss in ends[1:])
        assert client.is_ready

    serving(job)


def test_a_file_that_was_cut_under_an_engine_is_told_by_name_to_the_operator() -> None:
    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        calm = await read(client, request("calm"))
        kill(client, signal.SIGBUS)  # as the kernel sends it to whoever reads past the end
        same(await read(client, request("met")), calm)
        assert losses[0].how == "killed by SIGBUS: a file that was mapped has been cut, or its disk failed"
        assert losses[0].remedy == f"Restore {BUNDLED}, and start again"

    serving(job)


def test_an_engine_that_is_killed_as_it_starts_says_how() -> None:
    async def run() -> str:
        client = spawn(small_plan(), BUNDLED)
        kill(client, signal.SIGBUS)
        try:
            with pytest.raises(EngineDead) as died:
                await client.start()
        finally:
            await client.close()
        return str(died.value)

    said = asyncio.run(run())
    assert "got killed by SIGBUS: a file that was mapped has been cut" in said
    assert f"Restore {BUNDLED}, and start again. See the server's log." in said


def test_a_request_that_aborts_the_engine_is_found_and_the_others_go_on() -> None:
    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        healthy = [request(f"h{number}", 40, (*PROMPT, number), seed=number) for number in range(6)]
        calm = await asyncio.gather(*(read(client, each) for each in healthy))
        assert not losses
        poison = request("poison", prompt=(*PROMPT[:3], faulty_engine.ABORT))
        hanging = [asyncio.create_task(read(client, each)) for each in healthy]
        await asyncio.sleep(0.01)
        with pytest.raises(KilledEngine, match="no other") as caught:
            await read(client, poison)
        assert (caught.value.status, caught.value.code) == (500, "request_killed_engine")
        for told, expected in zip(await asyncio.gather(*hanging), calm, strict=True):
            same(told, expected)
        assert [loss.culprit for loss in losses if loss.culprit] == ["poison"]
        assert client.is_ready

    serving(job, FAULTY)


def test_a_request_that_hangs_the_engine_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "STILL_S", 1.0)

    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        healthy = [request(f"h{number}", 40, (*PROMPT, number), seed=number) for number in range(3)]
        reading = [asyncio.create_task(read(client, each)) for each in healthy]
        with pytest.raises(KilledEngine, match="stands still in a step"):
            await read(client, request("poison", prompt=(*PROMPT[:3], faulty_engine.HANG)))
        for told, each in zip(await asyncio.gather(*reading), healthy, strict=True):
            same(told, await read(client, each))
        assert {loss.cause for loss in losses} == {"stalled"}

    serving(job, FAULTY)


def test_engines_that_die_as_soon_as_they_start_are_given_up_and_tried_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarts, "FIRST_S", 0.01)
    monkeypatch.setattr(supervisor_module, "REST_S", 0.5)

    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        keeper = supervisor(client)
        start = keeper._start
        keeper._start = lambda: ProcessLink(small_plan(), BUNDLED, module="no_such_engine")
        kill(client)
        while client.is_ready:
            await asyncio.sleep(0.001)
        with pytest.raises(EngineDead, match="engines die as soon as they are started"):
            await read(client, request("waits"))
        assert losses[-1].is_final
        assert [loss.cause for loss in losses] == ["killed", *["exited"] * 5]
        with pytest.raises(EngineDead):
            await read(client, request("comes later"))
        assert "engines die" in (client.why_not_ready or "")
        keeper._start = start
        while not client.is_ready:
            await asyncio.sleep(0.02)
        assert len(of(await read(client, request("comes at last", 5)), 0)) == 5

    serving(job)


def test_engines_that_are_killed_as_they_start_were_killed_by_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "FIRST_S", 0.01)
    num_young = restarts.MOST_FRUITLESS + 2

    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        calm = await read(client, request("a", 30))
        keeper = supervisor(client)
        start, young = keeper._start, []

        def begin() -> ProcessLink:
            link = start()
            assert isinstance(link, ProcessLink)
            if len(young) < num_young:
                young.append(link)
                link.process.kill()  # not by `link.kill`, which is ours
            return link

        keeper._start = begin
        reading = asyncio.create_task(read(client, request("a", 30), lambda n: kill(client) if n == 10 else None))
        same(await reading, calm)
        assert len(young) == num_young
        assert {(loss.cause, loss.how) for loss in losses} == {("killed", "killed by SIGKILL")}

    serving(job)


def test_an_engine_that_stands_still_is_ended_and_replaced() -> None:
    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        (calm,) = await asyncio.gather(read(client, request("a", 30)))
        stopped_s = asyncio.get_running_loop().time()

        def stop(num_tokens: int) -> None:
            if num_tokens == 10:
                kill(client, signal.SIGSTOP)

        reading = asyncio.create_task(read(client, request("a", 30), stop))
        while client.is_ready:
            await asyncio.sleep(0.02)
        assert "is stopped" in (client.why_not_ready or "")
        assert asyncio.get_running_loop().time() - stopped_s < 5
        same(await reading, calm)
        while not losses or losses[-1].seconds is None:  # continued to say where it stood, it may have said it all
            await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - stopped_s < 15
        assert [loss.cause for loss in losses] == ["stalled", "stalled"]
        assert client.is_ready

    serving(job)


def test_whoever_comes_while_there_is_no_engine_waits() -> None:
    async def job(client: EngineClient, losses: list[EngineLoss]) -> None:
        kill(client)
        while client.is_ready:
            await asyncio.sleep(0.001)
        deltas = await read(client, request("late", 5))
        assert len(of(deltas, 0)) == 5
        assert deltas[-1].finish is Finish.LENGTH
        assert losses[-1].num_replayed == 0

    serving(job)
