"""Stop strings against their definition, under any cutting of the text. Knows: StopStrings. Does not know: ids."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.errors import RequestError
from quire.text.stops import StopStrings

small_text = st.text(alphabet="ab\n", max_size=30)
stop_lists = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=6)


def by_definition(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """The first end at which a stop string is complete; of those, the longest."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@given(small_text, stop_lists, st.booleans(), st.lists(st.integers(0, 100), max_size=10))
def test_equals_the_definition_in_any_chunking(text: str, stops: list[str], include: bool, cuts: list[int]) -> None:
    machine = StopStrings(stops, include)
    sent, stopped = "", None
    for piece in in_pieces(text, cuts):
        emit, stopped = machine.push(piece)
        sent += emit
    assert (sent + machine.flush(), stopped) == by_definition(text, stops, include)


@given(small_text, stop_lists)
def test_sends_all_that_no_stop_string_can_still_claim(text: str, stops: list[str]) -> None:
    machine = StopStrings(stops)
    sent = ""
    for end in range(1, len(text) + 1):
        emit, stopped = machine.push(text[end - 1])
        sent += emit
        if stopped is not None:
            return
        held = [n for n in range(1, end + 1) if any(stop.startswith(text[end - n : end]) for stop in stops)]
        assert sent == text[: end - max(held, default=0)]


def test_a_stop_string_split_over_pushes_is_never_half_sent() -> None:
    machine = StopStrings(["</answer>"])
    assert machine.push("42</ans") == ("42", None)
    assert machine.push("wer") == ("", None)
    assert machine.push("> and more") == ("", "</answer>")
    assert machine.push("more") == ("", "</answer>")
    assert machine.flush() == ""


def test_a_false_beginning_is_sent_when_it_fails() -> None:
    machine = StopStrings(["</answer>"])
    assert machine.push("</ans") == ("", None)
    assert machine.push("!") == ("</ans!", None)


def test_the_longest_of_those_complete_at_once_counts() -> None:
    assert StopStrings(["\n", "END\n"]).push("x END\n") == ("x ", "END\n")


def test_the_first_complete_one_ends_the_text_even_inside_a_longer_one() -> None:
    assert StopStrings(["abcd", "bc"]).push("abcd") == ("a", "bc")


def test_include_sends_the_stop_string_and_nothing_after_it() -> None:
    assert StopStrings(["bc"], include=True).push("abcd") == ("abc", "bc")


def test_without_stop_strings_everything_passes() -> None:
    machine = StopStrings([])
    assert machine.push("anything") == ("anything", None)
    assert machine.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(RequestError, match="stop string is empty") as caught:
        StopStrings(["a", ""])
    assert caught.value.param == "stop"


def test_a_text_made_of_false_beginnings_takes_linear_time() -> None:
    """Counts state changes instead of time: at most two for each character."""
    machine = StopStrings(["a" * 50 + "b", "a" * 30 + "c"])
    num_steps = 0
    follow = machine._fallback.__class__.__getitem__

    class Counting(list[int]):
        def __getitem__(self, index):  # type: ignore[no-untyped-def,override]
            nonlocal num_steps
            num_steps += 1
            return follow(self, index)

    machine._fallback = Counting(machine._fallback)
    text = ("a" * 49 + "x") * 200
    assert "".join(machine.push(character)[0] for character in text) + machine.flush() == text
    assert num_steps <= len(text)
