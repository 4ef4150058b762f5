"""Garbage is collected while nobody waits. Knows: clocks that are given. Does not know: how long a collection takes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from quire.engine.garbage import BETWEEN_S, LONGEST_S, NEVER, YOUNG, Sweeper, settle_in


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Ring:
    """It keeps itself alive."""

    def __init__(self) -> None:
        self.me = self


def grow_old() -> weakref.ref[Ring]:
    """A dead ring that young collections no longer look at, and many births."""
    ring = Ring()
    seen = weakref.ref(ring)
    gc.collect(1)
    del ring
    kept = [[number] for number in range(3 * YOUNG)]
    assert len(kept) == 3 * YOUNG
    return seen


def test_what_is_loaded_is_not_walked_again() -> None:
    settle_in()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == (YOUNG, 10, NEVER)


def test_collected_while_nobody_is_here() -> None:
    settle_in()
    sweeper = Sweeper()
    assert not sweeper.look(True, 100.0)
    ring = grow_old()
    assert not sweeper.look(False, 100.0 + BETWEEN_S), "somebody waits"
    assert not sweeper.look(True, 99.0 + BETWEEN_S), "only just"
    assert ring() is not None
    assert sweeper.look(True, 100.0 + BETWEEN_S)
    assert ring() is None


def test_who_is_never_idle_collects_all_the_same() -> None:
    settle_in()
    sweeper = Sweeper()
    sweeper.look(False, 0.0)
    ring = grow_old()
    assert not sweeper.look(False, LONGEST_S - 1)
    assert sweeper.look(False, LONGEST_S)
    assert ring() is None


def test_nothing_is_looked_for_where_nothing_was_born() -> None:
    settle_in()
    sweeper = Sweeper()
    sweeper.look(True, 0.0)
    gc.collect()
    assert not sweeper.look(True, 1000.0)
