"""An engine's side of its pulse: a runner that writes down, before each step, whose it is and how long it may take.

    proven step     one at least half as large has been run: ten times its prediction is more than enough
    unproven step   the prediction is a guess: thirty times, a minute at least; without one, five minutes

Knows: steps, the step-time model, the page. Does not know: who reads the page.
"""

from __future__ import annotations

from collections.abc import Callable

from quire.engine.pulse import Pulse, name_of
from quire.engine.rescue import Runner
from quire.scheduling.cost import StepShape, shape_of
from quire.scheduling.scheduler import Scheduler
from quire.step import Step, StepResult, Work

PATIENCE = 10.0  # times the prediction
LEAST_PATIENCE_S = 10.0
GUESSED = 30.0
LEAST_GUESSED_S = 60.0
UNKNOWN_S = 300.0
MOST_KNOWN = 4096  # 190 bytes each: with 65,536 an engine grew for half an hour
MOST_ALIKE = 64  # steps until the next one is looked at anew: contexts grow


class Patience:
    """How long a step may compute, by what was seen of others. Far outside of what was timed it is a guess."""

    def __init__(self) -> None:
        self._most_tokens = self._most_context = self._most_pairs = 0

    def of(self, shape: StepShape, predicted_s: float | None) -> float:
        """Seconds of computing after which a step of `shape` cannot be in order."""
        proven = (
            shape.num_tokens <= 2 * self._most_tokens
            and shape.num_context_tokens <= 2 * self._most_context
            and shape.num_pairs <= 2 * self._most_pairs
        )
        if predicted_s is None:
            return UNKNOWN_S
        factor, least_s = (PATIENCE, LEAST_PATIENCE_S) if proven else (GUESSED, LEAST_GUESSED_S)
        return max(least_s, factor * predicted_s)

    def learn(self, shape: StepShape) -> None:
        """A step of `shape` came to its end."""
        self._most_tokens = max(self._most_tokens, shape.num_tokens)
        self._most_context = max(self._most_context, shape.num_context_tokens)
        self._most_pairs = max(self._most_pairs, shape.num_pairs)


class PulsingRunner:
    """`runner`, with every step announced on the page first. Parts of a step are announced as what they are."""

    def __init__(self, runner: Runner, scheduler: Scheduler, pulse: Pulse, clock: Callable[[], float]) -> None:
        self.runner = runner
        self.names = Names()
        self._scheduler, self._pulse, self._clock = scheduler, pulse, clock
        self._patience = Patience()
        self._works: tuple[Work, ...] = ()
        self._shape = StepShape(0, 0, 0)
        self._num_alike = 0

    def run(self, step: Step) -> StepResult:
        """Announce it, run it, say that it is done. A step that raises stays announced until the loop goes on."""
        # Works that only go on by a token are the same objects again: what was written of them stands (32 rows
        # cost 1 us then and 20 else, 256 rows some 5 and 130).
        self._num_alike += 1
        if step.works != self._works or self._num_alike >= MOST_ALIKE or not self._pulse.begin_again(self._clock()):
            self._announce(step)
        result = self.runner.run(step)
        self._patience.learn(self._shape)
        self._pulse.end()
        return result

    def _announce(self, step: Step) -> None:
        self._works, self._num_alike, self._shape = step.works, 0, shape_of(step)
        predicted_s = self._scheduler.cost.predict(self._shape)
        found = [self._scheduler.name_of(work.seq_id) for work in step.works]
        names = {self.names[name] for name in found if name is not None}
        self._pulse.begin(self._clock(), names, predicted_s or 0.0, self._patience.of(self._shape, predicted_s))

    def rest(self) -> None:
        """Let `runner` rest."""
        self.runner.rest()


class Names(dict[str, int]):
    """Request ids and how they stand on the page; digests are remembered while there are not too many."""

    def __missing__(self, request_id: str) -> int:
        if len(self) >= MOST_KNOWN:
            self.clear()
        found = self[request_id] = name_of(request_id)
        return found
