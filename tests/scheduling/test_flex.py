"""The flex lane beside the ordinary one. Knows: steps of both. Does not know: how what is left is found."""

from __future__ import annotations

from math import inf
from random import Random
from typing import Any

import pytest
from scheduler_bench import Bench, request
from test_cost import CPU, law
from test_pace import learnt

from quire.scheduling.cost import CostModel, StepShape, shape_of, shape_of_works
from quire.scheduling.pace import ItlTarget
from quire.scheduling.serving import LEAST_ALONE
from quire.scheduling.spare import MOST_SLOWDOWN, SLOWDOWN, Spare
from quire.step import Step


def flex(name: str, prompt: int | list[int], **params: Any) -> Any:
    return request(name, prompt, flex=True, **params)


def works_of(bench: Bench, step: Step, lane: bool) -> list[tuple[str, int, int]]:
    """(request, start, tokens) of each work of the flex lane or of the ordinary one."""
    found = []
    for work in step.works:
        asked = bench.asked[work.seq_id]
        if asked.flex == lane:
            found.append((asked.id, work.start, len(work.tokens)))
    return found


class TwoLanes(Bench):
    """A bench that remembers whose each sequence was."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.asked: dict[int, Any] = {}

    def step(self) -> Step:
        schedule = self.scheduler.schedule

        def listen(now: float) -> Step | None:
            step = schedule(now)
            self.asked |= {seat.id: seat.request for seat in self.scheduler.running}
            return step

        self.scheduler.schedule = listen  # type: ignore[method-assign]
        try:
            return super().step()
        finally:
            self.scheduler.schedule = schedule  # type: ignore[method-assign]


def test_flex_fills_what_is_idle_and_gives_it_back_at_once() -> None:
    bench = TwoLanes(seqs=4, blocks=40, budget=64, policy="fair")
    bench.add(*(flex(f"f{number}", [number, 1, 2], max_tokens=20) for number in range(6)))
    for _ in range(3):
        step = bench.step()
    assert len(works_of(bench, step, True)) == 4, "all rows"
    bench.add(*(request(f"o{number}", [50 + number, 1], max_tokens=5) for number in range(3)))
    step = bench.step()
    assert len(works_of(bench, step, False)) == 3, "in the very next step"
    assert len(works_of(bench, step, True)) == 1
    assert bench.num_preempted == 0, "who only lacks a row keeps what it holds"
    bench.run()
    assert [len(bench.tokens(f"f{number}")) for number in range(6)] == [20] * 6


def test_blocks_are_given_back_when_they_are_wanted_and_found_again() -> None:
    bench = TwoLanes(seqs=8, blocks=20, budget=64, size=4, policy="fair")
    bench.add(*(flex(f"f{number}", [number] * 8, max_tokens=9) for number in range(4)))
    for _ in range(6):
        bench.step()
    bench.add(request("o", list(range(40)), max_tokens=3))
    assert works_of(bench, bench.step(), False) == [("o", 0, 40)]
    assert bench.num_preempted >= 1
    num_yielded = num_cached = num_repeated = 0
    while bench.scheduler.has_work:
        bench.step()
        stats = bench.scheduler.stats()
        num_yielded += stats.num_yielded_tokens
        num_repeated += stats.num_repeated_tokens
        num_cached += stats.num_cached_tokens
    assert num_cached > 0, "what is left of them is not computed again"
    assert (num_yielded > 0, num_repeated) == (True, 0)


def test_running_and_waiting_are_counted_by_lane() -> None:
    bench = Bench(seqs=4, blocks=40, policy="fair")
    bench.add(*(flex(f"f{number}", [number, 1]) for number in range(6)), request("o", [9, 9]))
    bench.step()
    stats = bench.scheduler.stats()
    assert (stats.num_running, stats.num_waiting) == (4, 3)
    assert (stats.num_flex_running, stats.num_flex_waiting) == (3, 3)


def test_flex_tenants_take_turns_too() -> None:
    bench = Bench(seqs=1, blocks=40, policy="fair")
    bench.add(*(flex(f"a{number}", [number, 1], tenant="a", max_tokens=2) for number in range(3)))
    bench.add(*(flex(f"b{number}", [8 + number, 1], tenant="b", max_tokens=2) for number in range(3)))
    bench.run()
    ends = [delta.request_id[0] for delta in bench.heard if delta.finish]
    assert ends == list("ababab")


def served_alone(seed: int, with_flex: bool) -> tuple[list[list[tuple[str, int, int]]], int, bool]:
    """The ordinary lane's works, step by step; with or without a flood in the other lane."""
    random = Random(seed)
    limits = {
        "seqs": random.randint(1, 6), "budget": random.choice((4, 8, 16, 64)), "size": random.choice((2, 4)),
        "blocks": random.choice((12, 20, 40)), "policy": random.choice(("fcfs", "fair", "priority")),
    }  # fmt: skip
    bench = TwoLanes(cache=False, **limits)
    most = bench.pool.num_blocks * limits["size"]
    plan = []
    for number in range(random.randint(1, 8)):
        prompt = random.randint(1, most - 8)
        plan.append((random.randint(0, 25), request(
            f"o{number}", prompt, max_tokens=random.randint(1, 8), tenant=random.choice("ab"),
            n=random.choice((1, 1, min(2, limits["seqs"]))), priority=random.choice((0, 5)),
        )))  # fmt: skip
    other = Random(seed + 1)
    flood = [
        (other.randint(0, 25), flex(f"f{number}", other.randint(1, most // 2), max_tokens=other.randint(1, 12)))
        for number in range(12)
    ]
    told: list[list[tuple[str, int, int]]] = []
    number = num_flex = 0
    while bench.scheduler.has_work or number < 26:
        bench.add(*(each for at, each in plan if at == number), now=float(number))
        if with_flex:
            bench.add(*(each for at, each in flood if at == number), now=float(number))
        if bench.scheduler.has_work:
            step = bench.step()
            num_flex += len(works_of(bench, step, True))
            told.append(works_of(bench, step, False))
            rows = sum(len(work.draw.indices) if work.draw else 1 for work in step.works)
            assert rows <= limits["seqs"]
            assert step.num_tokens <= limits["budget"]
        else:
            told.append([])
        number += 1
        assert number < 3000, "someone starves"
    finished = all(bench.tokens(each.id) for _, each in flood) if with_flex else True
    while told and not told[-1]:
        told.pop()
    return told, num_flex, finished


@pytest.mark.parametrize("part", range(5))
def test_the_ordinary_lane_is_served_step_for_step_as_if_it_were_alone(part: int) -> None:
    num_flex = 0
    for seed in range(part * 60, part * 60 + 60):
        alone, _, _ = served_alone(seed, with_flex=False)
        beside, number, finished = served_alone(seed, with_flex=True)
        assert beside == alone, f"seed {seed}"
        assert finished, f"seed {seed}: flex starves"
        num_flex += number
    assert num_flex > 1000


@pytest.mark.parametrize("target", [ItlTarget(inf), ItlTarget(0.1, 5.0)])
def test_flex_lengthens_steps_of_others_by_so_much_at_most(target: ItlTarget) -> None:
    bench = TwoLanes(seqs=64, blocks=4000, size=16, budget=1024, length=5000, itl_target=target, cost=learnt())
    bench.add(*(request(f"o{number}", 20, max_tokens=60) for number in range(8)))
    bench.step()
    bench.add(*(flex(f"f{number}", [number, *range(900)], max_tokens=50) for number in range(40)))
    num_flex = 0
    longer = []
    for _ in range(50):
        step = bench.step()
        ordinary = [work for work in step.works if not bench.asked[work.seq_id].flex]
        num_flex += len(step.works) - len(ordinary)
        alone = StepShape(len(ordinary), len(ordinary), sum(work.start + 1 for work in ordinary))
        longer.append(law(CPU, shape_of(step)) / law(CPU, alone) - 1)
    assert max(longer) <= MOST_SLOWDOWN + 0.01
    assert sum(longer) / len(longer) <= SLOWDOWN + 0.005
    assert num_flex > 0


def test_alone_it_takes_steps_within_the_target() -> None:
    target = ItlTarget(0.1, 5.0)
    bench = TwoLanes(seqs=64, blocks=4000, size=16, budget=4096, length=5000, itl_target=target, cost=learnt())
    bench.add(*(flex(f"f{number}", [number, *range(900)], max_tokens=50) for number in range(20)))
    longest = max(law(CPU, shape_of(bench.step())) for _ in range(100))
    assert 0.05 < longest < 0.3


def test_something_moves_however_dear_it_is() -> None:
    spare = Spare(learnt(), StepShape(0, 0, 0), 8, 64, limit_s=1e-9, must_move=True)
    assert spare.singles([10, 20, 30]) == 1
    assert spare.prompt(0, 100, 1) == 0
    assert Spare(learnt(), StepShape(0, 0, 0), 8, 64, limit_s=1e-9, must_move=True).prompt(0, 100, 1) > 0
    assert Spare(learnt(), StepShape(0, 0, 0), 8, 64, limit_s=1e-9).prompt(0, 100, 1) == 0
    assert Spare(CostModel(), StepShape(0, 0, 0), 8, 64, limit_s=1e-9).singles([1] * 20) == 8


def test_alone_it_takes_no_longer_steps_than_those_whom_it_would_keep_waiting() -> None:
    bench = TwoLanes(seqs=64, blocks=4000, size=16, budget=4096, length=5000, itl_target=ItlTarget(9.0), cost=learnt())
    bench.add(*(flex(f"f{number}", [number, *range(900)], max_tokens=50) for number in range(20)))
    assert max(law(CPU, shape_of(bench.step())) for _ in range(3)) > 1.0, "nobody was ever kept waiting"
    bench.add(*(request(f"o{number}", 20, max_tokens=30) for number in range(4)))
    usual = []
    while any(not bench.asked[seat.id].flex for seat in bench.scheduler.running) or not usual:
        ordinary = [work for work in bench.step().works if not bench.asked[work.seq_id].flex]
        if ordinary:
            usual.append(law(CPU, shape_of_works(ordinary)))
    alone = [law(CPU, shape_of(bench.step())) for _ in range(30)]
    bound = max(*usual, LEAST_ALONE * law(CPU, StepShape(1, 1, 1)))
    assert max(alone) <= 1.15 * bound
    assert max(alone) > 0.5 * bound, "what is idle is used"
    bench.run()
    assert all(len(bench.tokens(f"f{number}")) == 50 for number in range(20))
