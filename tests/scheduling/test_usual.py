"""How long steps usually are. Knows: durations. Does not know: what is in a step."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from quire.scheduling.usual import FIRST_STEPS, Usual


def test_it_says_nothing_before_it_has_seen_enough() -> None:
    usual = Usual()
    for _ in range(FIRST_STEPS - 1):
        usual.note(0.1)
        assert usual.long_s is None
    usual.note(0.0)
    assert usual.long_s is None, "no duration says nothing"
    usual.note(0.12)
    assert usual.long_s == 0.1, "0.12 of 1.62 seconds are less than a tenth: it is not usual"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(1e-4, 10.0), st.integers(0, 1000))
def test_a_tenth_of_the_time_is_spent_in_longer_ones(scale: float, seed: int) -> None:
    random, usual, all_s, longer_s = Random(seed), Usual(), 0.0, 0.0
    for number in range(12000):
        seconds = scale * random.lognormvariate(0.0, 0.5)
        long_s = usual.long_s
        if number >= 2000 and long_s is not None:
            all_s += seconds
            longer_s += seconds * (seconds > long_s)
        usual.note(seconds)
    assert 0.07 < longer_s / all_s < 0.13


def test_few_long_steps_that_take_much_of_the_time_are_usual() -> None:
    usual = Usual()
    for number in range(2000):
        usual.note(1.0 if number % 30 == 0 else 0.1)
    assert usual.long_s is not None
    assert usual.long_s > 0.5, "a quarter of the time"


def test_it_follows_when_steps_become_shorter() -> None:
    usual = Usual()
    for _ in range(100):
        usual.note(1.0)
    for _ in range(1000):
        usual.note(0.1)
    assert usual.long_s is not None
    assert usual.long_s < 0.12
