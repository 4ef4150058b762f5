"""A step that raises: whoever makes it raise ends, alone; what the others get is what they would have got.

Knows: the engine over the fake runner and over the bundled model, and runners that raise. Does not know: processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.build import Built, build_engine, build_scheduler
from quire.engine.engine import Engine
from quire.engine.rescue import MOST_HOPELESS, Rescue
from quire.errors import EngineDead, Quarantined, StepFailed
from quire.form import StructuredOutputsParams
from quire.hardware import probe
from quire.llm import BUNDLED
from quire.model_spec import read_model_spec
from quire.plan import Plan, plan
from quire.request import Constraint, Finish, Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.settings import EngineSettings
from quire.step import STEP_RAISED, Delta, Step, StepResult, failure
from quire.structured.source import grammar_of

MAGIC = 13
MOST_ROWS = 16
Answers = dict[tuple[str, int], tuple[tuple[object, ...], Finish | None]]  # tokens and what was thought of them


class Raising:
    """A runner that raises in every step in which `is_bad` finds a work, after it has run for the others too."""

    def __init__(self, runner: FakeRunner, is_bad: Callable[[Step], bool]) -> None:
        self.runner, self.is_bad = runner, is_bad
        self.sizes: list[int] = []

    def run(self, step: Step) -> StepResult:
        self.sizes.append(len(step.works))
        result = self.runner.run(step)
        if self.is_bad(step):
            raise MemoryError("too much for this one")
        return result

    def rest(self) -> None:
        self.runner.rest()


def holds_magic(step: Step) -> bool:
    return any(MAGIC in work.tokens for work in step.works)


def engine_of(is_bad: Callable[[Step], bool], rescue: Rescue | None, num_blocks: int = 400) -> Engine:
    limits = SchedulerLimits(max_num_seqs=MOST_ROWS, max_num_batched_tokens=64, max_model_len=200, block_size=4)
    scheduler = Scheduler(limits, BlockPool(num_blocks), PrefixIndex(4))
    return Engine(scheduler, Raising(FakeRunner(100, 4), is_bad), rescue=rescue)


def quiet(probe: Callable[[], object] | None = None) -> tuple[Rescue, list[BaseException]]:
    problems: list[BaseException] = []
    return Rescue(probe, problems.append), problems


def serve(engine: Engine, requests: Iterable[Request], most_steps: int = 500) -> Answers:
    for request in requests:
        engine.add(request, 0.0)
    told: dict[tuple[str, int], list[Delta]] = {}
    for number in range(most_steps):
        if not engine.has_work:
            break
        for delta in engine.advance(float(number)) or ():
            told.setdefault((delta.request_id, delta.index), []).append(delta)
        if engine.last_shape is not None:
            engine.timed((), 0.01)
        engine.scheduler.check()
    assert not engine.has_work
    assert engine.scheduler.cache_use().num_used == 0
    assert all(sum(delta.finish is not None for delta in each) == 1 for each in told.values())
    return {
        key: (sum([(*delta.tokens, *delta.logprobs) for delta in each], ()), each[-1].finish)
        for key, each in told.items()
    }


def request(name: str, prompt: Iterable[int], max_tokens: int = 12, **params: object) -> Request:
    return Request(name, tuple(prompt), SamplingParams(seed=3, max_tokens=max_tokens, ignore_eos=True, **params))  # type: ignore[arg-type]


def innocent(number: int, length: int = 7) -> Request:
    return request(f"good-{number}", [20 + (number * 31 + place * 7) % 70 for place in range(length)], n=1 + number % 3)


def avoiding_magic(answers: Answers) -> bool:
    return not any(MAGIC in tokens for tokens, _ in answers.values())


@settings(max_examples=40, deadline=None)
@given(
    good=st.lists(st.integers(0, 60), min_size=1, max_size=9, unique=True),
    places=st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_who_makes_a_step_raise_ends_alone(good: list[int], places: list[int]) -> None:
    num_rows = sum(innocent(number).params.n for number in good) + len(places)
    assume(num_rows <= MOST_ROWS)  # so that those who raise stand beside others: alone they look like a broken machine
    wanted = serve(engine_of(lambda step: False, None), [innocent(number) for number in good])
    if not avoiding_magic(wanted):
        return  # an answer that is as bad as the request below
    requests = [innocent(number) for number in good]
    for number, place in enumerate(places):
        requests.insert(min(place, len(requests)), request(f"bad-{number}", [50, MAGIC, number]))
    rescue, problems = quiet(lambda: None)
    engine = engine_of(holds_magic, rescue)
    got = serve(engine, requests)
    ended = {f"bad-{number}": got.pop((f"bad-{number}", 0)) for number in range(len(places))}
    assert got == wanted
    assert set(ended.values()) == {((), Finish.ERROR)}
    assert problems
    assert rescue.num_hopeless < MOST_HOPELESS


def test_what_it_costs_to_find_one_among_many() -> None:
    engine = engine_of(holds_magic, quiet()[0])
    runner = engine.runner
    assert isinstance(runner, Raising)
    requests = [request(f"good-{number}", [20 + number, 30], n=1) for number in range(15)]
    serve(engine, [*requests, request("bad", [MAGIC])])
    first = runner.sizes[: 1 + 2 * 4 + 1]
    assert first == [16, 8, 8, 4, 4, 2, 2, 1, 1, 1]  # whole, halves of the half that raises, and once more
    assert set(runner.sizes[len(first) :]) == {15}


def test_every_sample_of_it_ends_and_nothing_of_it_is_found_again() -> None:
    """Three samples part, one draws a token that the next step cannot compute: the request ends whole."""
    poison: list[int] = []
    rescue, _ = quiet()
    engine = engine_of(lambda step: any(list(work.tokens) == poison for work in step.works), rescue)
    engine.add(request("bad", range(20, 40), n=3, temperature=1.0), 0.0)
    engine.add(innocent(4), 0.0)
    drawn = {
        delta.index: delta.tokens for delta in engine.advance(0.0) or () if delta.request_id == "bad" and delta.tokens
    }
    assert len(set(drawn.values())) > 1
    poison += drawn[1]
    deltas = [delta for delta in engine.advance(1.0) or () if delta.request_id == "bad" and delta.finish]
    assert sorted((delta.index, delta.finish) for delta in deltas) == [(index, Finish.ERROR) for index in range(3)]
    assert {delta.error for delta in deltas} == {STEP_RAISED}
    assert isinstance(failure(STEP_RAISED), StepFailed)
    assert engine.timed((), 0.1).stats.faults  # told once for each work that raised
    with pytest.raises(Quarantined, match="bad"):
        engine.add(request("bad", [40]), 2.0)
    engine.add(request("again", range(20, 40), n=1), 2.0)
    found = [delta for delta in engine.advance(2.0) or () if delta.request_id == "again"]
    assert [delta.num_cached for delta in found] == [0]
    engine.scheduler.check()


@pytest.mark.parametrize("num_requests", [1, 2, 9])
def test_where_all_raise_nobody_is_ended_and_the_engine_gives_up(num_requests: int) -> None:
    rescue, problems = quiet(None if num_requests > 1 else lambda: 1 / 0)
    engine = engine_of(lambda step: True, rescue)
    for number in range(num_requests):
        engine.add(request(f"r-{number}", [20 + number] * 3), 0.0)
    with pytest.raises(EngineDead, match="nothing can be computed"):
        engine.advance(0.0)
    assert isinstance(problems[0], MemoryError)
    assert engine.scheduler.num_running == num_requests


def test_what_passes_by_itself_harms_nobody() -> None:
    """The machine fails twice, and is well again."""
    troubles = iter([True] * 7 + [False] * 1000)
    rescue, _ = quiet()
    wanted = serve(engine_of(lambda step: False, None), [innocent(number) for number in range(3)])
    got = serve(engine_of(lambda step: next(troubles), rescue), [innocent(number) for number in range(3)])
    assert got == wanted
    assert rescue.num_hopeless == 0


def test_one_that_is_alone_ends_if_the_probe_comes_through_and_three_in_a_row_are_too_many() -> None:
    rescue, _ = quiet(lambda: None)
    engine = engine_of(holds_magic, rescue)
    for number in range(2):
        assert serve(engine, [request(f"bad-{number}", [MAGIC])]) == {(f"bad-{number}", 0): ((), Finish.ERROR)}
    assert serve(engine, [request("good", [40], 2)])["good", 0][1] is Finish.LENGTH  # and the count begins anew
    for number in range(2, 4):
        serve(engine, [request(f"bad-{number}", [MAGIC])])
    with pytest.raises(EngineDead):
        serve(engine, [request("bad-4", [MAGIC])])


def test_blocks_are_copied_before_and_never_after_a_part_came_through() -> None:
    """Samples that part in the middle of a block copy it in the step that is cut into halves."""
    steps: list[Step] = []

    def is_bad(step: Step) -> bool:
        steps.append(step)
        return len(step.works) > 2 and any(len(each.copies) > 0 for each in steps[-1:])

    wanted = serve(engine_of(lambda step: False, None), [request("r", range(20, 26), n=4, temperature=1.0)])
    rescue, _ = quiet()
    assert serve(engine_of(is_bad, rescue), [request("r", range(20, 26), n=4, temperature=1.0)]) == wanted
    assert any(len(step.works) == 2 and step.copies for step in steps)


# ---- the bundled model ----------------------------------------------------------------------------------------------


def bundled_plan() -> Plan:
    settings = EngineSettings(dtype="bfloat16", kv_cache_memory_bytes=2**25, threads=1)
    return plan(settings, probe(), read_model_spec(BUNDLED))


@pytest.fixture(scope="module")
def built() -> Iterable[Built]:
    built = build_engine(bundled_plan(), BUNDLED)
    yield built
    built.grammars.close()
    built.device.close()


def test_others_get_the_same_bits_with_penalties_masks_and_log_probabilities(built: Built) -> None:
    """Draws are prepared again, tokens counted again, grammars told again: nothing of it may show."""
    formed = Constraint(grammar_of(StructuredOutputsParams(regex="[A-Z][a-z]{3,40}( [0-9]{2}){2,5}")))
    ends = read_model_spec(BUNDLED).eos_ids
    requests = [
        request("plain", range(30, 60), 20),
        request("penalised", range(40, 60), 20, repetition_penalty=1.3, frequency_penalty=0.4),
        Request("formed", tuple(range(50, 80)), SamplingParams(seed=5, max_tokens=40), ends, constraint=formed),
        request("told", range(60, 90), 20, logprobs=3, n=2),
        request("processed", range(70, 95), 20, logits_processors=[lambda ids, row: None]),
        request("worded", range(70, 99), 20, allowed_token_ids=list(range(40, 90))),
    ]

    vocab_size = read_model_spec(BUNDLED).vocab_size

    def answers(is_bad: Callable[[Step], bool]) -> tuple[Answers, int]:
        rescue, problems = quiet(lambda: None)
        runner = Raising(built.engine.runner, is_bad)  # type: ignore[arg-type]
        engine = Engine(build_scheduler(bundled_plan(), vocab_size), runner, None, built.grammars, rescue)
        return serve(engine, requests), len(problems)

    wanted, _ = answers(lambda step: False)
    assert len(wanted) == 7
    assert all(finish is not Finish.ERROR for _, finish in wanted.values()), wanted
    number = iter(range(10**6))
    got, num_problems = answers(lambda step: len(step.works) > 1 and next(number) % 3 == 1)
    assert num_problems > 2
    assert got == wanted
