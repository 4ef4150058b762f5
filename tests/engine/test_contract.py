"""The contract, on an engine whose clock is a law. Knows: arrivals, deadlines, retries. Does not know: forecasts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.engine.engine import Engine
from quire.errors import DeadlineExceeded, DeadlineUnreachable, Overloaded, QueueFull, WaitTooLong
from quire.plan import Contract
from quire.request import Request, SamplingParams
from quire.runner.fake import FakeRunner
from quire.scheduling.contract import STALE_S
from quire.scheduling.cost import Coefficients, StepShape, num_chunk_pairs, shape_of
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.sim.device import ModelledDevice

LAW = ModelledDevice(Coefficients(fixed_s=0.02, token_s=0.001))
SHAPES = [StepShape(n, n, n) for n in (1, 2, 4)] + [StepShape(n, 1, n, num_chunk_pairs(0, n)) for n in (16, 64, 128)]


def request(name: str, prompt: int = 20, max_tokens: int = 10, *, seed: int = 1, **named: object) -> Request:
    params = SamplingParams(max_tokens=max_tokens, seed=seed, ignore_eos=True)
    return Request(name, tuple(range(prompt)), params, **named)  # type: ignore[arg-type]


@dataclass
class Clocked:
    """An engine on a modelled device: `now` moves by what the law says, and everyone's end is written down."""

    contract: Contract | None = field(default_factory=Contract)
    rows: int = 4
    blocks: int = 200
    policy: str = "fair"
    knows: bool = True
    noise: Random | None = None
    now: float = 0.0
    ends: dict[str, list[str]] = field(default_factory=dict)
    first_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = SchedulerLimits(self.rows, 128, 1000, 16)
        scheduler = Scheduler(limits, BlockPool(self.blocks), PrefixIndex(16), self.policy)
        self.engine = Engine(scheduler, FakeRunner(100, 16), self.contract)
        if self.knows:
            scheduler.cost.calibrate([(shape, LAW.seconds(shape)) for shape in SHAPES for _ in range(4)])

    def ask(self, each: Request) -> Overloaded | None:
        try:
            self.engine.add(each, self.now)
        except Overloaded as error:
            return error
        self.ends[each.id] = []
        return None

    def turn(self) -> list[str]:
        """What the loop does between two looks into its mailbox; who was dropped."""
        late, report = self.engine.expire(self.now)
        assert (report is None) == (not late)
        for each in late:
            self.ends[each.request_id].append(each.kind)
        begin = self.now
        step = self.engine.scheduler.schedule(begin) if self.engine.has_work else None
        if step is not None:
            seconds = LAW.seconds(shape_of(step)) * (1.0 if self.noise is None else self.noise.uniform(0.8, 1.3))
            self.engine._last, self.engine._began_s = step, begin
            self.now = begin + seconds
            deltas = tuple(self.engine.scheduler.settle(step, self.engine.runner.run(step), begin))
            self.engine.timed(deltas, seconds)
            for delta in deltas:
                self.first_s.setdefault(delta.request_id, self.now)
                if delta.finish is not None:
                    self.ends[delta.request_id].append(delta.finish.value)
        self.engine.scheduler.check()
        return [each.request_id for each in late]

    def settle(self) -> None:
        while self.engine.has_work:
            self.turn()

    def flood(self, count: int, prompt: int = 20, max_tokens: int = 50, **named: object) -> None:
        for number in range(count):
            assert self.ask(request(f"flood{len(self.ends)}-{number}", prompt, max_tokens, **named)) is None


def test_an_idle_engine_takes_whatever_fits() -> None:
    bench = Clocked(Contract(max_wait_s=0.01, max_tokens=5))
    assert bench.ask(request("long", 400, 200)) is None
    bench.settle()
    assert bench.ends["long"] == ["length"]


def test_a_wait_over_the_bound_is_refused_with_when_to_come_back() -> None:
    bench = Clocked(Contract(max_wait_s=2.0))
    number, error = 0, None
    while error is None:
        error = bench.ask(request(f"r{number}", 20, 50))
        number += 1
    assert isinstance(error, WaitTooLong)
    assert number > 4
    assert 0 < error.retry_after_s < 2.0
    assert error.estimate_s is not None
    assert error.estimate_s == pytest.approx(2.0 + error.retry_after_s, rel=0.2)
    assert "--max-queue-seconds" in error.message
    tries = 0
    while error is not None:
        until, tries = bench.now + error.retry_after_s, tries + 1
        while bench.now < until:
            bench.turn()
        error = bench.ask(request("again", 20, 50))
    assert tries <= 3
    bench.settle()


def test_no_bound_refuses_nobody() -> None:
    bench = Clocked(Contract())
    bench.flood(300)
    bench.settle()
    assert all(ends == ["length"] for ends in bench.ends.values())


def test_the_queue_is_bounded_in_tokens() -> None:
    bench = Clocked(Contract(max_tokens=100))
    for count in (4, 4):
        bench.flood(count)
        bench.turn()
    assert bench.ask(request("fits", 20)) is None, "four run, four wait with 80 tokens, and 20 more"
    error = bench.ask(request("over", 20))
    assert isinstance(error, QueueFull)
    assert "100 (--max-waiting-tokens)" in error.message
    assert error.retry_after_s > 0
    assert isinstance(bench.ask(request("big", 101, flex=True)), type(None)), "nobody waits in that lane"
    assert isinstance(bench.ask(request("more", 1, flex=True)), QueueFull)
    bench.settle()


def test_a_full_queue_of_one_tenant_does_not_shut_out_another() -> None:
    bench = Clocked(Contract(max_tokens=200))
    for number in range(40):
        bench.ask(request(f"a{number}", 20, 50, tenant="a"))
    bench.turn()
    assert isinstance(bench.ask(request("a", 100, tenant="a")), QueueFull)
    assert bench.ask(request("b", 60, tenant="b")) is None
    assert isinstance(bench.ask(request("more", 60, tenant="b")), QueueFull), "half of it is all that is b's"
    bench.settle()


def test_a_deadline_that_cannot_be_made_is_refused_at_once() -> None:
    bench = Clocked()
    bench.flood(20)
    bench.turn()
    error = bench.ask(request("soon", deadline_s=bench.now + 0.5))
    assert isinstance(error, DeadlineUnreachable)
    assert (error.status, error.code, error.param) == (429, "deadline_unreachable", "x-quire-deadline-ms")
    assert error.estimate_s is not None
    assert error.estimate_s > 0.5
    assert bench.ask(request("later", deadline_s=bench.now + 60)) is None
    bench.settle()
    assert bench.ends["later"] == ["length"]


def test_a_prompt_that_takes_longer_than_its_deadline_is_told_so() -> None:
    bench = Clocked()
    bench.flood(1)
    bench.turn()
    error = bench.ask(request("long", 900, deadline_s=bench.now + 0.5))
    assert isinstance(error, DeadlineUnreachable)
    assert "nobody before it" in error.message


def test_what_is_cached_of_the_prompt_is_not_held_against_it() -> None:
    bench = Clocked()
    assert bench.ask(request("first", 900, 5)) is None
    bench.settle()
    bench.flood(1)
    bench.turn()
    assert bench.ask(request("again", 900, 5, deadline_s=bench.now + 0.5)) is None
    bench.settle()
    assert bench.ends["again"] == ["length"]


def test_a_deadline_that_has_passed_on_the_way_is_refused() -> None:
    bench = Clocked(now=100.0)
    bench.flood(1)
    bench.turn()
    assert isinstance(bench.ask(request("late", deadline_s=bench.now - 1.0)), DeadlineExceeded)


def test_whoever_waits_past_its_deadline_is_dropped_before_it_costs_anything() -> None:
    bench = Clocked(knows=False)
    bench.flood(8, max_tokens=100)
    assert bench.ask(request("late", deadline_s=0.5)) is None, "nothing is known yet: it may hope"
    dropped, num_tokens = [], 0
    while not dropped:
        assert bench.now < 0.6
        dropped = bench.turn()
        num_tokens += bench.engine.scheduler.stats().num_prompt_tokens
    assert dropped == ["late"]
    assert bench.ends["late"] == ["DeadlineExceeded"]
    assert bench.now >= 0.5
    assert num_tokens == 4 * 20
    bench.settle()
    assert all(len(ends) == 1 for ends in bench.ends.values())


class Slow(Random):
    """A machine that has become three times as slow."""

    def uniform(self, a: float, b: float) -> float:
        return 3.0


def test_whoever_cannot_be_in_time_any_more_is_dropped_a_prompts_time_before_its_deadline() -> None:
    bench = Clocked()
    bench.flood(8, max_tokens=40)
    bench.turn()
    tight = request("tight", 400)
    forecast = bench.engine.scheduler.outlook.forecast(tight, bench.now)
    assert forecast is not None
    assert forecast.wait_s > 0
    deadline_s = bench.now + 1.4 * forecast.ttft_s
    assert bench.ask(replace(tight, deadline_s=deadline_s)) is None
    bench.noise = Slow()
    dropped: list[str] = []
    while not dropped:
        before = bench.now
        dropped = bench.turn()
    assert dropped == ["tight"]
    assert deadline_s - forecast.late_own_s <= before < deadline_s
    assert "tight" not in bench.first_s
    bench.settle()


def test_what_was_computed_for_one_that_is_dropped_is_counted() -> None:
    bench = Clocked(knows=False, rows=2, blocks=64)
    assert bench.ask(request("a", 500, 20, tenant="a", seed=2, deadline_s=0.3)) is None
    bench.turn()
    seat = bench.engine.scheduler.running[0]
    bench.engine.scheduler._serving._put_back(seat, bench.engine.scheduler._ordinary.line, _draft())
    bench.now = 0.31
    late, report = bench.engine.expire(bench.now)
    assert [each.request_id for each in late] == ["a"]
    assert report is not None
    assert report.stats.num_expired_tokens == 128
    assert not bench.engine.has_work


def _draft() -> object:
    from quire.scheduling.serving import Draft
    from quire.scheduling.tally import Tally

    return Draft(Tally(), 0)


def test_whoever_runs_is_answered_late_or_not() -> None:
    bench = Clocked(knows=False)
    assert bench.ask(request("slow", 900, deadline_s=0.2)) is None
    bench.settle()
    assert bench.ends["slow"] == ["length"]
    assert bench.first_s["slow"] > 0.2


def test_an_idle_engine_doubts_what_it_learnt_long_ago() -> None:
    bench = Clocked()
    bench.flood(1)
    bench.settle()
    unlikely = request("x", 900, deadline_s=bench.now + 0.3)
    assert isinstance(bench.ask(unlikely), DeadlineUnreachable)
    bench.now += STALE_S + 1
    assert bench.ask(replace(unlikely, deadline_s=bench.now + 0.3)) is None
    bench.settle()
    assert bench.ends["x"] == ["length"]


def test_a_job_comes_in_whole_or_not_at_all() -> None:
    bench = Clocked(Contract(max_wait_s=1.0, max_tokens=200))
    for number in range(50):
        assert bench.ask(request(f"job{number}", 20, 50, leads=not number)) is None
    assert isinstance(bench.ask(request("other")), Overloaded)
    bench.settle()


def test_nothing_is_promised_to_flex_requests() -> None:
    bench = Clocked(Contract(max_wait_s=0.1))
    bench.flood(4, max_tokens=200)
    assert bench.ask(request("idle", flex=True)) is None
    assert bench.ask(request("late", flex=True, deadline_s=0.3)) is None, "but a deadline is kept"
    bench.settle()
    assert (bench.ends["idle"], bench.ends["late"]) == (["length"], ["DeadlineExceeded"])


def test_nobody_is_remembered_who_has_gone() -> None:
    bench = Clocked()
    bench.flood(10, deadline_s=1000.0)
    bench.turn()
    for name in list(bench.ends):
        bench.engine.abort(name)
    assert not bench.engine.gate._promises  # type: ignore[union-attr]
    bench.flood(10, deadline_s=1000.0)
    bench.settle()
    assert not bench.engine.gate._promises  # type: ignore[union-attr]


def test_the_engine_says_what_it_predicted_and_what_came() -> None:
    bench = Clocked()
    told: list[tuple[float, float]] = []
    timed = bench.engine.timed
    bench.engine.timed = lambda deltas, seconds: told.extend(timed(deltas, seconds).stats.first_tokens)  # type: ignore[method-assign, assignment, return-value, func-returns-value]
    bench.flood(12, max_tokens=30)
    bench.settle()
    assert len(told) == 12
    assert sorted(actual for _, actual in told) == pytest.approx(sorted(bench.first_s.values()))
    assert all(predicted == pytest.approx(actual, rel=0.6) for predicted, actual in told)


def test_without_a_contract_nobody_is_judged() -> None:
    bench = Clocked(contract=None)
    bench.flood(50, deadline_s=0.01)
    bench.settle()
    assert all(ends == ["length"] for ends in bench.ends.values())


@pytest.mark.parametrize("rule", ["fair", "fcfs", "priority"])
@pytest.mark.parametrize("seed", range(8))
def test_every_request_ends_once_and_none_before_its_time(rule: str, seed: int) -> None:
    """Random load at several times what the device can do, with noise, deadlines, retries as told, tenants and flex."""
    random = Random(seed)
    bench = Clocked(Contract(max_wait_s=3.0, max_tokens=2000), policy=rule, noise=Random(seed + 100), blocks=100)
    waiting: list[tuple[float, int, Request, float | None]] = []
    for number in range(120):
        within = random.choice((None, None, 1.0, 3.0, 8.0))
        each = request(
            f"r{number}", random.randint(1, 120), random.randint(1, 60), seed=number, tenant=random.choice("ab"),
            priority=random.choice((0, 0, 5)) if rule != "fcfs" else 0, flex=random.random() < 0.1,
        )  # fmt: skip
        waiting.append((random.uniform(0, 10), number, each, within))
    tries: dict[str, int] = {}
    deadlines: dict[str, float] = {}
    last_calls: dict[str, float] = {}
    while waiting or bench.engine.has_work:
        if not bench.engine.has_work:
            bench.now = max(bench.now, min(waiting)[0])
        for entry in sorted(entry for entry in waiting if entry[0] <= bench.now):
            waiting.remove(entry)
            _, number, each, within = entry
            deadlines[each.id] = bench.now + (within or 1e9)
            error = bench.ask(replace(each, deadline_s=None if within is None else deadlines[each.id]))
            tries[each.id] = tries.get(each.id, 0) + 1
            if error is None and bench.engine.gate is not None:
                last_calls[each.id] = bench.engine.gate._promises[each.id].last_call_s
            if error is not None:
                assert error.retry_after_s > 0
                waiting.append((bench.now + error.retry_after_s, number, each, within))
        for name in bench.turn():
            assert bench.now >= last_calls[name]
            assert name not in bench.first_s
        assert bench.now < 300, "someone is refused for ever"
    assert len(bench.ends) == 120
    assert all(len(ends) == 1 for ends in bench.ends.values()), "everyone ends once"
    dropped = [name for name, ends in bench.ends.items() if ends == ["DeadlineExceeded"]]
    kept = [name for name in bench.ends if name in bench.first_s and deadlines[name] < 1e8]
    late = [name for name in kept if bench.first_s[name] > deadlines[name]]
    assert len(late) <= 2 + len(kept) // 20, "promises are kept"
    assert len(dropped) <= 20
    assert max(tries.values()) > 1, "the load is too small to show anything"
