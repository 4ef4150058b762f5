"""Who gets how many tokens of a step. Knows: the sharing rule. Does not know: sequences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.scheduling import policy


@pytest.mark.parametrize(
    ("owed", "budget", "grants"),
    [
        ([1, 1, 5], 64, [1, 1, 5]),  # enough for all
        ([1] * 64, 64, [1] * 64),
        ([1000, 1, 1], 8, [6, 1, 1]),  # singles first, the prompt gets the rest
        ([1, 1, 1000, 1000], 10, [1, 1, 8, 0]),  # the older prompt first
        ([1] * 64 + [1000], 64, [1] * 48 + [0] * 16 + [16]),  # a quarter is kept for prompts
        ([1] * 64 + [3], 64, [1] * 61 + [0] * 3 + [3]),  # no more than they owe
        ([1, 9], 1, [1, 0]),  # one token goes to the oldest
        ([9, 1], 1, [1, 0]),
        ([1, 9], 2, [1, 1]),
        ([1, 1, 1], 2, [1, 1, 0]),
    ],
)
def test_sharing_by_hand(owed: list[int], budget: int, grants: list[int]) -> None:
    assert policy.share_out(owed, budget) == grants


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 80))
def test_sharing_is_lawful(owed: list[int], budget: int) -> None:
    grants = policy.share_out(owed, budget)
    assert all(0 <= grant <= count for grant, count in zip(grants, owed, strict=True))
    assert sum(grants) == min(budget, sum(owed)), "no token of the budget is left while someone owes one"
    assert grants[0] >= 1
    prompts = [grant for grant, count in zip(grants, owed, strict=True) if count > 1]
    assert budget == 1 or not prompts or sum(prompts) >= 1


def test_first_come_first_served() -> None:
    assert policy.place(0, 5) < policy.place(1, 0) < policy.place(1, 1)


def test_the_watermark_is_small_but_there() -> None:
    assert [policy.watermark(count) for count in (1, 100, 8192)] == [1, 1, 81]
