"""Knows: how long a step of the ordinary lane is for whoever comes in its midst. Does not know: the flex lane, clocks.

|.|.|.|....|.|.|.|....|.|.|    one in four is long, but who comes at any time mostly meets one of those:
     ^^^^           ^^^^       a step counts by its length
"""

from __future__ import annotations

import math

LONG_SHARE = 0.1  # of the time, in which steps are longer
STEP = 0.1  # of the logarithm, at a long step
MOST_WEIGHT = 4.0  # one stalled step says little
FIRST_STEPS = 16  # before so many it says nothing


class Usual:
    """`note` steps, as they are or would be without company; `long_s` is met or undercut in nine tenths of the time."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._long_s: float | None = None

    @property
    def long_s(self) -> float | None:
        """Seconds, None while too little was seen."""
        return self._long_s

    def note(self, seconds: float) -> None:
        """One step more. No duration says nothing."""
        if seconds <= 0.0:
            return
        if self._long_s is not None:
            rise = 1.0 - LONG_SHARE if seconds > self._long_s else -LONG_SHARE
            self._long_s *= math.exp(STEP * min(MOST_WEIGHT, seconds / self._long_s) * rise)
            return
        self._first.append(seconds)
        if len(self._first) == FIRST_STEPS:
            self._long_s = _long_of(self._first)


def _long_of(all_s: list[float]) -> float:
    """The longest that is left when a tenth of the time went to longer ones."""
    left = LONG_SHARE * sum(all_s)
    for seconds in sorted(all_s, reverse=True):
        left -= seconds
        if left <= 0.0:
            break
    return seconds
