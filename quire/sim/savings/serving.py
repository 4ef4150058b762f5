"""Knows: requests that come, one scheduler, one machine; and when each token came. Does not know: the policy.

The loop is the engine's: schedule, run, settle. Waiting is counted from when a request is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from quire.errors import InternalError
from quire.events import CacheUse
from quire.request import Request
from quire.request import Sequence as Running
from quire.scheduling.cost import CostModel, StepShape, shape_of
from quire.sim.savings.asks import Ask, with_ends
from quire.sim.savings.machine import Machine
from quire.sim.savings.meter import Meter
from quire.step import Delta, Step, StepResult

LEARNING_STEPS, LEARN_EVERY = 500, 8
MAX_TIMED = 20_000


class Scheduling(Protocol):
    """What every policy's scheduler can do."""

    @property
    def cost(self) -> CostModel | None:
        """What wants to learn how long steps take."""
        ...

    @property
    def has_work(self) -> bool:
        """True while anyone is here."""
        ...

    @property
    def running(self) -> tuple[Running, ...]:
        """Who has begun."""
        ...

    def add(self, request: Request, now: float = 0.0) -> None:
        """Let a request wait."""
        ...

    def schedule(self, now: float) -> Step | None:
        """What to compute next."""
        ...

    def settle(self, step: Step, result: StepResult, now: float) -> list[Delta]:
        """Take in what was computed."""
        ...

    def cache_use(self) -> CacheUse:
        """The KV memory now."""
        ...


@dataclass(slots=True)
class Visit:
    """One request's times in seconds after the start, and the tokens it got."""

    due_s: float
    first_s: float = -1.0
    last_s: float = -1.0
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class Serving:
    """One policy serving `asks`: `advance()` makes one step, until everyone has got everything.

    With `concurrency`, so many users ask one after the other: a request is due when one before it has ended. Without
    it, requests are due at their times. `timed` are the shapes of steps and the seconds they took.
    """

    def __init__(
        self, scheduler: Scheduling, asks: Sequence[Ask], machine: Machine, concurrency: int | None = None
    ) -> None:
        self.num_steps = self.num_ended = self.num_computed = 0
        self.visits: dict[str, Visit] = {}
        self.timed: list[tuple[StepShape, float]] = []
        self.meter = Meter({str(number): ask.num_slots for number, ask in enumerate(asks)})
        self._scheduler = scheduler
        self._machine = machine
        self._concurrency = concurrency
        self._asks = tuple(asks)
        self._todo = deque(asks)
        self._start_s = machine.now_s

    @property
    def seconds(self) -> float:
        """From the first request to the last token."""
        return max((visit.last_s for visit in self.visits.values()), default=0.0)

    @property
    def num_here(self) -> int:
        """Who has come and not ended."""
        return len(self.visits) - self.num_ended

    def advance(self) -> bool:
        """Let come who is due, and make one step; False once everyone is served."""
        self._let_in()
        scheduler, machine = self._scheduler, self._machine
        begin_s = machine.now_s
        step = scheduler.schedule(begin_s)
        if step is None:
            if self._todo:
                machine.wait_until(self._start_s + self._todo[0].at_s)
            return bool(self._todo)
        result = with_ends(step.works, machine.run(step))
        now_s = machine.now_s
        self._learn(step, now_s - begin_s)
        self.meter.measure(scheduler.cache_use(), scheduler.running, step, now_s - begin_s)
        self._hear(scheduler.settle(step, result, now_s), now_s - self._start_s)
        return True

    def check(self) -> None:
        """Raise `InternalError` unless everyone got exactly what he was to get, and gave all memory back."""
        for visit, ask in zip(self.visits.values(), self._asks, strict=True):
            if not visit.ended or len(visit.tokens) != ask.num_output:
                raise InternalError("a request got too few tokens", got=len(visit.tokens), allowed=ask.num_output)
        if self._scheduler.has_work or self._scheduler.cache_use().num_used:
            raise InternalError("memory was not given back", got=self._scheduler.cache_use().num_used)

    def _let_in(self) -> None:
        now_s = self._machine.now_s - self._start_s
        while self._todo and self._is_due(self._todo[0], now_s):
            ask = self._todo.popleft()
            name = str(len(self.visits))
            self.visits[name] = Visit(now_s if self._concurrency else ask.at_s)
            self._scheduler.add(ask.request(name), self._machine.now_s)

    def _is_due(self, ask: Ask, now_s: float) -> bool:
        return self.num_here < self._concurrency if self._concurrency else ask.at_s <= now_s

    def _learn(self, step: Step, seconds: float) -> None:
        shape = shape_of(step)
        self.num_steps += 1
        self.num_computed += shape.num_tokens
        if len(self.timed) < MAX_TIMED:
            self.timed.append((shape, seconds))
        cost = self._scheduler.cost
        if cost is not None and (self.num_steps < LEARNING_STEPS or self.num_steps % LEARN_EVERY == 0):
            cost.observe(shape, seconds)

    def _hear(self, news: list[Delta], now_s: float) -> None:
        for delta in news:
            visit = self.visits[delta.request_id]
            if not visit.tokens:
                visit.first_s = now_s
            visit.last_s = now_s
            visit.tokens += delta.tokens
            if delta.finish is not None:
                visit.ended = True
                self.num_ended += 1
