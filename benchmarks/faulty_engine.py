"""A build of the engine that aborts where a prompt holds `MAGIC`, and hangs at `HANGING`: what no request should do.

Started by `faulty_server.py` in place of `quire.engine`, for measurements of what becomes of the others.
"""

from __future__ import annotations

import os
import sys
import time

from quire.engine.__main__ import main
from quire.engine.build import Built
from quire.engine.rescue import Runner
from quire.step import Step, StepResult, Work

MAGIC = (301, 77, 301, 77, 301)  # nobody writes this by chance
HANGING = (302, 78, 302, 78, 302)


class Faulty:
    """`runner`, which dies of magic."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, step: Step) -> StepResult:
        """As the runner, or never."""
        for work in step.works:
            if len(work.tokens) > 1:
                if _holds(work, MAGIC):
                    os.abort()
                if _holds(work, HANGING):
                    time.sleep(3600)
        return self._runner.run(step)

    def rest(self) -> None:
        """Nothing is held here."""
        self._runner.rest()


def _holds(work: Work, magic: tuple[int, ...]) -> bool:
    tokens = tuple(work.tokens)
    return any(tokens[start : start + len(magic)] == magic for start in range(len(tokens)))


def alter(built: Built) -> None:
    """Put the fault in."""
    built.engine.runner = Faulty(built.engine.runner)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], alter))
