"""Knows: what all schedulers do that reserve a sequence's whole memory in one piece before it begins.

Does not know: who may begin, or what a step holds; each policy says that. One sample a request, no prefix is shared,
nobody is ever put back: whoever has begun has all the memory that he can come to need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from quire.errors import GenerationFailed, InternalError, RequestError
from quire.events import CacheUse
from quire.request import Request, Sequence
from quire.scheduling import deltas
from quire.scheduling.admission import refusal
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.seat import Seat
from quire.sim.peers.runs import Runs
from quire.step import Delta, Step, StepResult, Work


class Reserving(ABC):
    """add, schedule, settle, first come first served; blocks of the pool are used as runs of neighbours."""

    def __init__(self, limits: SchedulerLimits, num_blocks: int) -> None:
        self.limits = limits
        self.cost = None  # nobody here asks how long a step will take
        self._memory = Runs(num_blocks)
        self._waiting: deque[Seat] = deque()
        self._running: list[Seat] = []
        self._num_seats = self._num_steps = 0
        self._open_step: int | None = None

    @property
    def has_work(self) -> bool:
        """True while anyone is here."""
        return bool(self._waiting or self._running)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Who has begun and not ended, oldest first."""
        return tuple(self._running)

    @property
    def num_waiting(self) -> int:
        """Who has not begun."""
        return len(self._waiting)

    def add(self, request: Request, now: float = 0.0) -> None:
        """Let `request` wait, or raise the `RequestError` that says why it can never be served."""
        error = refusal(request, self.limits, self._memory.num_blocks)
        if error is None and request.params.n > 1:
            error = RequestError("this policy draws one sample a request", got=request.params.n, param="n")
        if error is not None:
            raise error
        seat = Seat(self._new_id(), request, tokens=list(request.prompt))
        self._waiting.append(seat)

    def schedule(self, now: float) -> Step | None:
        """What to compute next, None if nobody is here. `now` changes nothing."""
        if self._open_step is not None:
            raise InternalError("a step was scheduled before the last one was settled", got=self._open_step)
        if not self.has_work:
            return None
        self._admit()
        works = self._works()
        if not works:
            raise InternalError("nobody can go on", got=f"{len(self._running)} running, {len(self._waiting)} waiting")
        self._num_steps += 1
        self._open_step = self._num_steps
        return Step(self._num_steps, tuple(works))

    def settle(self, step: Step, result: StepResult, now: float) -> list[Delta]:
        """Take in what `step` computed."""
        if self._open_step != step.id or len(step.works) != len(result.works):
            raise InternalError("this is not the result of the step under way", got=step.id, allowed=self._open_step)
        self._open_step = None
        news: list[Delta] = []
        seats = {seat.id: seat for seat in self._running}
        for work, outcome in zip(step.works, result.works, strict=True):
            if outcome.error is not None:
                raise GenerationFailed("a request of a comparison went wrong", got=outcome.error)
            seat = seats.get(work.seq_id)
            if seat is None:
                continue
            seat.num_computed += len(work.tokens)
            if work.draw is not None:
                news.append(deltas.drawn(seat, outcome, 0, ()))
                if news[-1].finish is not None:
                    self._running.remove(seat)
                    self._end(seat)
        self._settled(step)
        return news

    def cache_use(self) -> CacheUse:
        """The memory now; all that is reserved counts as used, and what holds no token of one who runs as wasted."""
        size, num_blocks, num_free = self.limits.block_size, self._memory.num_blocks, self._memory.num_free
        num_filled = sum([seat.num_computed for seat in self._running])
        num_used = num_blocks - num_free
        return CacheUse(num_blocks, num_used, 0, num_free, size, num_used * size - num_filled)

    def _new_id(self) -> int:
        self._num_seats += 1
        return self._num_seats

    @abstractmethod
    def _admit(self) -> None:
        """Let begin who may."""

    @abstractmethod
    def _works(self) -> list[Work]:
        """What the next step computes."""

    @abstractmethod
    def _end(self, seat: Seat) -> None:
        """`seat` has drawn its last token and runs no more."""

    def _settled(self, step: Step) -> None:
        """All news of `step` are told."""
        return
