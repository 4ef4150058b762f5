"""The scheduler's laws over random traces: conservation, one end each, equal outputs, progress, no starvation.

Knows: how many traces are enough. Does not know: the laws (`lawful_run.py`) or the traces (`random_traces.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lawful_run import LawfulRun
from random_traces import trace_of

from quire.cache.prefix import PrefixIndex
from quire.errors import InternalError
from quire.scheduling.holdings import Holdings
from quire.scheduling.line import Line
from quire.scheduling.search import Search
from quire.scheduling.seat import Seat

NUM_TRACES = 2_000
REAL_BRANCH = Holdings.branch
NUM_PARTS = 10


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_two_thousand_traces_keep_the_laws(part: int) -> None:
    seen: Counter[str] = Counter()
    each = NUM_TRACES // NUM_PARTS
    for seed in range(part * each, (part + 1) * each):
        try:
            seen += LawfulRun(trace_of(Random(seed))).run()
        except Exception as error:
            raise AssertionError(f"trace {seed} breaks a law: {error}") from error
    for event in ("preempted", "cached", "copies", "parted", "aborted", "refused", "flex beside"):
        assert seen[event] >= each // 20, f"the traces hardly ever meet this: {event} in {seen}"


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_two_thousand_traces_of_beam_searches_keep_the_laws(part: int) -> None:
    seen: Counter[str] = Counter()
    each = NUM_TRACES // NUM_PARTS
    for seed in range(part * each, (part + 1) * each):
        try:
            seen += LawfulRun(trace_of(Random(seed), searches=True)).run()
        except Exception as error:
            raise AssertionError(f"trace {seed} breaks a law: {error}") from error
    for event in ("preempted", "cached", "copies", "aborted", "refused", "flex beside", "asleep", "held back"):
        assert seen[event] >= each // 20, f"the traces hardly ever meet this: {event} in {seen}"


@pytest.mark.parametrize("searches", [False, True])
def test_traces_in_which_engines_are_lost_keep_the_laws(searches: bool) -> None:
    """What is told in all is what one engine would have told, whatever was under way: once, and ended once."""
    seen: Counter[str] = Counter()
    for seed in range(500):
        try:
            seen += LawfulRun(trace_of(Random(seed), searches, losses=True)).run()
        except Exception as error:
            raise AssertionError(f"trace {seed} breaks a law: {error}") from error
    events = ["lost", "resumed"]
    if not searches:
        events += ["resumed amid an answer", "resumed apart", "resumed amid a prompt", "preempted"]
    for event in events:
        assert seen[event] >= 20, f"the traces hardly ever meet this: {event} in {seen}"


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_traces_that_hypothesis_thinks_of_keep_the_laws(random: Random) -> None:
    LawfulRun(trace_of(random)).run()


def _never(*_: object) -> bool:
    return False


def _too_much(holdings: Holdings, parent: Seat, child: Seat, _: int) -> None:
    REAL_BRANCH(holdings, parent, child, parent.num_computed)


def _nothing(*_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("room", "name", "sabotage"),
    [
        (Holdings, "is_shared", _never),  # a shared block is written without a copy
        (PrefixIndex, "forget", _nothing),  # an evicted block is still found
        (Holdings, "spoil", None),  # control: never called where nothing fails
        (Holdings, "let_go", _nothing),  # blocks are lost
        (Line, "put_back", lambda line, seat: line.running.remove(seat)),  # who is put back is forgotten
        (Holdings, "branch", _too_much),  # a beam that wakes takes blocks that are another's future
        (Search, "wake", lambda search, holdings: []),  # beams that were put back sleep on
    ],
)
def test_the_laws_have_teeth(
    monkeypatch: pytest.MonkeyPatch, room: type, name: str, sabotage: Callable[..., object] | None
) -> None:
    if sabotage is not None:
        monkeypatch.setattr(room, name, sabotage)
    caught = 0
    for seed in range(60):
        try:
            LawfulRun(trace_of(Random(seed), searches=name in ("branch", "wake"))).run()
        except (InternalError, AssertionError, KeyError, ValueError, IndexError):
            caught += 1
    assert (caught > 0) == (sabotage is not None)
