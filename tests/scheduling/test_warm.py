"""Who goes first for what the cache holds of it. Knows: bounds by hand and by search. Does not know: cache or queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_bench import Bench, request

from quire.scheduling.warm import MAX_WARMER, Standing, warmest

STANDINGS = st.builds(Standing, st.integers(0, 40), st.integers(1, 40), st.integers(-5, 40), st.integers(-1, 1))
TALK = list(range(2000, 2032))  # eight blocks of four


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(STANDINGS, min_size=1, max_size=8))
def test_nobody_is_passed_who_cannot_wait_and_of_the_others_the_warmest_goes(queue: list[Standing]) -> None:
    def may(number: int) -> bool:
        before, mine = queue[:number], queue[number]
        can_wait = all(each.num_patient >= max(1, mine.num_missing) for each in before)
        return can_wait and all(each.priority >= mine.priority for each in before)

    best = warmest(queue)
    allowed = [number for number in range(len(queue)) if may(number)]
    assert best == max(allowed, key=lambda number: (queue[number].num_cached, -number))


def test_a_queue_is_looked_at_no_further_than_to_one_who_cannot_wait() -> None:
    seen = []

    def queue() -> Iterator[Standing]:
        for each in (Standing(0, 9, 9), Standing(0, 9, 0), Standing(8, 1, 1)):
            seen.append(each)
            yield each

    assert warmest(queue()) == 0
    assert len(seen) == 2


def talk_is_cached(policy: str = "fair", blocks: int = 40) -> Bench:
    """Someone has said TALK and left; another runs on the only row."""
    bench = Bench(seqs=1, blocks=blocks, policy=policy)
    bench.add(request("before", TALK, max_tokens=1))
    bench.run()
    bench.add(request("runs", 3, max_tokens=2))
    bench.step()
    return bench


def order(bench: Bench) -> list[str]:
    bench.run()
    return list(dict.fromkeys(delta.request_id for delta in bench.heard))[2:]


@pytest.mark.parametrize("rule", ["fair", "priority"])
def test_who_finds_itself_in_the_cache_goes_before_one_who_must_be_read(rule: str) -> None:
    bench = talk_is_cached(rule)
    bench.add(request("cold", 30), request("warm", [*TALK, 7]), request("as cold", 31))
    assert order(bench) == ["warm", "cold", "as cold"]


def test_first_come_first_served_stays_so() -> None:
    bench = talk_is_cached("fcfs")
    bench.add(request("cold", 30), request("warm", [*TALK, 7]))
    assert order(bench) == ["cold", "warm"]


def test_who_would_hold_the_queue_up_longer_than_its_first_does_not_pass() -> None:
    bench = talk_is_cached()
    bench.add(request("cold", 5), request("warm", [*TALK, *range(10)]))
    assert order(bench) == ["cold", "warm"]


def test_who_has_a_deadline_keeps_its_turn() -> None:
    bench = talk_is_cached()
    bench.add(replace(request("cold", 30), deadline_s=1e9), request("warm", [*TALK, 7]))
    assert order(bench) == ["cold", "warm"]


def test_who_is_more_urgent_is_not_passed() -> None:
    bench = talk_is_cached("priority")
    bench.add(request("cold", 30, priority=-1), request("warm", [*TALK, 7]))
    assert order(bench) == ["cold", "warm"]


def test_all_who_pass_read_no_more_than_whom_they_pass_and_are_so_many_at_most() -> None:
    bench = talk_is_cached()
    bench.add(request("cold", 30))
    bench.add(*[request(f"w{number}", [*TALK, 100 + number, *range(8)], max_tokens=1) for number in range(10)])
    assert order(bench).index("cold") == 3, "nine tokens each: three times nine are within thirty"

    bench = talk_is_cached(blocks=200)
    bench.add(request("cold", 500, max_tokens=1))
    bench.add(*[request(f"w{number}", [*TALK, 7], max_tokens=1) for number in range(MAX_WARMER + 9)])
    assert order(bench).index("cold") == MAX_WARMER
