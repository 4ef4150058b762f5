"""Tenants beside each other, and those who do not fit. Knows: steps and deltas. Does not know: counters."""

from __future__ import annotations

from random import Random

import pytest
from scheduler_bench import Bench, request

from quire.request import Request
from quire.scheduling import policy
from quire.scheduling.accounts import MAX_IDLE, Accounts
from quire.step import Step


def names(bench: Bench, step: Step) -> list[str]:
    """Requests that have works in `step`; those that end with it are found in the news."""
    seats = {seat.id: seat.request.id for seat in bench.scheduler.running}
    ended = [delta.request_id for delta in bench.heard if delta.finish]
    return [seats.get(work.seq_id, ended[-1] if ended else "?") for work in step.works]


class Bill:
    """What each tenant was served, counted from outside: prompts from their first work on, tokens as they are told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.service: dict[str, float] = {}
        self._seen: set[str] = set()
        self._of: dict[str, Request] = {}

    def add(self, each: Request, now: float) -> None:
        self._of[each.id] = each
        self.service.setdefault(each.tenant, 0.0)
        self.bench.add(each, now=now)

    def step(self) -> None:
        scheduler = self.bench.scheduler
        step = scheduler.schedule(0.0)
        assert step is not None
        for seat in scheduler.running:
            if seat.request.id not in self._seen:
                self._seen.add(seat.request.id)
                self._charge(seat.request.id, policy.prompt_charge(seat.num_prompt - seat.num_cached))
        for delta in scheduler.settle(step, self.bench.runner.run(step), 0.0):
            asked = self._of[delta.request_id]
            self.bench.heard.append(delta)
            told = len(self.bench.tokens(asked.id, delta.index))
            self._charge(asked.id, policy.draw_charge(len(asked.prompt) + told - 1))
        scheduler.check()

    def waiting(self) -> set[str]:
        return {seat.request.tenant for seat in self.bench.scheduler._ordinary.line.waiting()}

    def _charge(self, name: str, amount: float) -> None:
        asked = self._of[name]
        self.service[asked.tenant] += amount / asked.weight


def spread(rule: str, seed: int) -> tuple[float, float]:
    """The largest difference in service over any time in which two tenants both waited, and U."""
    random = Random(seed)
    seqs, length = random.choice((1, 2, 3)), random.choice((8, 12, 16))
    bench = Bench(
        blocks=random.choice((length // 2, length, 3 * length)), seqs=seqs, budget=random.choice((4, 16, 64)),
        length=length, size=2, policy=rule, cache=random.random() < 0.5,
    )  # fmt: skip
    bill = Bill(bench)
    weights = {name: random.choice((1.0, 1.0, 2.0)) for name in "abc"}
    for name, count in (("a", random.randint(20, 60)), ("b", 25), ("c", random.randint(0, 20))):
        for number in range(count):
            prompt = [random.randrange(3) for _ in range(random.randint(1, length // 2))]
            params = {"max_tokens": random.randint(1, length // 2), "priority": random.choice((0, 0, 3))}
            bill.add(request(f"{name}{number}", prompt, tenant=name, weight=weights[name], **params), now=float(number))
    worst = 0.0
    since: dict[tuple[str, str], tuple[float, float]] = {}
    while bench.scheduler.has_work:
        waiting = bill.waiting()
        for pair in (("a", "b"), ("a", "c"), ("b", "c")):
            if not waiting.issuperset(pair):
                since.pop(pair, None)
                continue
            gap = bill.service[pair[0]] - bill.service[pair[1]]
            low, high = since.get(pair, (gap, gap))
            since[pair] = min(low, gap), max(high, gap)
            worst = max(worst, since[pair][1] - since[pair][0])
        bill.step()
    return worst, policy.service_bound(seqs, length, min(weights.values()))


@pytest.mark.parametrize("part", range(4))
def test_service_of_two_who_wait_differs_by_at_most_the_published_bound(part: int) -> None:
    for seed in range(part * 15, part * 15 + 15):
        worst, bound = spread("fair", seed)
        assert worst <= 2 * bound, f"seed {seed}"


def test_without_counters_the_bound_breaks() -> None:
    assert any(worst > 2 * bound for worst, bound in (spread("fcfs", seed) for seed in range(12)))


def test_a_flood_does_not_keep_another_tenant_waiting() -> None:
    bench = Bench(seqs=8, blocks=200, policy="fair")
    bench.add(*(request(f"a{number}", [number, 1, 2], tenant="a", max_tokens=60) for number in range(50)))
    for _ in range(5):
        bench.step()
    bench.add(request("b", [90, 1, 2], tenant="b", max_tokens=30))
    assert "b" in names(bench, bench.step()), "a row is made free at once"
    assert bench.num_preempted == 1
    for _ in range(20):
        assert "b" in names(bench, bench.step())
    assert bench.num_preempted == 1, "and nobody else has to go"


def test_two_tenants_do_not_make_way_for_each_other_without_end() -> None:
    bench = Bench(blocks=16, seqs=48, budget=8, size=4, policy="fair")
    bench.add(
        request("a", [*range(17)], tenant="x", max_tokens=4, ignore_eos=True),
        request("b", [*range(100, 100 + 26)], tenant="y", max_tokens=3, ignore_eos=True),
    )
    bench.step()
    bench.step()
    bench.add(
        request("c", [*range(200, 200 + 6)], tenant="y", max_tokens=1, ignore_eos=True),
        request("d", [*range(300, 300 + 6)], tenant="y", max_tokens=10, ignore_eos=True),
    )
    bench.run(60)
    assert {name: len(bench.tokens(name)) for name in "abcd"} == {"a": 4, "b": 3, "c": 1, "d": 10}


def test_who_makes_way_finds_its_work_again() -> None:
    bench = Bench(seqs=2, blocks=64, size=2, policy="fair")
    bench.add(*(request(f"a{number}", [number, 1, 2], tenant="a", max_tokens=20) for number in range(2)))
    for _ in range(9):
        bench.step()
    bench.add(request("b", [90, 1, 2], tenant="b", max_tokens=2))
    num_cached = 0
    while bench.scheduler.has_work:
        bench.step()
        num_cached += bench.scheduler.stats().num_cached_tokens
    assert bench.num_preempted == 1
    assert num_cached == 10, "all but the block it was writing"


def test_two_tenants_of_equal_weight_come_to_hold_half_each() -> None:
    bench = Bench(seqs=8, blocks=200, policy="fair")
    for tenant in "ab":
        bench.add(*(request(f"{tenant}{n}", [n, 1], tenant=tenant, max_tokens=60) for n in range(30)))
        bench.step()
    for _ in range(3):
        bench.step()
    held = sorted(seat.request.tenant for seat in bench.scheduler.running)
    assert held == ["a"] * 4 + ["b"] * 4
    before = bench.num_preempted
    for _ in range(40):
        bench.step()
    assert bench.num_preempted == before, "they do not push each other about"


def test_the_first_tokens_of_another_tenant_do_not_wait_for_a_long_prompt() -> None:
    bench = Bench(seqs=8, blocks=200, budget=16, policy="fair")
    bench.add(request("a", 400, tenant="a"))
    bench.step()
    bench.add(request("b", [1, 2, 3], tenant="b"))
    assert "b" in names(bench, bench.step())
    other = Bench(seqs=8, blocks=200, budget=16, policy="fcfs")
    other.add(request("a", 400, tenant="a"))
    other.step()
    other.add(request("b", [1, 2, 3], tenant="b"))
    assert "b" not in names(other, other.step())


@pytest.mark.parametrize("rule", ["fair", "priority"])
def test_a_smaller_request_passes_one_that_does_not_fit(rule: str) -> None:
    bench = Bench(blocks=6, size=4, cache=False, policy=rule)
    bench.add(request("a", 16, max_tokens=2), request("big", 16, max_tokens=2), request("small", 1, max_tokens=1))
    assert names(bench, bench.step()) == ["a", "small"]


@pytest.mark.parametrize("rule", ["fair", "priority"])
def test_who_does_not_fit_is_passed_so_often_and_no_more(rule: str) -> None:
    bench = Bench(blocks=8, size=4, seqs=4, cache=False, policy=rule)
    bench.add(request("first", 8, max_tokens=3), request("big", 28, max_tokens=2))
    before_big: set[str] = set()
    for number in range(200):
        bench.add(request(f"s{number}", 2, max_tokens=4), now=float(number))
        bench.step()
        if bench.tokens("big"):
            break
        before_big |= {seat.request.id for seat in bench.scheduler.running}
    assert bench.tokens("big"), "big starves"
    assert 1 < len(before_big - {"first", "big"}) <= policy.MAX_PASSED


def test_the_lower_priority_number_is_sooner_and_age_makes_up_for_it() -> None:
    bench = Bench(seqs=1, blocks=64, policy="priority")
    bench.add(request("runs", 2, max_tokens=2))
    bench.step()
    bench.add(request("late", 2, max_tokens=1, priority=5), now=0.0)
    bench.add(request("soon", 2, max_tokens=1, priority=-1), now=2.0)
    bench.add(request("plain", 2, max_tokens=1), now=4.0)
    bench.add(request("young", 2, max_tokens=1), now=6.0)
    bench.run()
    ends = [delta.request_id for delta in bench.heard if delta.finish]
    assert ends == ["runs", "soon", "plain", "late", "young"]


def test_tenants_who_have_gone_are_remembered_for_a_while() -> None:
    accounts = Accounts()
    first = accounts.enter("first", 1.0)
    first.service = 7.0
    accounts.leave(first)
    assert accounts.enter("first", 2.0) is first
    accounts.leave(first)
    for number in range(MAX_IDLE):
        accounts.leave(accounts.enter(str(number), 1.0))
    assert accounts.enter("first", 1.0).service == 0.0
    assert [account.name for account in accounts.active] == ["first"]
