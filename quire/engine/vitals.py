"""Whether an engine gets on, judged from its pulse and from what the machine says of its process.

    a turn of the loop, a step done        all is well, and every count begins anew
    no turn, and meanwhile it ...
      computes        up to ten times what the step was predicted to take, and never less than 10 s   (`pulsing.py`)
      waits           7 s: longest for a mask of a grammar, which is 5 s
      gets no time    10 min: it could run, or waits for a disk; a crowded machine, or one that swaps, hangs nobody

Time counts as it was spent: of a second in which the process had 0.3 s of processor time 0.3 s were computing. Of a
look that came late (this process had no time itself, or the whole machine slept) only `MOST_LOOK_S` count.

Knows: beats, bodies, seconds. Does not know: processes, signals, clocks (time is an argument).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quire.engine.body import RUNNABLE, STOPPED, WAITS_FOR_DISK, Body
from quire.engine.pulse import Beat, Phase

LOOK_S = 0.25
MOST_LOOK_S = 0.5
STILL_S, STILL_UNREADY_S = 7.0, 3.0
STARVED_S, STARVED_UNREADY_S = 600.0, 30.0
BUSY_S = 10.0  # between steps, where nothing is predicted
BLIND_S, BLIND_UNREADY_S = 30.0, 10.0  # where the machine says nothing of the process, all time is alike
LOADING_FACTOR = 30.0  # files come from far away, and are read without a word
UNREADY_SHARE = 0.5  # of what a step may compute before it is given up
IDLE_CPU_SHARE = 0.05  # of a look: a process that used less did not compute


class Health(Enum):
    """What is to be done about it."""

    GOOD = "good"
    UNREADY = "unready"  # no answer would come now; it may recover
    STALLED = "stalled"  # it will not


@dataclass(frozen=True, slots=True)
class Vital:
    """The judgement, in words where it is not good. `is_stopped`: by a signal, which is no request's doing."""

    health: Health
    reason: str = ""
    is_stopped: bool = False


GOOD = Vital(Health.GOOD)


class Watch:
    """`look` at an engine every `LOOK_S`; one watch for one process."""

    def __init__(self) -> None:
        self.vital = GOOD
        self._seen: tuple[float, int] | None = None
        self._looked_s: float | None = None
        self._cpu_s = 0.0
        self._since_s = 0.0
        self._forget()

    def look(self, now: float, beat: Beat, body: Body | None) -> Vital:
        """Take in what is there at `now`, and judge."""
        elapsed_s = 0.0 if self._looked_s is None else min(MOST_LOOK_S, max(0.0, now - self._looked_s))
        used_s = 0.0 if body is None else max(0.0, body.cpu_s - self._cpu_s)
        self._looked_s, self._cpu_s = now, 0.0 if body is None else body.cpu_s
        if self._seen != (beat.beat_s, beat.num_steps):
            self._seen, self._since_s = (beat.beat_s, beat.num_steps), now
            self._forget()
        else:
            self._count(elapsed_s, used_s, body)
        self.vital = self._judge(now, beat)
        return self.vital

    def _forget(self) -> None:
        self._busy_s = self._still_s = self._starved_s = self._blind_s = 0.0
        self._is_stopped = False

    def _count(self, elapsed_s: float, used_s: float, body: Body | None) -> None:
        if body is None:
            self._blind_s += elapsed_s
            return
        self._is_stopped = body.state in STOPPED
        if self._is_stopped:
            self._still_s += elapsed_s
        elif used_s > IDLE_CPU_SHARE * elapsed_s:
            self._busy_s += min(elapsed_s, used_s)
            self._starved_s += max(0.0, elapsed_s - used_s)
        elif body.state in RUNNABLE + WAITS_FOR_DISK:
            self._starved_s += elapsed_s
        else:
            self._still_s += elapsed_s

    def _judge(self, now: float, beat: Beat) -> Vital:
        factor = LOADING_FACTOR if beat.phase is Phase.LOADING and not self._is_stopped else 1.0
        most_busy_s = max(BUSY_S, beat.patience_s if beat.phase is Phase.STEP else 0.0)
        for counted_s, unready_s, most_s, what in (
            (self._still_s, STILL_UNREADY_S, STILL_S, "stands still" if not self._is_stopped else "is stopped"),
            (self._busy_s, UNREADY_SHARE * most_busy_s, most_busy_s, "computes without end"),
            (self._starved_s, STARVED_UNREADY_S, STARVED_S, "gets no processor time"),
            (self._blind_s, BLIND_UNREADY_S, max(BLIND_S, most_busy_s), "does not move"),
        ):
            if counted_s >= factor * unready_s:
                health = Health.STALLED if counted_s >= factor * most_s else Health.UNREADY
                return Vital(health, self._worded(now, beat, what), self._is_stopped)
        return GOOD

    def _worded(self, now: float, beat: Beat, what: str) -> str:
        where = {Phase.LOADING: "while it loads", Phase.IDLE: "with nothing to do", Phase.BETWEEN: "between two steps"}
        told = where.get(beat.phase, f"in a step predicted to take {beat.predicted_s:.3g} s")
        return f"the engine {what} {told}, without progress for {now - self._since_s:.1f} s"
