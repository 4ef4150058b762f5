"""An engine with faults that requests set off: started by `ProcessLink(..., module="faulty_engine")`, for tests alone.

A token of the prompt, or one that was just drawn, decides: see `FAULTS`. Knows: the engine's start module. Does not
know: who started it.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from quire.engine.__main__ import main
from quire.engine.build import Built
from quire.engine.rescue import Runner
from quire.step import Step, StepResult

ABORT, HANG, SPIN, STOP, SLOW = 250, 251, 252, 253, 254


def spin() -> None:
    while True:
        pass


FAULTS = {
    ABORT: os.abort,
    HANG: lambda: time.sleep(1000),
    SPIN: spin,
    STOP: lambda: os.kill(os.getpid(), signal.SIGSTOP),
    SLOW: lambda: time.sleep(0.02),
}


class Faulty:
    """`runner`, which fails at the magic tokens."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, step: Step) -> StepResult:
        for work in step.works:
            for token in {*work.tokens, *(work.draw.history[:8] if work.draw is not None else ())} & set(FAULTS):
                FAULTS[token]()
        return self._runner.run(step)

    def rest(self) -> None:
        """Nothing is held here."""
        self._runner.rest()


def alter(built: Built) -> None:
    built.engine.runner = Faulty(built.engine.runner)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], alter))
