"""The choice of beams as a pure function: ties, ends, and when a search is over."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quire.beams import Beams, check_searched
from quire.errors import RequestError, UnsupportedField
from quire.request import Finish, SamplingParams
from quire.scheduling.beams import Best, Candidate, Ended, num_wanted, places, ranked
from quire.step import LEAST_LOGPROB, TokenLogprob

END = 9


def _following(*top: tuple[int, float]) -> TokenLogprob:
    return TokenLogprob(*top[0], top)


def test_ties_go_to_the_earlier_parent_then_to_the_lower_token() -> None:
    following = [_following((5, -1.0), (2, -2.0)), _following((1, -1.0), (3, -1.0), (0, LEAST_LOGPROB))]
    found = ranked([-1.0, -1.0], following, banned=())
    assert [(each.parent, each.token) for each in found] == [(0, 5), (1, 1), (1, 3), (0, 2)]
    assert [each.token for each in ranked([-1.0, -1.0], following, banned=(1, 5))] == [3, 2]


def test_an_end_counts_among_the_best_only_and_never_goes_on() -> None:
    best = Best(Beams(2), 8, frozenset({END}))
    found = [Candidate(-0.1 * i, 0, token, 0.0) for i, token in enumerate([END, 1, END, 2, 3])]
    running, ended = best.split(found, 3)
    assert [each.token for each in running] == [1, 2]
    assert ended == [found[0]]
    assert best.split(found, 8) == ([], found[:2])


def _over(early: Any, penalty: float, running: float, num_tokens: int, worst: float) -> bool:
    best = Best(Beams(2, penalty, early), 100, frozenset({END}))
    for score in (worst, worst + 1):
        best.take(Ended(score, (END,), (), Finish.STOP))
    return best.is_over(running, num_tokens)


@pytest.mark.parametrize(
    ("early", "penalty", "running", "num_tokens", "worst", "over"),
    [
        (True, 1.0, -1.0, 10, -5.0, True),  # enough have ended
        (False, 1.0, -1.0, 10, -5.0, False),  # -0.1 a token is better than -5
        (False, 1.0, -20.0, 10, -2.0, True),  # equal is not better
        (False, 1.0, -19.0, 10, -2.0, False),
        ("never", 1.0, -20.0, 10, -2.0, False),  # after 100 tokens it might be -0.2
        ("never", 1.0, -200.0, 10, -2.0, True),
        ("never", 0.0, -3.0, 10, -2.0, True),  # length is worth nothing: it can only become worse
        ("never", -1.0, -1.0, 10, -2.0, True),  # longer is worse
    ],
)
def test_a_search_is_over_by_transformers_rules(
    early: Any, penalty: float, running: float, num_tokens: int, worst: float, over: bool
) -> None:
    assert _over(early, penalty, running, num_tokens, worst) is over


def test_fewer_ended_than_beams_never_end_a_search() -> None:
    best = Best(Beams(3, 1.0, True), 100, frozenset({END}))
    for score in (-1.0, -2.0):
        best.take(Ended(score, (END,), (), Finish.STOP))
    assert not best.is_over(-1e9, 5)


def test_the_best_ended_are_kept_the_earlier_of_two_alike() -> None:
    best = Best(Beams(2), 100, frozenset({END}))
    for score, token in ((-3.0, 1), (-1.0, 2), (-1.0, 3), (-2.0, 4)):
        best.take(Ended(score, (token,), (), Finish.STOP))
    assert [each.tokens for each in best.ended] == [(2,), (3,)]


@pytest.mark.parametrize(
    ("parents", "num_seats", "seats"),
    [
        ([0], 1, [0]),
        ([0, 0, 0], 1, [0, 1, 2]),  # beams part
        ([2, 2, 1], 3, [2, 0, 1]),  # the second child of 2 takes the seat of 0, which does not go on
        ([1, 1, 1], 3, [1, 0, 2]),
        ([1], 3, [1]),
    ],
)
def test_children_take_the_seats_of_those_who_do_not_go_on(
    parents: list[int], num_seats: int, seats: list[int]
) -> None:
    assert places(parents, num_seats) == seats


def test_so_many_candidates_that_beams_are_left_when_all_ends_are_best() -> None:
    assert [num_wanted(4, ends) for ends in (0, 1, 2)] == [8, 8, 12]


@pytest.mark.parametrize("width", [0, 65, True, 2.0])
def test_widths_have_bounds(width: Any) -> None:
    with pytest.raises(RequestError):
        Beams(width)


def test_a_score_is_finite_or_minus_infinity_at_any_length() -> None:
    assert Beams(1, 2.0).score(-8.0, 4) == -0.5
    assert Beams(1, 100.0).score(-1.0, 100_000) == 0.0
    assert Beams(1, -100.0).score(-1.0, 100_000) == -math.inf


@pytest.mark.parametrize(
    "taken", [{"temperature": 0.0}, {"top_k": -1}, {"stop": []}, {"seed": 3}, {"logprobs": 4}, {"min_tokens": 2}]
)
def test_a_search_takes_what_asks_for_nothing_else(taken: dict[str, Any]) -> None:
    check_searched(SamplingParams(**taken))


@pytest.mark.parametrize("wrong", [{"temperature": 0.5}, {"top_k": 3}, {"stop": "x"}, {"logit_bias": {3: 1.0}}])
def test_a_search_refuses_by_name_what_it_would_ignore(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedField) as refused:
        check_searched(SamplingParams(**wrong))
    assert refused.value.param == next(iter(wrong))
