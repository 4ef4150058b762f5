"""Policies that reserve: laws over random work, and their rules by hand. Knows: small work. Does not know: speed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.errors import InternalError, RequestError
from quire.request import Request, SamplingParams
from quire.runner.fake import FakeRunner, choose_token
from quire.scheduling.limits import SchedulerLimits
from quire.sim.peers.continuous import ContinuousReserving
from quire.sim.peers.runs import Runs
from quire.sim.peers.static import StaticBatches
from quire.sim.savings.asks import END, Ask
from quire.sim.savings.policies import Policy, Setting, policies_named
from quire.sim.savings.serving import Serving
from quire.step import Draw, Step, StepResult

ALL = policies_named(("one", "static", "contiguous", "quire"), (24, 64))
VOCAB_SIZE = 50


class Ticking:
    """The fake runner, which refuses to read a slot that holds something else; every step takes a second."""

    def __init__(self, block_size: int) -> None:
        self.now_s = 0.0
        self.steps: list[Step] = []
        self._runner = FakeRunner(VOCAB_SIZE, block_size)

    def run(self, step: Step) -> StepResult:
        self.now_s += 1.0
        self.steps.append(step)
        return self._runner.run(step)

    def wait_until(self, at_s: float) -> None:
        self.now_s = max(self.now_s, at_s)


def serve(
    policy: Policy, asks: list[Ask], setting: Setting, concurrency: int | None = None
) -> tuple[Serving, list[Step]]:
    machine = Ticking(setting.limits.block_size)
    serving = Serving(policy.build(setting), asks, machine, concurrency)
    for _ in range(10_000):
        if not serving.advance():
            break
    serving.check()
    return serving, machine.steps


def ask_of(random: Random, at_s: float) -> Ask:
    num_output, num_prompt = random.randint(1, 12), random.choice((1, 2, 5, 16, 17, 30))
    prompt = tuple(random.randrange(VOCAB_SIZE) for _ in range(num_prompt))
    return Ask(at_s, prompt, num_output, random.choice((num_output, 12)))


def alone(ask: Ask) -> list[int]:
    history = list(ask.prompt)
    for _ in range(ask.num_output):
        history.append(choose_token(Draw(SamplingParams(temperature=0.0), (0,), history, 0), 0, VOCAB_SIZE))
    if ask.num_output < ask.most_tokens:
        history[-1] = END
    return history[len(ask.prompt) :]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_every_policy_serves_everyone_once_with_the_same_tokens_and_gives_all_memory_back(random: Random) -> None:
    size = random.choice((1, 4, 16))
    limits = SchedulerLimits(random.randint(1, 5), random.choice((1, 3, 8, 64)), 64, size)
    setting = Setting(limits, random.choice((1, 2, 5)) * 64 // size)
    at_s = sorted(random.choice((0.0, 0.0, random.uniform(0, 30))) for _ in range(random.randint(1, 9)))
    asks = [ask_of(random, each) for each in at_s]
    concurrency = random.choice((None, None, 1, 3))
    for policy in ALL:
        serving, _ = serve(policy, asks, setting, concurrency)
        assert [visit.tokens for visit in serving.visits.values()] == [alone(ask) for ask in asks], policy.name
        assert serving.meter.peak_running <= limits.max_num_seqs
        use = serving.meter.use
        shares = (use.held_share, use.reserved_share, use.fragmented_share)
        assert all(share >= 0 for share in shares)
        assert sum(shares) <= 1 + 1e-9


def asks_of(*sizes: tuple[int, int]) -> list[Ask]:
    most = max(num_output for _, num_output in sizes)
    return [
        Ask(0.0, tuple(range(number, number + num_prompt)), num_output, most)
        for number, (num_prompt, num_output) in enumerate(sizes)
    ]


def named(name: str, reserve_tokens: int = 0) -> Policy:
    return policies_named((name,), (reserve_tokens,) if reserve_tokens else ())[0]


SETTING = Setting(SchedulerLimits(4, 64, 64, 4), 64)


def test_one_at_a_time() -> None:
    serving, steps = serve(named("one"), asks_of((5, 3), (9, 2), (2, 4)), SETTING)
    assert serving.meter.peak_running == 1
    assert all(len(step.works) == 1 for step in steps)
    assert [visit.last_s for visit in serving.visits.values()] == [3.0, 5.0, 9.0]


def test_a_batch_is_padded_and_computes_its_dead_rows_until_all_have_ended() -> None:
    serving, steps = serve(named("static"), asks_of((5, 3), (9, 2), (2, 6), (9, 1), (3, 2)), SETTING)
    first = [visit.first_s for visit in serving.visits.values()]
    last = [visit.last_s for visit in serving.visits.values()]
    assert (first, last) == ([1.0, 1.0, 1.0, 1.0, 7.0], [3.0, 2.0, 6.0, 1.0, 8.0])
    assert steps[0].num_tokens == 4 * 9, "a rectangle"
    assert [len(step.works) for step in steps[1:]] == [4, 4, 4, 4, 4, 1, 1]
    assert serving.num_computed == 4 * 9 + 5 * 4 + 3 + 1


def test_a_batch_takes_as_many_rows_as_fit_the_memory() -> None:
    # 9 + 4 - 1 slots are 3 blocks, and one more where there is padding.
    for num_blocks, most in ((3, 1), (7, 1), (8, 2), (15, 3), (16, 4), (99, 4)):
        setting = Setting(SchedulerLimits(4, 64, 64, 4), num_blocks)
        serving, _ = serve(named("static"), asks_of((9, 4), (2, 4), (9, 4), (3, 4), (9, 4)), setting)
        assert serving.meter.peak_running == most
    serving, _ = serve(named("static"), asks_of(*[(9, 4)] * 4), Setting(SchedulerLimits(4, 64, 64, 4), 12))
    assert serving.meter.peak_running == 4, "alike: nothing is padded"


def test_reservations_bound_how_many_run_and_newcomers_join_at_once() -> None:
    serving, _ = serve(named("contiguous", 32), asks_of(*[(5, 3)] * 6), Setting(SchedulerLimits(4, 64, 64, 4), 27))
    assert serving.meter.peak_running == 3, "of 27 blocks 8 each"
    mixed, _ = serve(named("contiguous", 32), asks_of((5, 9), (5, 2), (5, 9), (5, 2)), SETTING)
    assert [visit.last_s for visit in mixed.visits.values()] == [9.0, 2.0, 9.0, 2.0]
    late, _ = serve(named("contiguous", 64), asks_of((5, 9), (5, 2), (5, 2)), Setting(SETTING.limits, 32))
    assert [visit.first_s for visit in late.visits.values()] == [1.0, 1.0, 3.0], "in the middle of the first's answer"


def test_a_request_longer_than_the_reservation_gets_what_it_needs() -> None:
    serving, _ = serve(named("contiguous", 4), asks_of((40, 3), (5, 3)), SETTING)
    assert serving.meter.use.reserved_share > 0


def test_what_a_policy_refuses() -> None:
    for scheduler in (ContinuousReserving(SETTING.limits, 8, 64), StaticBatches(SETTING.limits, 8, 4)):
        with pytest.raises(RequestError, match="KV cache"):
            scheduler.add(Request("a", (1,) * 50, SamplingParams(seed=0, max_tokens=9)))
        with pytest.raises(RequestError, match="one sample"):
            scheduler.add(Request("b", (1,), SamplingParams(seed=0, max_tokens=9, n=2)))
        assert scheduler.schedule(0.0) is None
        scheduler.add(Request("c", (1,), SamplingParams(seed=0, max_tokens=9)))
        assert scheduler.num_waiting == 1
        scheduler.schedule(0.0)
        with pytest.raises(InternalError, match="before the last one"):
            scheduler.schedule(0.0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_runs_are_disjoint_pieces_and_merge_again(random: Random) -> None:
    runs, held = Runs(40), []
    for _ in range(60):
        if held and random.random() < 0.45:
            runs.give_back(held.pop(random.randrange(len(held))))
        else:
            count = random.randint(1, 12)
            free = set(range(40)) - {block for run in held for block in run}
            fits = [start for start in range(40) if free.issuperset(range(start, start + count))]
            run = runs.take(count)
            assert run == (list(range(fits[0], fits[0] + count)) if fits else None), "first fit"
            held += [run] if run else []
        assert runs.num_free == 40 - sum(map(len, held))
    for run in held:
        runs.give_back(run)
    assert runs.take(40) == list(range(40))
    runs.give_back(list(range(40)))
    with pytest.raises(InternalError, match="came back twice"):
        runs.give_back([3, 4])
