"""An engine that looks at itself: what it can see, when it looks, and that nobody else notices.

Knows: the canary and the sums on the bundled model, the examiner over checks made up here. Does not know: processes.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.engine import loop
from quire.engine.build import Built, build_engine, build_scheduler, make_examiner
from quire.engine.client import EngineClient
from quire.engine.engine import Engine
from quire.engine.examiner import BUSY_FACTOR, Examiner
from quire.engine.local import ThreadLink
from quire.engine.messages import FromEngine, StepReport, Submit, ToEngine
from quire.events import Examined
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import CANARY_FACTOR, CANARY_FLOOR_S, Plan, plan
from quire.request import Request, SamplingParams
from quire.runner.canary import Canary
from quire.runner.fake import FakeRunner
from quire.runner.runner import ModelRunner
from quire.runner.weight_sums import WeightSums, arrays_of
from quire.settings import EngineSettings


def bundled_plan(**options: object) -> Plan:
    settings = EngineSettings(kv_cache_memory_bytes=2**24, threads=2, **options)  # type: ignore[arg-type]
    return plan(settings, probe(), read_model_spec(BUNDLED))


@pytest.fixture(scope="module", params=["none", "int4"])
def built(request: pytest.FixtureRequest) -> Iterator[Built]:
    built = build_engine(bundled_plan(quantization=request.param), BUNDLED)
    yield built
    built.grammars.close()
    built.device.close()


def runner_of(built: Built) -> ModelRunner:
    assert isinstance(built.engine.runner, ModelRunner)
    return built.engine.runner


def flip(array: np.ndarray, place: int, bit: int) -> None:
    """Change one bit behind everybody's back, as a fault of the memory would."""
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    memory[place] ^= 1 << bit


def test_the_sums_see_every_flip_in_everything_that_the_model_holds(built: Built) -> None:
    model = runner_of(built).model
    sums = WeightSums(model)
    sums.begin()
    names = {name.split(".")[-1] for name, _ in arrays_of(model)}
    assert {"weight", "weight_H", "cos_PD2", "sin_PD2"} <= names
    assert sums.num_bytes > 0.9 * bundled_plan(quantization="int4").weights.total
    rng = random.Random(0)
    for name, words in rng.sample(list(arrays_of(model)), 20):
        place, bit = rng.randrange(words.nbytes), rng.randrange(8)
        flip(words, place, bit)
        found = {sums.examine() for _ in range(sums.num_parts)}
        assert len(found - {None}) == 1
        assert f"bytes of {name} are not" in str(found)
        flip(words, place, bit)
        assert {sums.examine() for _ in range(sums.num_parts)} == {None}


def test_the_canary_sees_most_flips_and_all_that_matter(built: Built) -> None:
    """Among high bits of weights at random nearly all; in a norm, or a NaN, always."""
    runner = runner_of(built)
    canary = Canary(runner.model, runner.machine)
    canary.begin()
    assert canary.examine() is None
    packed = [block.mlp.down.weight.buffer() for block in runner.model.blocks]
    rng, num_seen = random.Random(1), 0
    for _ in range(40):
        array = rng.choice(packed)
        place = rng.randrange(array.size // 2) | 1  # the half that holds no padding; a high byte
        flip(array, place, 6)
        num_seen += canary.examine() is not None
        flip(array, place, 6)
    assert num_seen >= 20
    norm = runner.model.blocks[1].input_norm.weight_H
    flip(norm, 3, 6)
    assert "gives" in str(canary.examine())
    flip(norm, 3, 6)
    assert canary.examine() is None


def test_an_engine_computes_the_same_beside_it(built: Built) -> None:
    """Its pages, the pool, the prefix cache, recordings of steps: nobody can tell that it ran."""

    def serve(examines: bool) -> tuple[list[object], object]:
        scheduler = build_scheduler(bundled_plan(), read_model_spec(BUNDLED).vocab_size)
        engine = Engine(scheduler, runner_of(built))
        if examines:
            engine.examiner = Examiner([canary], lambda: 0.0, 1.0)
        for number in range(5):
            params = SamplingParams(seed=number, max_tokens=20 + number, ignore_eos=True, logprobs=2)
            engine.add(Request(str(number), tuple(range(9 + number, 40 + number)), params), 0.0)
        told: list[object] = []
        for turn in range(30):
            told += engine.advance(float(turn)) or ()
            assert [found.outcome for found in engine.examine(4.0 * turn)] == ["ok"] * (examines and turn > 0)
        return told, engine.scheduler.cache_use()

    runner = runner_of(built)
    canary = Canary(runner.model, runner.machine)
    plain, beside = serve(False), serve(True)
    assert beside == plain
    assert canary.examine() is None


# ---- when -------------------------------------------------------------------------------------------------------


class Scripted:
    """A check of some parts, that costs `cost_s` of a clock of its own and is wrong where `wrong` says so."""

    def __init__(self, num_parts: int, cost_s: float, name: str = "check") -> None:
        self.name, self.num_parts, self.cost_s = name, num_parts, cost_s
        self.now, self.spent, self.looks = 0.0, 0.0, 0
        self.wrong: list[bool] = []

    def begin(self) -> None:
        self._pay(self.cost_s)

    def examine(self) -> str | None:
        self.looks += 1
        self._pay(self.cost_s / self.num_parts)
        return "it is not what it was" if self.wrong and self.wrong.pop(0) else None

    def _pay(self, seconds: float) -> None:
        self.now += seconds
        self.spent += seconds

    def clock(self) -> float:
        return self.now


@given(
    st.integers(1, 500),
    st.floats(1e-5, 3.0),
    st.lists(st.tuples(st.booleans(), st.floats(0.001, 60.0)), min_size=1, max_size=60),
)
@settings(deadline=None, max_examples=60)
def test_it_takes_its_share_of_the_time_and_no_more(
    num_parts: int, cost_s: float, turns: list[tuple[bool, float]]
) -> None:
    check = Scripted(num_parts, cost_s)
    examiner = Examiner([check], check.clock, CANARY_FLOOR_S, CANARY_FACTOR)
    (period,) = examiner.periods
    assert period.idle_s == max(CANARY_FLOOR_S, CANARY_FACTOR * cost_s)
    assert period.busy_s == BUSY_FACTOR * period.idle_s
    start, check.spent, check.looks = check.now, 0.0, 0
    idle_s = busy_s = 0.0
    for is_idle, seconds in turns:
        check.now += seconds
        idle_s, busy_s = (idle_s + seconds, busy_s) if is_idle else (idle_s, busy_s + seconds)
        examiner.look(is_idle, check.now)
    assert check.now >= start
    one = cost_s / num_parts
    longest = max(seconds for _, seconds in turns)  # busy time before an idle turn counts as idle
    assert check.spent <= (idle_s + busy_s + check.spent + longest) / CANARY_FACTOR + one


@pytest.mark.parametrize("is_idle", [True, False])
def test_all_of_it_is_looked_at_within_the_period_that_is_told(is_idle: bool) -> None:
    check = Scripted(150, 0.1)
    examiner = Examiner([check], check.clock, CANARY_FLOOR_S, CANARY_FACTOR)
    period_s = examiner.periods[0].idle_s if is_idle else examiner.periods[0].busy_s
    start, found = check.now, []
    while not found:
        check.now += 1.0 if is_idle else 0.03
        found = examiner.look(is_idle, check.now)
    assert [each.outcome for each in found] == ["ok"]
    assert check.looks == 150
    assert 0.9 * period_s <= check.now - start <= 1.1 * period_s


@pytest.mark.parametrize(
    ("wrong", "outcome", "ailment"),
    [([True], "differs", ""), ([True, True], "differs", ""), ([True] * 3, "differs", "it is not what it was")],
)
def test_what_passes_is_counted_and_what_stays_is_an_ailment(wrong: list[bool], outcome: str, ailment: str) -> None:
    check = Scripted(1, 0.01)
    examiner = Examiner([check], check.clock, CANARY_FLOOR_S, CANARY_FACTOR)
    check.wrong = wrong
    check.now += 20.0
    found = examiner.look(True, check.now)
    assert [(each.outcome, each.ailment) for each in found] == [(outcome, ailment)]
    assert examiner.ailment == ailment
    assert examiner.look(True, check.now) == []


def test_nothing_is_looked_at_where_the_operator_wants_nothing(built: Built) -> None:
    assert make_examiner(built.engine, bundled_plan(canary_interval=0), lambda: 0.0).periods == []
    told = make_examiner(built.engine, bundled_plan(canary_interval=3.0), lambda: 0.0)
    assert [(each.check, each.outcome, each.idle_s, each.busy_s) for each in told.periods] == [
        ("canary", "begun", 3.0, 12.0),
        ("weights", "begun", 3.0, 12.0),
    ]
    assert "canary is looked at within 3 s while idle, within 12 s under load" in told.notes[0]


# ---- who is told ------------------------------------------------------------------------------------------------


class Once:
    """A mailbox that brings one request, then nothing, and closes after some turns."""

    def __init__(self, num_turns: int) -> None:
        self.is_open = True
        self.sent: list[FromEngine] = []
        self._num_turns = num_turns
        params = SamplingParams(seed=1, max_tokens=5, ignore_eos=True)
        self._messages: list[ToEngine] = [Submit(Request("a", (1, 2), params))]

    def receive(self, wait: bool) -> list[ToEngine]:
        self._num_turns -= 1
        self.is_open = self._num_turns > 0
        messages, self._messages = self._messages, []
        return messages

    def send(self, message: FromEngine) -> None:
        self.sent.append(message)


def test_the_loop_looks_while_idle_and_between_steps_and_says_what_it_finds() -> None:
    check = Scripted(1, 0.001)
    engine = Engine(build_scheduler(bundled_plan()), FakeRunner())
    engine.examiner = Examiner([check], check.clock, 2.0)
    check.wrong = [False, True, True, True]
    mailbox = Once(40)

    def clock() -> float:
        check.now += 0.3
        return check.now

    loop.run(engine, mailbox, clock)
    found = [each for each in mailbox.sent if isinstance(each, Examined)]
    assert [each.outcome for each in found[:3]] == ["ok", "differs", "ok"]
    assert [each.ailment for each in found[:3]] == ["", "it is not what it was", ""]
    assert sum(isinstance(each, StepReport) for each in mailbox.sent) == 5


def test_a_client_is_not_ready_once_the_engine_ails() -> None:
    client = EngineClient(ThreadLink(Engine(build_scheduler(bundled_plan()), FakeRunner())))
    heard: list[Examined] = []
    client.on_examined = heard.append
    for found in (Examined("canary", "ok", 1.0, 4.0), Examined("canary", "differs", 1.0, 4.0, "it differs")):
        client._on_message(client._link, found)
    assert client.ailment == "it differs"
    client._on_message(client._link, Examined("canary", "ok", 1.0, 4.0))
    assert client.ailment == "it differs"  # until another engine takes over
    assert len(heard) == 3
