"""The engine: `schedule -> run -> settle`, and nothing else. No clock, no I/O, no threads.

Knows: a scheduler and a runner. Does not know: who asked, over what, or how late it is (time is an argument).
"""

from __future__ import annotations

from typing import Protocol

from quire.engine.messages import StepReport
from quire.errors import InternalError
from quire.request import Request
from quire.scheduling.cost import shape_of
from quire.scheduling.scheduler import Scheduler
from quire.step import Delta, Step, StepResult


class Runner(Protocol):
    """Whatever can run a step: the model's runner, or the fake one."""

    def run(self, step: Step) -> StepResult:
        """One result for each work of the step, in order."""
        ...


class Engine:
    """Requests in, deltas out, one step at a time."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self._last: Step | None = None

    @property
    def has_work(self) -> bool:
        """True while a step would do something."""
        return self.scheduler.has_work

    def add(self, request: Request, now: float) -> None:
        """Take a request in at `now`, on the clock of `step`; raises `RequestError` if it can never be served."""
        self.scheduler.add(request, now)

    def abort(self, request_id: str, index: int | None = None, served: bool = False) -> tuple[Delta, ...]:
        """End a request that nobody waits for, or one sample of it; its last deltas, none if it has ended already.

        `served`: it ends because whoever asked has all that he wanted.
        """
        return tuple(self.scheduler.abort(request_id, index, served))

    def advance(self, now: float) -> tuple[Delta, ...] | None:
        """One turn of the loop; None if there was nothing to compute. `now` is in seconds, on any steady clock."""
        self._last = step = self.scheduler.schedule(now)
        if step is None:
            return None
        return tuple(self.scheduler.settle(step, self.runner.run(step), now))

    def step(self, now: float) -> StepReport | None:
        """`advance`, with the step's numbers; nobody has timed it."""
        deltas = self.advance(now)
        return None if deltas is None else StepReport(deltas, self.scheduler.stats())

    def timed(self, deltas: tuple[Delta, ...], seconds: float) -> StepReport:
        """The report of the last step, which took `seconds`; the step-time model learns from them."""
        if self._last is None:
            raise InternalError("a step was timed that never was")
        predicted_s = self.scheduler.cost.observe(shape_of(self._last), seconds)
        self._last = None
        return StepReport(deltas, self.scheduler.stats(seconds, predicted_s))
