"""Knows: a machine that runs steps on a clock, and one whose clock is a law. Does not know: what is in a step."""

from __future__ import annotations

from typing import Protocol

from quire.scheduling.cost import shape_of
from quire.sim.device import ModelledDevice
from quire.step import Step, StepResult, WorkResult

DRAWN, NOT_DRAWN = WorkResult((0,)), WorkResult()


class Machine(Protocol):
    """Whatever runs steps and has a clock."""

    @property
    def now_s(self) -> float:
        """Seconds, from any beginning."""
        ...

    def run(self, step: Step) -> StepResult:
        """Compute `step`; the clock moves on."""
        ...

    def wait_until(self, at_s: float) -> None:
        """Do nothing until the clock shows `at_s`."""
        ...


class Modelled:
    """Draws nothing but zeros, in the time that a law gives."""

    def __init__(self, device: ModelledDevice) -> None:
        self.now_s = 0.0
        self._device = device

    def run(self, step: Step) -> StepResult:
        """Let the time of `step` pass."""
        self.now_s += self._device.seconds(shape_of(step))
        return StepResult(tuple([NOT_DRAWN if work.draw is None else DRAWN for work in step.works]))

    def wait_until(self, at_s: float) -> None:
        """Let the time until `at_s` pass."""
        self.now_s = max(self.now_s, at_s)
