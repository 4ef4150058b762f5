"""Who is to blame for deaths, and when trying again is given up: rules over names and numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quire.engine.restarts import MOST_EXPLAINED, MOST_FRUITLESS, MOST_S, MOST_UNEXPLAINED, WINDOW_S, Restarts
from quire.engine.suspects import Suspects


def trial(names: list[str], killers: set[str], others: int = 0) -> tuple[list[str], int]:
    """Whoever is found when `names` were in the step of a death of which `killers` are the reason; and the deaths."""
    suspects, found, num_deaths = Suspects(), [], 1
    assert suspects.accuse(names) is None
    while (group := suspects.next_group()) is not None:
        assert len(group) < len(names) or len(names) == 1, "they are tried apart"
        if killers & set(group):
            num_deaths += 1
            culprit = suspects.accuse(group)
            if culprit is not None:
                found.append(culprit)
        else:
            suspects.clear()
        assert num_deaths < 1000
    assert suspects.num == 0
    return found, num_deaths


@given(st.integers(1, 70), st.sets(st.integers(0, 69), max_size=4))
def test_exactly_the_guilty_are_found(num: int, guilty: set[int]) -> None:
    names = [f"r{number}" for number in range(num)]
    killers = {f"r{number}" for number in guilty if number < num}
    found, num_deaths = trial(names, killers)
    assert sorted(found) == sorted(killers)
    assert num_deaths <= 1 + len(killers) * (1 + (num - 1).bit_length())


def test_one_of_thirty_two_costs_six_deaths() -> None:
    names = [f"r{number}" for number in range(32)]
    for killer in names:
        assert trial(names, {killer}) == ([killer], 6)


def test_a_single_suspect_gets_a_second_chance() -> None:
    assert trial(["a"], set()) == ([], 1)
    assert trial(["a"], {"a"}) == (["a"], 2)


def test_a_death_that_accuses_nobody_changes_nothing_but_a_trial_is_repeated() -> None:
    suspects = Suspects()
    suspects.retry()
    assert suspects.next_group() is None
    suspects.accuse(["a", "b"])
    assert suspects.next_group() == ["a"]
    assert suspects.are_tried
    suspects.retry()
    assert not suspects.are_tried
    assert suspects.next_group() == ["a"]
    assert suspects.num == 2


def test_a_death_between_steps_of_a_trial_is_the_fault_of_those_on_trial() -> None:
    suspects = Suspects()
    suspects.accuse(["a", "b", "c", "d"])
    assert suspects.next_group() == ["a", "b"]
    assert suspects.accuse([]) is None
    assert suspects.next_group() == ["a"]
    assert suspects.accuse([]) == "a"


def test_whoever_was_not_in_the_fatal_step_of_a_trial_is_cleared() -> None:
    suspects = Suspects()
    suspects.accuse(["a", "b", "c", "d"])
    suspects.next_group()
    assert suspects.accuse(["b"]) == "b"
    assert suspects.next_group() == ["c", "d"]


def test_who_has_left_is_not_tried() -> None:
    suspects = Suspects()
    suspects.accuse(["a", "b", "c", "d"])
    suspects.keep({"c"})
    assert suspects.next_group() == ["c"]
    suspects.keep(set())
    assert not suspects.are_tried
    assert suspects.next_group() is None


def test_kills_from_outside_are_never_too_many() -> None:
    restarts = Restarts()
    assert {restarts.after(float(number), got_on=True, explained=True) for number in range(1000)} == {0.0}


def test_an_engine_that_never_gets_on_is_given_up_after_growing_pauses() -> None:
    restarts = Restarts()
    waits = [restarts.after(float(number), got_on=False, explained=False) for number in range(MOST_FRUITLESS)]
    assert waits == [0.0, 0.5, 1.0, 2.0, None]
    assert restarts.after(100.0, got_on=True, explained=True) == 0.0
    assert MOST_S >= 2.0


def test_an_engine_that_somebody_kills_as_it_starts_is_tried_longer_and_sooner() -> None:
    """Kills at random moments may meet engines that have not got on, several in a row: no stream is to end of that."""
    restarts = Restarts()
    waits = [restarts.after(float(number), got_on=False, explained=True) for number in range(MOST_EXPLAINED)]
    assert waits == [0.0, *[0.5] * (MOST_EXPLAINED - 2), None]


def test_deaths_that_nothing_explains_are_given_up_unless_they_are_rare_or_found_out() -> None:
    restarts = Restarts()
    waits = [restarts.after(float(number), got_on=True, explained=False) for number in range(MOST_UNEXPLAINED)]
    assert waits == [0.0] * (MOST_UNEXPLAINED - 1) + [None]
    rare = Restarts()
    gap_s = WINDOW_S / (MOST_UNEXPLAINED - 2)
    assert {rare.after(number * gap_s, got_on=True, explained=False) for number in range(100)} == {0.0}
    solved = Restarts()
    for number in range(100):
        assert solved.after(float(number), got_on=True, explained=False) == 0.0
        solved.explain()
