"""Another engine's rules, one by one. Knows: small traces by hand. Does not know: how they are followed."""

from __future__ import annotations

from test_simulation import run

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.request import Request, SamplingParams
from quire.scheduling.limits import SchedulerLimits
from quire.sim.peers.vllm import VllmScheduler
from quire.sim.trace import Arrival
from quire.step import Step, StepResult, WorkResult


def asked(name: str, prompt: int, max_tokens: int) -> Request:
    return Request(name, tuple(range(prompt)), SamplingParams(seed=1, max_tokens=max_tokens))


def turn(scheduler: VllmScheduler) -> list[tuple[int, int, int]]:
    """(sequence, start, tokens) of each work of the next step."""
    step = scheduler.schedule(0.0)
    assert isinstance(step, Step)
    works = [(work.seq_id, work.start, len(work.tokens)) for work in step.works]
    results = StepResult(tuple(WorkResult((7,)) if work.draw else WorkResult() for work in step.works))
    scheduler.settle(step, results, 0.0)
    return works


def test_those_who_run_come_first_and_a_prompt_gets_what_is_left() -> None:
    scheduler = VllmScheduler(SchedulerLimits(8, 10, 100, 4), BlockPool(50), None)
    scheduler.add(asked("a", 3, 5))
    assert turn(scheduler) == [(1, 0, 3)]
    scheduler.add(asked("b", 20, 5))
    assert turn(scheduler) == [(1, 3, 1), (2, 0, 9)]
    assert turn(scheduler) == [(1, 4, 1), (2, 9, 9)]


def test_nobody_passes_one_that_does_not_fit() -> None:
    scheduler = VllmScheduler(SchedulerLimits(8, 64, 100, 4), BlockPool(6), None)
    scheduler.add(asked("a", 16, 4))
    scheduler.add(asked("big", 16, 4))
    scheduler.add(asked("small", 1, 4))
    assert turn(scheduler) == [(1, 0, 16)]
    assert turn(scheduler) == [(1, 16, 1)]


def test_a_prompt_comes_in_where_all_of_it_finds_room_though_it_is_read_in_parts() -> None:
    scheduler = VllmScheduler(SchedulerLimits(8, 8, 100, 4), BlockPool(6), None)
    scheduler.add(asked("a", 4, 4))
    scheduler.add(asked("big", 24, 1))
    assert turn(scheduler) == [(1, 0, 4)], "a block is taken: 24 tokens do not fit, though the first 4 would"
    while scheduler.stats().num_running:
        works = turn(scheduler)
    assert works == [(1, 6, 1)]
    assert turn(scheduler) == [(2, 0, 8)]
    assert scheduler.stats().cache.num_used == 2, "the rest is not taken before it is read"


def test_the_last_goes_back_and_computes_again_but_for_what_is_cached() -> None:
    scheduler = VllmScheduler(SchedulerLimits(8, 64, 100, 4), BlockPool(5), PrefixIndex(4))
    scheduler.add(Request("a", (1,) * 8, SamplingParams(seed=1, max_tokens=9)))
    scheduler.add(Request("b", (2,) * 8, SamplingParams(seed=1, max_tokens=3)))
    assert turn(scheduler) == [(1, 0, 8), (2, 0, 8)]
    assert turn(scheduler) == [(1, 8, 1)], "the second needs a block too, and is itself the last"
    assert scheduler.stats().num_preempted == 1
    waited = 0
    while (works := turn(scheduler)) and works[0][0] == 1 and len(works) == 1:
        waited += 1
    assert works[-1][0] == 2
    assert works[-1][1] in (4, 8), "its first blocks are found in the cache"
    assert scheduler.stats().num_repeated_tokens >= 0


def test_it_serves_a_trace_to_its_end() -> None:
    arrivals = [Arrival(number / 2, 20, 30) for number in range(40)]
    limits = SchedulerLimits(16, 64, 200, 4)
    ours, theirs = (run(arrivals, limits=limits, num_blocks=60, policy=rule) for rule in ("fair", "vllm"))
    assert theirs.ttft_s.count == ours.ttft_s.count == 40
    assert theirs.num_preempted > ours.num_preempted
    assert theirs.repeated_share > ours.repeated_share
