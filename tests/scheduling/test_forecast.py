"""Forecasts by hand. Knows: devices whose law is exact, and queues of a few. Does not know: schedulers."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_bench import Bench, request

from quire.scheduling.cost import CostModel, StepShape, num_chunk_pairs
from quire.scheduling.forecast import SIMULATED, Claim, Forecast, Pace, Scene, own_time, pace_of, wait_for_room
from quire.scheduling.pace import ItlTarget
from quire.step import Step

PACE = Pace(step_s=1.0, token_s=0.1, pair_s=0.0, chunk=10)
claims = st.builds(Claim, st.integers(0, 500), st.integers(1, 500), st.integers(1, 3), st.integers(0, 900))


def test_whoever_finds_room_waits_for_the_prompts_before_it_alone() -> None:
    assert wait_for_room(Scene(PACE, num_rows=1, num_slots=10), Claim(50, 5, 1, 10)) == 0.0
    busy = Scene(PACE, num_rows=1, num_slots=100, num_backlog=20)
    assert wait_for_room(busy, Claim(50, 5)) == pytest.approx(2 * 1.0 + 20 * 0.1)


def test_a_row_comes_free_when_the_shortest_answer_ends() -> None:
    scene = Scene(PACE, num_rows=0, num_slots=1000, running=(Claim(0, 7), Claim(0, 3), Claim(0, 9)))
    assert wait_for_room(scene, Claim(1, 1)) == 3.0
    assert wait_for_room(scene, Claim(1, 1, num_rows=2)) == 7.0


def test_slots_are_waited_for_like_rows() -> None:
    scene = Scene(PACE, num_rows=9, num_slots=5, running=(Claim(0, 7, 1, 50), Claim(0, 3, 1, 4)))
    assert wait_for_room(scene, Claim(1, 1, 1, 8)) == 3.0
    assert wait_for_room(scene, Claim(1, 1, 1, 20)) == 7.0


def test_those_ahead_take_rows_read_and_draw_first() -> None:
    scene = Scene(PACE, num_rows=0, num_slots=1000, running=(Claim(0, 3),), ahead=(Claim(20, 5),))
    # A row at 3 s; its prompt: 2 steps and 2 s of reading; its answer: 5 steps.
    assert wait_for_room(scene, Claim(1, 1)) == pytest.approx(3 + 2 + 2 + 5)


def test_one_s_own_prompt_takes_whole_steps() -> None:
    assert own_time(PACE, 1) == pytest.approx(1.1)
    assert own_time(PACE, 30) == pytest.approx(3 * 1.0 + 3.0)
    assert own_time(Pace(1.0, 0.0, 0.02, 10), 30) == pytest.approx(3.0 + 0.01 * 900)


def test_what_is_beyond_the_simulated_moves_as_the_last_of_them() -> None:
    ahead = [Claim(10, 20)] * SIMULATED
    near = Scene(PACE, 0, 10**6, (Claim(0, 20),), 0, ahead)
    far = Scene(PACE, 0, 10**6, (Claim(0, 20),), 0, ahead, num_beyond=SIMULATED)
    assert wait_for_room(far, Claim(1, 1)) == pytest.approx(2 * wait_for_room(near, Claim(1, 1)), rel=0.02)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(claims, max_size=12), st.lists(claims, max_size=12), claims, st.integers(0, 5), st.integers(0, 999))
def test_nobody_waits_less_behind_more(
    running: list[Claim], ahead: list[Claim], claim: Claim, rows: int, slots: int
) -> None:
    alone = wait_for_room(Scene(PACE, rows, slots, running, 0, ahead), claim)
    assert alone >= 0.0
    little = 1e-9 * alone
    assert wait_for_room(Scene(PACE, rows, slots, running, 30, ahead), claim) >= alone - little
    assert wait_for_room(Scene(PACE, rows + 1, slots + 50, running, 0, ahead), claim) <= alone + little
    assert wait_for_room(Scene(PACE, rows, slots, running, 0, [*ahead, Claim(5, 5)]), claim) >= alone - little


def test_before_any_step_was_timed_nothing_is_said() -> None:
    assert pace_of(CostModel(), 4, 100, 64, ItlTarget()) is None
    bench = Bench()
    assert bench.scheduler.outlook.forecast(request("a", 3), 0.0) is None


def test_a_device_that_charges_for_tokens_alone_is_foreseen_too() -> None:
    bench = Bench()
    bench.scheduler.cost.calibrate([(StepShape(n, 1, n), 1e-3 * n**1.5) for n in (16, 32, 64, 128)])
    pace = pace_of(bench.scheduler.cost, 0, 0, 64, ItlTarget())
    assert pace is not None
    assert pace.step_s == 0.0
    found = bench.scheduler.outlook.forecast(request("a", 3), 0.0)
    assert found is not None
    assert found.wait_s == 0.0


def law(shape: StepShape) -> float:
    return 0.02 + 0.001 * shape.num_tokens


class Timed(Bench):
    """A bench on a device of an exact law, whose clock moves by it."""

    def __init__(self, **changed: object) -> None:
        super().__init__(**changed)  # type: ignore[arg-type]
        self.now = 0.0
        self.first_s: dict[str, float] = {}
        shapes = [StepShape(n, n, n) for n in (1, 2, 4, 8)]
        shapes += [StepShape(n, 1, n, num_chunk_pairs(0, n)) for n in (16, 32, 64, 128)]
        self.scheduler.cost.calibrate([(shape, law(shape)) for shape in shapes for _ in range(5)])

    def step(self) -> Step:
        step = self.scheduler.schedule(self.now)
        assert step is not None
        self.now += law(StepShape(step.num_tokens, 0, 0))
        news = self.scheduler.settle(step, self.runner.run(step), self.now)
        for delta in news:
            self.first_s.setdefault(delta.request_id, self.now)
        return step

    def foresee(self, each) -> Forecast:  # type: ignore[no-untyped-def]
        found = self.scheduler.outlook.forecast(each, self.now)
        assert found is not None
        return found


@pytest.mark.parametrize("rule", ["fcfs", "fair", "priority"])
@pytest.mark.parametrize("seed", range(4))
def test_forecasts_come_true_where_lengths_and_prices_are_known(rule: str, seed: int) -> None:
    random = Random(seed)
    bench = Timed(blocks=4000, seqs=8, budget=64, length=4000, cache=False, policy=rule)
    predicted: dict[str, tuple[float, float]] = {}
    for number in range(60):
        each = request(
            f"r{number}", random.randint(4, 150), max_tokens=random.randint(5, 80), ignore_eos=True, seed=number
        )
        predicted[each.id] = (bench.now, bench.foresee(each).ttft_s)
        bench.add(each, now=bench.now)
        for _ in range(random.choice((0, 0, 0, 3, 6))):
            if bench.scheduler.has_work:
                bench.step()
    while bench.scheduler.has_work:
        bench.step()
    errors = sorted(
        abs(bench.first_s[name] - at - told) / (bench.first_s[name] - at) for name, (at, told) in predicted.items()
    )
    assert errors[len(errors) // 2] < 0.15
    assert errors[len(errors) * 9 // 10] < 0.4


def test_another_s_flood_hardly_shows_to_a_tenant_under_its_share() -> None:
    bench = Timed(blocks=4000, seqs=8, budget=64, length=4000, cache=False, policy="fair")
    for number in range(40):
        bench.add(request(f"a{number}", 50, tenant="a", max_tokens=100, ignore_eos=True))
    for _ in range(60):
        bench.step()
    mine, theirs = request("b", 50, tenant="b", max_tokens=5), request("a", 50, tenant="a", max_tokens=5)
    assert bench.foresee(theirs).wait_s > 20 * bench.foresee(mine).wait_s
    told, at = bench.foresee(mine).ttft_s, bench.now
    bench.add(mine, now=at)
    while "b" not in bench.first_s:
        bench.step()
    assert bench.first_s["b"] - at == pytest.approx(told, rel=0.5)


def test_a_burst_of_strangers_is_not_expected_to_stay() -> None:
    """They hold all rows but the tenant's share and end with their next tokens: its own queue has the machine then."""
    bench = Timed(blocks=4000, seqs=16, budget=64, length=4000, cache=False, policy="fair")
    for number in range(20):
        bench.add(request(f"s{number}", 20, tenant=str(number), max_tokens=2, ignore_eos=True), now=bench.now)
    bench.step()
    for number in range(16):
        bench.add(request(f"a{number}", 20, tenant="a", max_tokens=200, ignore_eos=True), now=bench.now)
    each, at = request("last", 20, tenant="a", max_tokens=200, ignore_eos=True), bench.now
    told = bench.foresee(each)
    bench.add(each, now=at)
    while "last" not in bench.first_s:
        bench.step()
    assert bench.first_s["last"] - at == pytest.approx(told.ttft_s, rel=0.25)


def test_a_crowd_that_has_lasted_is_expected_to_last() -> None:
    """Strangers keep coming, faster than they are served: the tenant's own queue moves in the rows of its share."""
    bench = Timed(blocks=4000, seqs=8, budget=64, length=4000, cache=False, policy="fair")
    number = 0

    def stranger() -> None:
        nonlocal number
        bench.add(request(f"s{number}", 20, tenant=str(number % 3), max_tokens=20, ignore_eos=True), now=bench.now)
        number += 1

    for _ in range(400):
        stranger()
        bench.step()
    for mine in range(12):
        bench.add(request(f"a{mine}", 20, tenant="a", max_tokens=20, ignore_eos=True), now=bench.now)
    each, at = request("last", 20, tenant="a", max_tokens=20, ignore_eos=True), bench.now
    told = bench.foresee(each)
    bench.add(each, now=at)
    while "last" not in bench.first_s:
        stranger()
        bench.step()
    assert bench.first_s["last"] - at == pytest.approx(told.ttft_s, rel=0.5)


def test_a_lower_priority_number_waits_less() -> None:
    bench = Timed(blocks=400, seqs=1, budget=64, policy="priority")
    for number in range(20):
        bench.add(request(f"r{number}", 20, max_tokens=20, ignore_eos=True))
    bench.step()
    waits = [bench.foresee(request("x", 20, max_tokens=20, priority=level)).wait_s for level in (-100, 0, 100)]
    assert waits[0] < 0.1 * waits[1]
    assert waits[1] <= waits[2]


def test_many_tenants_with_less_than_a_row_each_are_foreseen_too() -> None:
    bench = Timed(blocks=400, seqs=4, budget=64, policy="fair")
    for number in range(30):
        bench.add(request(f"r{number}", 20, tenant=str(number), max_tokens=20, ignore_eos=True))
    bench.step()
    found = bench.foresee(request("x", 20, tenant="x", max_tokens=5))
    assert 0.0 <= found.wait_s < 60.0
