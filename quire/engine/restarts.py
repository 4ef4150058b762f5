"""When another engine is started after a death, and when that has become pointless.

    got on before it died     at once
    died again and again      0.5, 1, 2, ... 8 s apart; after `MOST_FRUITLESS` such deaths, or `MOST_UNEXPLAINED` of any
    before it got on          kind in `WINDOW_S` that neither a signal from outside nor a request explains, no more for
                              `REST_S`: requests are refused meanwhile; then one is tried again

Knows: deaths and their times. Does not know: processes, clocks (time is an argument).
"""

from __future__ import annotations

from collections import deque

FIRST_S, MOST_S = 0.5, 8.0
MOST_FRUITLESS = 5
MOST_UNEXPLAINED = 10
WINDOW_S = 600.0
REST_S = 60.0


class Restarts:
    """`after` a death: seconds to wait, or None to give up for `REST_S`."""

    def __init__(self) -> None:
        self.num_fruitless = 0
        self._unexplained: deque[float] = deque()

    def after(self, now: float, got_on: bool, explained: bool) -> float | None:
        """An engine was lost at `now`. `got_on`: it had computed something that was asked of it."""
        self.num_fruitless = 0 if got_on else self.num_fruitless + 1
        if not explained:
            self._unexplained.append(now)
        while self._unexplained and self._unexplained[0] < now - WINDOW_S:
            self._unexplained.popleft()
        if self.num_fruitless >= MOST_FRUITLESS or len(self._unexplained) >= MOST_UNEXPLAINED:
            return None
        return 0.0 if self.num_fruitless < 2 else min(MOST_S, FIRST_S * 2.0 ** (self.num_fruitless - 2))

    def explain(self) -> None:
        """A request was found to be what the last of the unexplained ones died of."""
        if self._unexplained:
            self._unexplained.pop()
