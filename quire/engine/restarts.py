"""When another engine is started after a death, and when that has become pointless.

    got on before it died     at once
    died again and again      0.5, 1, 2, ... 8 s apart (0.5 s if explained: by a signal from outside, or a request);
    before it got on          after `MOST_FRUITLESS` such deaths, `MOST_EXPLAINED` if the last was explained, or
                              `MOST_UNEXPLAINED` of any other kind in `WINDOW_S`, no more for `REST_S`: requests are
                              refused meanwhile; then one is tried again

Knows: deaths and their times. Does not know: processes, clocks (time is an argument).
"""

from __future__ import annotations

from collections import deque

FIRST_S, MOST_S = 0.5, 8.0
MOST_FRUITLESS = 5
MOST_EXPLAINED = 12  # whoever kills at random hits five young engines in a row once in some runs of fifty
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
        most = MOST_EXPLAINED if explained else MOST_FRUITLESS
        if self.num_fruitless >= most or len(self._unexplained) >= MOST_UNEXPLAINED:
            return None
        longest_s = FIRST_S if explained else MOST_S
        return 0.0 if self.num_fruitless < 2 else min(longest_s, FIRST_S * 2.0 ** (self.num_fruitless - 2))

    def explain(self) -> None:
        """A request was found to be what the last of the unexplained ones died of."""
        if self._unexplained:
            self._unexplained.pop()
