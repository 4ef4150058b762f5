"""The grammar process is lost in the middle of constrained answers: whoever reads one does not notice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from quire.engine import client as client_module
from quire.engine.client import EngineClient
from quire.engine.messages import Abort, FromEngine, Prepare, Prepared, Ready, StepReport, Submit, ToEngine
from quire.engine.open_request import MOST_RECALLS
from quire.engine.process import spawn
from quire.engine.supervisor import Supervisor
from quire.events import CacheUse, StepStats
from quire.form import StructuredOutputsParams
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import plan
from quire.request import Constraint, Finish, Request, SamplingParams
from quire.settings import EngineSettings
from quire.step import FORM_LOST, Delta
from quire.structured.source import grammar_of

SPEC = read_model_spec(BUNDLED)
FORM = Constraint(grammar_of(StructuredOutputsParams(regex="[A-Z][a-z]{20,40}( [0-9]{2}){2,5}")), "somebody")
OTHER = Constraint(grammar_of(StructuredOutputsParams(regex="([a-z]{3,9} ){9,30}")), "somebody else")


def request(name: str, form: Constraint | None, **params: object) -> Request:
    values = {"seed": 3, "temperature": 1.0, "max_tokens": 80} | params
    made = Request(name, (5, 6, 7, 8, 9, 10), SamplingParams(**values), constraint=form)  # type: ignore[arg-type]
    return replace(made, eos_ids=SPEC.eos_ids)


ASKED = {
    "formed": request("formed", FORM),
    "two": request("two", FORM, n=2, logprobs=1),
    "other": request("other", OTHER, prompt_logprobs=1),
    "plain": request("plain", None, ignore_eos=True),
}


def grammar_process(client: EngineClient) -> int | None:
    assert isinstance(client.keeper, Supervisor)
    engine = client.keeper.link.process.pid  # type: ignore[attr-defined]
    for pid in Path(f"/proc/{engine}/task/{engine}/children").read_text().split():
        if Path(f"/proc/{pid}/comm").read_text().strip() == "quire-grammars":
            return int(pid)
    return None


async def read(
    client: EngineClient, asked: Request, at: Callable[[int], None] | None = None
) -> dict[int, list[object]]:
    """Tokens, log probabilities and ends of each sample; `at` is told how many tokens there are after each."""
    found: dict[int, list[object]] = {index: [] for index in range(asked.params.n)}
    if asked.constraint is not None:
        await client.prepare(asked.constraint)
    num_tokens = 0
    async for delta in client.stream(asked):
        assert delta.error is None
        found[delta.index] += [*delta.tokens, *delta.logprobs, *delta.prompt_logprobs]
        found[delta.index] += [delta.finish] if delta.finish is not None else []
        num_tokens += len(delta.tokens)
        if at is not None:
            at(num_tokens)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_answers_go_on_to_the_bit_when_the_grammar_process_is_lost(number: signal.Signals) -> None:
    async def job(client: EngineClient) -> None:
        calm = await asyncio.gather(*(read(client, each) for each in ASKED.values()))
        moments, hurt = [4, 25], []

        def shoot(num_tokens: int) -> None:
            if moments and num_tokens >= moments[0] and (pid := grammar_process(client)) not in (None, *hurt):
                moments.pop(0)
                hurt.append(pid)
                os.kill(pid, number)

        met = await asyncio.gather(*(read(client, each, shoot) for each in ASKED.values()))
        assert hurt
        assert met == calm
        assert recalls
        assert client.num_open == 0
        assert client.is_ready

    recalls: list[int] = []

    async def run() -> None:
        settings = EngineSettings(max_model_len=512, max_num_seqs=8)
        client = spawn(plan(settings, probe(), SPEC, str(BUNDLED)), BUNDLED)
        client.on_recall = recalls.append
        try:
            await client.start()
            await asyncio.wait_for(job(client), 120)
        finally:
            await client.close()

    asyncio.run(run())


class Scripted:
    """A link whose engine says what the test says, and compiles a grammar unless there are `busy` left to say so."""

    def __init__(self) -> None:
        self.sent: list[ToEngine] = []
        self.num_busy = 0
        self.say: Callable[[FromEngine], None]

    async def open(self, on_message: Callable[[FromEngine], None], on_lost: Callable[[str], None]) -> None:
        self.say = on_message
        on_message(Ready(isa="none", kernels=(), load_s=0.0))

    def send(self, message: ToEngine) -> None:
        self.sent.append(message)
        if isinstance(message, Prepare):
            kind = "Overloaded" if self.num_busy else ""
            self.num_busy -= bool(kind)
            self.say(Prepared(message.id, kind, kind and "too many"))

    async def close(self) -> None:
        pass

    def tell(self, *deltas: Delta) -> None:
        self.say(StepReport(deltas, StepStats(0, 0, 0, 0, 0, 0, 0, 0.0, CacheUse(0, 0, 0, 0, 16, 0))))

    @property
    def submitted(self) -> list[Request]:
        return [message.request for message in self.sent if isinstance(message, Submit)]


def lost(index: int) -> Delta:
    return Delta("r", index, finish=Finish.ERROR, error=FORM_LOST)


def scripted(script: Callable[[Scripted, EngineClient], None], num_samples: int) -> list[Delta]:
    """What a reader hears while `script` runs."""

    async def run() -> list[Delta]:
        link = Scripted()
        client = EngineClient(link)
        await client.start()
        heard: list[Delta] = []

        async def listen() -> None:
            async for delta in client.stream(request("r", FORM, n=num_samples)):
                heard.append(delta)

        reader = asyncio.create_task(listen())
        await asyncio.sleep(0)
        script(link, client)
        await asyncio.wait_for(reader, 10)
        return heard

    return asyncio.run(run())


def test_what_is_left_is_asked_for_once_the_engine_has_nothing_left_of_it() -> None:
    """Sample 0 has ended, 1 is lost, 2 stood in no row: it draws once more before the engine hears of the recall."""

    def script(link: Scripted, client: EngineClient) -> None:
        link.tell(Delta("r", 0, (1,)), Delta("r", 1, (2,)), Delta("r", 0, (3,), finish=Finish.STOP))
        link.tell(lost(1))
        assert isinstance(link.sent[-1], Abort)
        link.tell(Delta("r", 2, (4,)))
        assert len(link.submitted) == 1
        link.tell(Delta("r", 2, finish=Finish.ABORT))
        asyncio.get_running_loop().call_soon(script_end, link)

    def script_end(link: Scripted) -> None:
        again = link.submitted[-1].resumed
        assert again is not None
        assert again.samples == ((1, (2,)), (2, (4,)))
        link.tell(Delta("r", 1, (5,), finish=Finish.LENGTH), Delta("r", 2, (6,), finish=Finish.LENGTH))

    heard = scripted(script, 3)
    assert [(delta.index, delta.tokens, delta.finish) for delta in heard if delta.finish] == [
        (0, (3,), Finish.STOP), (1, (5,), Finish.LENGTH), (2, (6,), Finish.LENGTH),
    ]  # fmt: skip
    assert [delta.tokens for delta in heard] == [(1,), (2,), (3,), (4,), (5,), (6,)]


def test_who_leaves_a_recalled_sample_has_left() -> None:
    def script(link: Scripted, client: EngineClient) -> None:
        link.tell(lost(0))
        client.abort("r", 1)
        link.tell(Delta("r", 1, finish=Finish.ABORT))
        asyncio.get_running_loop().call_soon(script_end, link)

    def script_end(link: Scripted) -> None:
        again = link.submitted[-1].resumed
        assert again is not None
        assert again.samples == ((0, ()),)
        link.tell(Delta("r", 0, (7,), finish=Finish.STOP))

    heard = scripted(script, 2)
    assert [(delta.index, delta.finish) for delta in heard] == [(1, Finish.ABORT), (0, Finish.STOP)]


def test_whose_grammar_is_one_too_many_at_once_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was served before, and is in the middle of its answer."""
    monkeypatch.setattr(client_module, "GRAMMAR_RETRY_S", 0.001)

    def script(link: Scripted, client: EngineClient) -> None:
        link.num_busy = 3
        link.tell(lost(0))
        asyncio.get_running_loop().call_soon(script_end, link)

    def script_end(link: Scripted) -> None:
        if len(link.submitted) < 2:
            asyncio.get_running_loop().call_later(0.001, script_end, link)
            return
        asked = [message for message in link.sent if isinstance(message, Prepare)]
        assert [message.is_known for message in asked] == [True] * 4
        link.tell(Delta("r", 0, (7,), finish=Finish.STOP))

    assert [delta.finish for delta in scripted(script, 1)] == [Finish.STOP]


def test_an_answer_is_not_recalled_for_ever() -> None:
    def script(link: Scripted, client: EngineClient) -> None:
        link.tell(lost(0))
        if len(link.submitted) <= MOST_RECALLS:
            asyncio.get_running_loop().call_soon(script, link, client)

    heard = scripted(script, 1)
    assert [(delta.finish, delta.error) for delta in heard] == [(Finish.ERROR, FORM_LOST)]
