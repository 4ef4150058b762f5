"""Tokens that the model does not have end their request before anybody is told of them, and no other one.

Knows: the engine over a runner that draws such tokens. Does not know: models.
"""

from __future__ import annotations

import pytest

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.engine import Engine
from quire.errors import IdOutOfRange, RequestError
from quire.request import Finish, Request, Resumed, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.step import ID_OUT_OF_RANGE, Delta, Step, StepResult, TokenLogprob, WorkResult, failure

VOCAB = 100


class Slipping:
    """A runner whose works of one token draw `token` from the given step on, for sequences that begin with 1."""

    def __init__(self, token: int, from_step: int, how: str) -> None:
        self.runner = FakeRunner(VOCAB, 4)
        self.token, self.from_step, self.how = token, from_step, how

    def run(self, step: Step) -> StepResult:
        works = []
        for work, result in zip(step.works, self.runner.run(step).works, strict=True):
            is_victim = work.draw is not None and work.draw.history[0] == 1 and step.id >= self.from_step
            works.append(self._slip(result) if is_victim else result)
        return StepResult(tuple(works))

    def rest(self) -> None:
        self.runner.rest()

    def _slip(self, result: WorkResult) -> WorkResult:
        if self.how == "drawn":
            return WorkResult((self.token,), result.logprobs)
        if self.how == "forced":
            return WorkResult(result.tokens, (), (), None, (5, self.token))
        told = TokenLogprob(result.tokens[0], -1.0, ((self.token, -0.5),))
        return WorkResult(result.tokens, (told,))


def serve(engine: Engine, requests: list[Request]) -> dict[str, list[Delta]]:
    told: dict[str, list[Delta]] = {request.id: [] for request in requests}
    for request in requests:
        engine.add(request, 0.0)
    while engine.has_work:
        for delta in engine.advance(0.0) or ():
            told[delta.request_id].append(delta)
        engine.scheduler.check()
    return told


def make_engine(runner: object) -> Engine:
    limits = SchedulerLimits(4, 64, 100, 4, VOCAB)
    return Engine(Scheduler(limits, BlockPool(100), PrefixIndex(4)), runner)  # type: ignore[arg-type]


def requests() -> list[Request]:
    return [
        Request(name, prompt, SamplingParams(seed=3, max_tokens=15, ignore_eos=True, logprobs=1))
        for name, prompt in (("victim", (1, 2, 3, 4, 5)), ("healthy", (6, 7, 8)))
    ]


@pytest.mark.parametrize("how", ["drawn", "forced", "told"])
@pytest.mark.parametrize("from_step", [1, 2, 6])
@pytest.mark.parametrize("token", [-1, VOCAB, 2**31 - 1, -(2**31)])
def test_such_a_token_is_told_to_nobody(token: int, from_step: int, how: str) -> None:
    wanted = serve(make_engine(FakeRunner(VOCAB, 4)), requests())
    engine = make_engine(Slipping(token, from_step, how))
    got = serve(engine, requests())
    assert got["healthy"] == wanted["healthy"]
    assert got["victim"][:-1] == wanted["victim"][: from_step - 1]
    last = got["victim"][-1]
    assert (last.tokens, last.finish, last.error) == ((), Finish.ERROR, ID_OUT_OF_RANGE)
    assert isinstance(failure(last.error), IdOutOfRange)
    assert engine.scheduler.cache_use().num_cached == (3 + 14) // 4  # the healthy one's full blocks alone


@pytest.mark.parametrize("wrong", [-1, VOCAB, 2**40])
def test_a_request_that_holds_one_is_refused(wrong: int) -> None:
    engine = make_engine(FakeRunner(VOCAB, 4))
    params = SamplingParams(seed=3, max_tokens=15)
    for bad in (
        Request("r", (1, 2, wrong, 4), params),
        Request("r", (1, 2), params, resumed=Resumed(((0, (5, wrong)),))),
    ):
        with pytest.raises(RequestError, match=f"got {wrong}; allowed: 0 to {VOCAB - 1}") as caught:
            engine.add(bad, 0.0)
        assert caught.value.code == IdOutOfRange.default_code
    engine.add(Request("r", (1, 2), params, resumed=Resumed(((0, (5, 6)),))), 0.0)
    deltas = engine.advance(0.0)
    assert deltas is not None
    assert engine.timed(deltas, 0.1).stats.faults == ("id_out_of_range",) * 2
