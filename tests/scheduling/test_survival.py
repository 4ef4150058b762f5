"""What is expected of those who run. Knows: lengths drawn by hand and at random. Does not know: schedulers."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.scheduling.ahead import Ahead, Future
from quire.scheduling.growth import OutputLengths, bucket_of, peak_growth
from quire.scheduling.survival import HORIZONS, Survival, Usage

PLENTY = 10**6


def learnt(lengths: list[int], running: list[int] | None = None, guess: int = 64) -> Survival:
    seen = OutputLengths()
    for length in lengths:
        seen.record(length)
    return seen.survival(Counter(bucket_of(each + 1) for each in running or []), guess)


def ahead_of(futures: list[Future], lengths: OutputLengths, block_size: int, guess: int) -> Ahead:
    num_left = sum(left for left, _, _ in futures)
    return Ahead(len(futures), 0, num_left, lambda: futures.copy(), lengths, block_size, guess)


def test_before_anything_is_known_nobody_ends_before_the_guess() -> None:
    ahead = learnt([], guess=1024).ahead(bucket_of(1))
    assert {share for more, share in zip(HORIZONS, ahead, strict=True) if more < 1000} == {1.0}
    assert {share for more, share in zip(HORIZONS, ahead, strict=True) if more > 1024} == {0.0}


def test_what_ended_is_learnt() -> None:
    random = Random(1)
    survival = learnt([random.choice((20, 200)) for _ in range(500)])
    assert survival.share_beyond(10) == pytest.approx(1.0, abs=0.01)
    assert survival.share_beyond(100) == pytest.approx(0.5, abs=0.08)
    assert survival.share_beyond(300) < 0.01


def test_those_that_run_count_as_longer_than_they_are() -> None:
    """Answers of 100 to 1,000 tokens begun together: the first fifty to end are the short ones."""
    random = Random(2)
    whole = sorted(random.randint(100, 1000) for _ in range(200))
    now = whole[49]
    ended, running = whole[:50], [now] * 150
    assert learnt(ended).share_beyond(now) < 0.1, "so it seems, if nobody else is asked"
    assert learnt(ended, running).share_beyond(now) == pytest.approx(0.75, abs=0.05)


def test_nobody_is_taken_to_get_twice_as_long_as_any_was() -> None:
    ahead = learnt([10] * 100, running=[300], guess=64).ahead(bucket_of(301))
    shares = dict(zip(HORIZONS, ahead, strict=True))
    assert shares[256] == 1.0
    assert shares[512] == 0.0


def test_where_all_are_as_long_as_each_other_the_expected_peak_is_the_peak() -> None:
    usage = Usage(learnt([], guess=1024), 16)
    usage.add(bucket_of(1), len(HORIZONS), [10] * 8)
    assert usage.growth() == 8 * 724 / 16, "the last horizon before 1,024 tokens"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5000), max_size=40),
    st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 300), st.integers(0, 3000)), min_size=1, max_size=20),
    st.integers(1, 2000),
)
def test_shares_fall_and_nobody_wants_more_than_all_that_it_may_draw(
    ended: list[int], running: list[tuple[int, int, int]], guess: int
) -> None:
    survival = learnt(ended, [drawn for _, _, drawn in running], guess)
    for _, _, drawn in running:
        ahead = survival.ahead(bucket_of(drawn + 1))
        assert all(1.0 >= a >= b >= 0.0 for a, b in zip([1.0, *ahead], ahead, strict=False))
    lengths = OutputLengths()
    for length in ended:
        lengths.record(length)
    futures: list[Future] = list(running)
    growth = ahead_of(futures[:-1], lengths, 16, guess).growth(futures[-1], 1, 0)
    assert 0 <= growth <= sum(left for left, _, _ in futures) // 16


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 60)), min_size=1, max_size=12), st.integers(1, 3))
def test_known_lengths_are_counted_exactly(running: list[tuple[int, int]], count: int) -> None:
    *futures, last = [(left, held, -1) for left, held in running]
    growth = ahead_of(futures, OutputLengths(), 1, 64).growth(last, count, 0)
    assert growth == peak_growth([(left, held) for left, held, _ in [*futures, *[last] * count]], 1)


def test_one_added_is_one_from_the_start() -> None:
    lengths = OutputLengths()
    for length in range(1, 500, 7):
        lengths.record(length)
    first, second, third = (PLENTY, 20, 30), (400, 9, 3), (PLENTY, 4, 120)
    begun = ahead_of([first, third], lengths, 16, 64)
    begun.growth(second, 1, 0)
    begun.add(0, second, 2)
    whole = ahead_of([first, third, second, second], lengths, 16, 64)
    assert begun.growth(third, 1, 0) == pytest.approx(whole.growth(third, 1, 0), abs=4), (
        "who came does not change shares"
    )
