"""The engine: a gate, then `schedule -> run -> settle`, and nothing else. No clock, no I/O, no threads.

Knows: a scheduler, a runner and a contract. Does not know: who asked, over what, or the time (it is an
argument).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from quire.engine.examiner import Examiner
from quire.engine.grammars import Grammars
from quire.engine.messages import Refused, StepReport
from quire.engine.rescue import Rescue, Runner
from quire.errors import IdOutOfRange, InternalError, Quarantined, QuireError, RequestError, UnsupportedField
from quire.events import Examined, StepStats
from quire.plan import Contract
from quire.request import Request
from quire.scheduling.contract import Gate
from quire.scheduling.cost import StepShape, shape_of
from quire.scheduling.scheduler import Scheduler
from quire.step import STEP_RAISED, Delta, Step

MAX_QUARANTINED = 4096  # ids that are remembered


class Engine:
    """Requests in, deltas out, one step at a time. Without a contract whoever can ever be served is taken in.

    `grammars` are those of constrained answers, which `runner` uses. With a `rescue` a step that raises ends the
    requests that make it raise, else the engine.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        contract: Contract | None = None,
        grammars: Grammars | None = None,
        rescue: Rescue | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.gate = None if contract is None else Gate(contract, scheduler.outlook)
        self.grammars = grammars
        self.rescue = rescue
        self.examiner: Examiner | None = None
        self._quarantined: OrderedDict[str, None] = OrderedDict()
        self._faults: list[str] = []  # of requests that no step has seen
        self._last: Step | None = None
        self._was_rescued = False
        self._began_s = 0.0

    @property
    def has_work(self) -> bool:
        """True while a step would do something."""
        return self.scheduler.has_work

    @property
    def last_shape(self) -> StepShape | None:
        """The shape of a step that has run and was not timed yet."""
        return None if self._last is None else shape_of(self._last)

    def add(self, request: Request, now: float) -> None:
        """Take a request in at `now`, on the clock of `step`; raises `RequestError` if it can never be served,
        `Quarantined` if a request of its id made a step raise, and `Overloaded` if the contract has no room for it."""
        if request.id in self._quarantined:
            raise Quarantined("a request of this id could not be computed, and is not tried again", got=request.id)
        if request.constraint is not None and self.grammars is None:
            raise UnsupportedField("this engine keeps no grammars", param="structured_outputs")
        promise = None if self.gate is None else self.gate.judge(request, now)
        try:
            self.scheduler.add(request, now)
        except RequestError as problem:
            if problem.code == IdOutOfRange.default_code:
                self._faults.append(problem.code)
            raise
        if self.gate is not None and promise is not None:
            self.gate.keep(request.id, promise)

    def abort(self, request_id: str, index: int | None = None, served: bool = False) -> tuple[Delta, ...]:
        """End a request that nobody waits for, or one sample of it; its last deltas, none if it has ended already.

        `served`: it ends because whoever asked has all that he wanted.
        """
        if self.gate is not None:
            self.gate.forget(request_id)
        return tuple(self.scheduler.abort(request_id, index, served))

    def expire(self, now: float) -> tuple[tuple[Refused, ...], StepReport | None]:
        """Drop those who wait and whose deadline has passed: what to tell them, and the numbers after it, if any."""
        expired = [] if self.gate is None else self.gate.expired(now)
        if not expired:
            return (), None
        for each in expired:
            self.scheduler.abort(each.request_id, served=True)
        num_tokens = sum([each.num_tokens for each in expired])
        stats = replace(self.scheduler.stats(), num_expired_tokens=num_tokens)
        return tuple([refused(each.request_id, each.error) for each in expired]), StepReport((), stats)

    def advance(self, now: float) -> tuple[Delta, ...] | None:
        """One turn of the loop; None if there was nothing to compute. `now` is in seconds, on any steady clock."""
        self._began_s = now
        self._last = step = self.scheduler.schedule(now)
        self._was_rescued = False
        deltas = None if step is None else self._run(step, now)
        if not self.has_work:
            self.runner.rest()
        return deltas

    def _run(self, step: Step, now: float) -> tuple[Delta, ...]:
        try:
            result = self.runner.run(step)
        except Exception as problem:  # whatever it is, it ends whoever causes it; without a rescue, the engine
            if self.rescue is None:
                raise
            return self._rescued(self.rescue, step, problem, now)
        if self.rescue is not None and self.rescue.num_hopeless:
            self.rescue.num_hopeless = 0
        return tuple(self.scheduler.settle(step, result, now))

    def examine(self, now: float) -> list[Examined]:
        """Look at itself, if that is due and it has an `examiner`; what was found."""
        return [] if self.examiner is None else self.examiner.look(not self.has_work, now)

    def _rescued(self, rescue: Rescue, step: Step, problem: Exception, now: float) -> tuple[Delta, ...]:
        """Settle a step that raised. Of a request that makes it raise nothing is left, and nothing comes back."""
        names = [self.scheduler.name_of(work.seq_id) or "" for work in step.works]
        self._was_rescued = True
        result = rescue.run(self.runner, step, names, problem)
        deltas = self.scheduler.settle(step, result, now)
        failed = [name for name, each in zip(names, result.works, strict=True) if each.error == STEP_RAISED]
        for name in dict.fromkeys(failed):
            deltas += self.scheduler.fail(name, STEP_RAISED)
            self._quarantined[name] = None
            if len(self._quarantined) > MAX_QUARANTINED:
                self._quarantined.popitem(last=False)
        return tuple(deltas)

    def step(self, now: float) -> StepReport | None:
        """`advance`, with the step's numbers; nobody has timed it."""
        deltas = self.advance(now)
        return None if deltas is None else StepReport(deltas, self.scheduler.stats())

    def timed(self, deltas: tuple[Delta, ...], seconds: float) -> StepReport:
        """The report of the last step, which took `seconds`; the step-time model learns from them."""
        if self._last is None:
            raise InternalError("a step was timed that never was")
        # The time of a search says nothing of a step's.
        predicted_s = None if self._was_rescued else self.scheduler.cost.observe(shape_of(self._last), seconds)
        self._last = None
        stats = self._with_news(self.scheduler.stats(seconds, predicted_s))
        first_tokens = () if self.gate is None else self.gate.hear(deltas, self._began_s + seconds)
        return StepReport(deltas, replace(stats, first_tokens=first_tokens) if first_tokens else stats)

    def _with_news(self, stats: StepStats) -> StepStats:
        """`stats` with what no step has counted."""
        if not self._faults:
            return stats
        faults, self._faults = self._faults, []
        return replace(stats, faults=(*stats.faults, *faults))


def refused(request_id: str, error: QuireError) -> Refused:
    """`error` as it travels to whoever asked."""
    kind, retry_after_s = type(error).__name__, getattr(error, "retry_after_s", None)
    return Refused(request_id, kind, error.message, error.param, retry_after_s, getattr(error, "estimate_s", None))
