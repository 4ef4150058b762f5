"""When an engine looks at itself: while nobody waits for it, and under load seldom enough not to be noticed.

    a check costs C seconds (measured at start)      idle: every max(10 s, 500 C)      under load: every four times that

So looking takes at most 0.2 % of an idle engine's time and 0.05 % of a busy one's, for each check, and the operator is
told how late a fault may be found. A check in parts (slices of weights) is spread over its period. What is wrong once
is looked at again at once: what stays wrong is an ailment, what passes is counted.

Knows: checks, and the time (an argument). Does not know: what they look at, who is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from quire.events import Examined

BUSY_FACTOR = 4
NUM_TRIES = 3
MOST_S = 0.004  # parts of a check that are overdue are done together for so long

Clock = Callable[[], float]


class Check(Protocol):
    """Something that can be looked at."""

    name: str

    def begin(self) -> None:
        """Take what there is now for right."""
        ...

    @property
    def num_parts(self) -> int:
        """Calls of `examine` until all of it was looked at."""
        ...

    def examine(self) -> str | None:
        """What is wrong with the next part, None if nothing is. A part that is wrong comes again."""
        ...


@dataclass(slots=True)
class _Rota:
    """One check and when it is due. `period_s`: of all its parts, while idle."""

    check: Check
    cost_s: float
    period_s: float
    last_s: float
    num_done: int = 0

    def part_s(self, is_idle: bool) -> float:
        """Seconds between two parts."""
        return self.period_s * (1 if is_idle else BUSY_FACTOR) / self.check.num_parts


class Examiner:
    """Call `look` between any two steps, and now and then while idle: it does what is due."""

    def __init__(self, checks: Sequence[Check], clock: Clock, floor_s: float, factor: float = 0.0) -> None:
        """A check's period is `factor` times what it costs, which is timed here, and at least `floor_s`."""
        self.ailment = ""
        self._clock = clock
        self._rotas = [self._timed(check, floor_s, factor) for check in checks if check.num_parts]
        self._next_s = 0.0

    @property
    def periods(self) -> list[Examined]:
        """Of each check; it has only begun."""
        return [_found(rota, "begun") for rota in self._rotas]

    @property
    def notes(self) -> tuple[str, ...]:
        """The periods in words, for the operator."""
        return tuple(
            f"integrity: {each.check.name} is looked at within {each.period_s:.0f} s while idle, within "
            f"{each.period_s * BUSY_FACTOR:.0f} s under load, which takes {1000 * each.cost_s:.1f} ms"
            for each in self._rotas
        )

    def look(self, is_idle: bool, now: float) -> list[Examined]:
        """Do what is due at `now` seconds; findings of checks of which all parts have been looked at, or of which one
        is wrong."""
        if now < self._next_s and not is_idle:
            return []
        findings = [found for rota in self._rotas if (found := self._look_at(rota, is_idle, now)) is not None]
        self._next_s = min([rota.last_s + rota.part_s(False) for rota in self._rotas], default=float("inf"))
        return findings

    def _look_at(self, rota: _Rota, is_idle: bool, now: float) -> Examined | None:
        part_s = rota.part_s(is_idle)
        num_due = min(int((now - rota.last_s) / part_s), rota.check.num_parts)
        if num_due < 1:
            return None
        end_s = now + MOST_S
        for _ in range(num_due):
            rota.num_done += 1
            problem = self._insist(rota)
            if problem is not None:
                rota.last_s = now
                return problem
            if self._clock() > end_s:
                break
        rota.last_s = now
        if rota.num_done < rota.check.num_parts:
            return None
        rota.num_done = 0
        return _found(rota, "ok")

    def _insist(self, rota: _Rota) -> Examined | None:
        """One part; what is wrong is looked at again."""
        problem = rota.check.examine()
        if problem is None:
            return None
        for _ in range(NUM_TRIES - 1):
            if rota.check.examine() is None:
                return _found(rota, "differs")
        self.ailment = problem
        return _found(rota, "differs", problem)

    def _timed(self, check: Check, floor_s: float, factor: float) -> _Rota:
        begin = self._clock()
        check.begin()
        cost_s = self._clock() - begin
        return _Rota(check, cost_s, max(floor_s, factor * cost_s), self._clock())


def _found(rota: _Rota, outcome: str, ailment: str = "") -> Examined:
    return Examined(rota.check.name, outcome, rota.period_s, rota.period_s * BUSY_FACTOR, ailment)
