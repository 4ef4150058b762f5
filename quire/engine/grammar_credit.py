"""How much processor time each owner's grammars may still take from those who compute.

Knows: owners, seconds. Does not know: grammars, clocks (time is an argument).
"""

from __future__ import annotations

from quire.limits import OWNER_COMPILE_S

REFILL = 0.03  # seconds a second


class Credit:
    """A purse for each owner: full at first, filled up slowly. Whoever has spent his must wait."""

    def __init__(self) -> None:
        self._purses: dict[str, tuple[float, float]] = {}  # owner -> seconds left at a time

    def left_s(self, owner: str, now: float) -> float:
        """Seconds left; negative where more was taken than there was."""
        left, then = self._purses.get(owner, (OWNER_COMPILE_S, now))
        return min(OWNER_COMPILE_S, left + REFILL * (now - then))

    def spend(self, owner: str, seconds: float, now: float) -> None:
        """Take `seconds` out; full purses are forgotten."""
        self._purses[owner] = (self.left_s(owner, now) - seconds, now)
        for other in [name for name in self._purses if self.left_s(name, now) >= OWNER_COMPILE_S]:
            del self._purses[other]
