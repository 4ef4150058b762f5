"""Who gets how many tokens of a step. Knows: the sharing rule. Does not know: sequences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.errors import InvalidSetting
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


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(-1, 1)), min_size=1, max_size=40), st.integers(1, 80))
def test_sharing_between_tenants_is_lawful(rows: list[tuple[int, int]], budget: int) -> None:
    owed, standing = [count for count, _ in rows], [rank for _, rank in rows]
    grants = policy.share_out(owed, budget, standing)
    assert all(0 <= grant <= count for grant, count in zip(grants, owed, strict=True))
    assert sum(grants) == min(budget, sum(owed))
    assert grants[0] >= 1
    if sum(owed) > budget and budget >= 4:
        for rank in (policy.FAVOURED, policy.ORDINARY, policy.DEFERRED):
            for kind in (True, False):  # nobody of less standing is served before anyone of more, those first apart
                mine = [i for i in range(1, len(owed)) if (owed[i] == 1) == kind]
                short = any(grants[i] < owed[i] for i in mine if standing[i] == rank)
                assert not short or not any(grants[i] for i in mine if standing[i] < rank)


@pytest.mark.parametrize(
    ("owed", "standing", "budget", "grants"),
    [
        ([1] * 9 + [90], [-1] * 9 + [1], 8, [1] * 3 + [0] * 6 + [5]),  # a first token goes before, but for a quarter
        ([1] * 9 + [90], [0] * 10, 8, [1] * 6 + [0] * 3 + [2]),
        ([1] * 9 + [3], [-1] * 9 + [1], 8, [1] * 5 + [0] * 4 + [3]),  # and no more than it owes
        ([1, 1, 1, 90], [-1, 0, 0, 1], 8, [1, 1, 1, 5]),
        ([50, 50], [0, 1], 8, [1, 7]),
    ],
)
def test_first_tokens_of_a_tenant_under_its_share(
    owed: list[int], standing: list[int], budget: int, grants: list[int]
) -> None:
    assert policy.share_out(owed, budget, standing) == grants


def test_first_come_first_served() -> None:
    rule = policy.policy_named("fcfs")
    keys = [policy.turn(rule, 9.0, 0, 50, 5), policy.turn(rule, 0.0, 1, -50), policy.turn(rule, 0.0, 1, -50, 1)]
    assert keys == sorted(keys)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0, 1e6), st.floats(0, 300), st.integers(-100, 100), st.integers(-100, 100))
def test_nobody_is_passed_by_who_comes_later_than_priority_is_worth(
    at: float, later: float, mine: int, other: int
) -> None:
    rule = policy.policy_named("priority")
    first, second = policy.turn(rule, at, 0, mine), policy.turn(rule, at + later, 1, other)
    if later > policy.AGEING_S * (mine - other) + 1e-6:
        assert first < second
    if later < policy.AGEING_S * (mine - other) - 1e-6:
        assert second < first


def test_between_tenants_urgency_is_no_claim_on_memory() -> None:
    rule = policy.policy_named("fair")
    assert policy.place(rule, 0.0, 0, 0) < policy.place(rule, 5.0, 1, -100)
    assert policy.turn(rule, 5.0, 1, -100) < policy.turn(rule, 0.0, 0, 0)


def test_an_idle_tenant_collects_no_credit() -> None:
    assert policy.lifted(3.0, [7.0, 5.0], 100.0) == 5.0
    assert policy.lifted(9.0, [7.0, 5.0], 0.0) == 9.0
    assert policy.lifted(3.0, [], 4.0) == 4.0


def test_a_policy_that_is_not_there() -> None:
    with pytest.raises(InvalidSetting, match="fcfs, fair, priority"):
        policy.policy_named("random")


def test_the_watermark_is_small_but_there() -> None:
    assert [policy.watermark(count) for count in (1, 100, 8192)] == [1, 1, 81]
