"""A step that raises is run again by halves, until it is known which works cannot be computed.

    works   0 1 2 3 4 5 6 7    raises
            0 1 2 3            comes through: these results count, and are the bits that the whole step would have given
                    4 5 6 7    raises
                    4 5        comes through
                        6 7    raises        6: comes through     7: raises alone, and once more at the end

A row's result never depends on its neighbours (decision 002), so halves give what the whole would have given. What
raises alone is the work's own fault if another request's work came through, or if its request stood alone in the step
and the `probe` (a prompt of our own, on pages of its own) comes through. Else nothing tells the guilty from the
innocent: nobody is ended, the step is run again. After `MOST_HOPELESS` searches in a row in which nothing came through
the engine gives up, with `EngineDead`: whoever restarts it sees further.

Knows: steps, and how to run one. Does not know: the scheduler, or what becomes of a request that fails.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from quire.errors import EngineDead
from quire.step import STEP_RAISED, Step, StepResult, WorkResult

MOST_HOPELESS = 3
RAISED = WorkResult(error=STEP_RAISED)

Report = Callable[[BaseException], object]


class Runner(Protocol):
    """Whatever can run a step: the model's runner, or the fake one."""

    def run(self, step: Step) -> StepResult:
        """One result for each work of the step, in order."""
        ...

    def rest(self) -> None:
        """There is nothing to compute: let go of what answers that have ended still needed."""
        ...


@dataclass(slots=True)
class _Search:
    """What is known of a step so far: one result for each work that was decided, in order."""

    runner: Runner
    step: Step
    has_copied: bool = False
    results: list[WorkResult] = field(default_factory=list)

    @property
    def came_through(self) -> bool:
        """Whether any work did."""
        return any(each is not RAISED for each in self.results)

    def try_again(self) -> None:
        """What raised alone is tried once more, now that others came through: some trouble passes by itself."""
        for place, each in enumerate(self.results):
            if each is RAISED:
                again = _Search(self.runner, self.step, True)
                again.decide(place, place + 1)
                self.results[place] = again.results[0]

    def halve(self, first: int, end: int) -> None:
        """Decide works [first, end), which raised together; a single one is tried once more."""
        middle = (first + end) // 2
        if middle > first:
            self.decide(first, middle)
        self.decide(middle, end)

    def decide(self, first: int, end: int) -> None:
        """Run works [first, end), and what raises by halves."""
        try:
            result = self.runner.run(self._part(first, end))
        except Exception:  # noqa: BLE001 - whatever it is, it ends the works that raise it and no others
            if end - first > 1:
                self.halve(first, end)
            else:
                self.results.append(RAISED)
        else:
            self.has_copied = True
            self.results += result.works

    def _part(self, first: int, end: int) -> Step:
        """Some of the works. The step's copies come with each part until one has come through: copied again before
        that, a block is only written again by its own work; after that, what the work wrote would be lost."""
        copies = () if self.has_copied else self.step.copies
        return replace(self.step, works=self.step.works[first:end], copies=copies)


class Rescue:
    """The search, and the count of searches in a row that found nothing alive (whoever runs a step well resets it)."""

    def __init__(self, probe: Callable[[], object] | None = None, report: Report | None = None) -> None:
        self.num_hopeless = 0
        self._probe = probe
        self._report: Report = report or traceback.print_exception

    def run(self, runner: Runner, step: Step, names: Sequence[str], problem: Exception) -> StepResult:
        """The results of `step`, of which `runner` raised `problem`; `names` are the requests of its works.

        Works that cannot be computed have `STEP_RAISED` for an error. Raises `EngineDead` where there is no hope.
        """
        self._report(problem)
        while True:
            is_sane = self._is_sane()
            search = _Search(runner, step)
            if is_sane:
                search.halve(0, len(step.works))
            if search.came_through:
                search.try_again()
                self.num_hopeless = 0
                return StepResult(tuple(search.results))
            self.num_hopeless += 1
            if self.num_hopeless >= MOST_HOPELESS:
                raise EngineDead(
                    "step after step nothing can be computed, whosever it is",
                    got=type(problem).__name__,
                    hint="Restart the engine; its log says where it raised.",
                ) from problem
            if is_sane and self._probe is not None and len(set(names)) == 1:
                return StepResult(tuple(search.results))

    def _is_sane(self) -> bool:
        """Whether the machine computes what is known to be computable."""
        if self._probe is None:
            return True
        try:
            self._probe()
        except Exception as problem:  # noqa: BLE001 - whatever it is, no request has caused it
            self._report(problem)
            return False
        return True
