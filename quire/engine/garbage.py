"""When a process that serves looks for cyclic garbage: while nobody waits for it.

Knows: Python's collector. Does not know: what is kept, or who is served.

A full collection walks every container that is alive: 0.2 s in a front with a thousand requests inside, in which nobody
hears a token, and it finds nothing, since requests are not cyclic. Left alone, Python does one each time a quarter
more has come to stay, so a queue that fills up pays for several.
"""

from __future__ import annotations

import gc

YOUNG = (
    1000  # containers born and not dead, until the youngest are looked at; ten times that was up to 0.13 s at a time
)
MIDDLE = 10
NEVER = 1_000_000
BETWEEN_S = 10.0
LONGEST_S = 300.0  # who is never idle collects all the same


def settle_in() -> None:
    """Whatever is loaded stays, and need not be walked again; from here on a `Sweeper` says when to collect."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


class Sweeper:
    """Call `look` now and then: it collects while nobody is here, or where somebody always is, after `LONGEST_S`."""

    def __init__(self) -> None:
        self._last_s: float | None = None

    def look(self, is_idle: bool, now: float) -> bool:
        """Whether it collected, at `now` seconds on any steady clock. Where little was born nothing is looked for."""
        if self._last_s is None:
            self._last_s = now
        least_s = BETWEEN_S if is_idle else LONGEST_S
        if now < self._last_s + least_s or not any(gc.get_count()[1:]):
            return False
        gc.collect()
        self._last_s = now
        return True
