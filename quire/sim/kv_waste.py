"""Knows: how much KV memory a trace wastes, paged by the real scheduler and pool, and reserved in one piece.

Does not know: a model, or how a trace is written down.

    paged        |t t t t|t t t t|t t . .|            wasted: what the last block does not hold yet
    contiguous   |t t t t t t t t t t . . . . . . . . . . . . . . . . . .|    wasted: all that is reserved and not held

Both are measured over the same sequences at the same moments, each step weighted by how long it takes; a slot counts
as held from the step that computes it. A request longer than a reservation is counted as reserving exactly what it
will need, which no server knows beforehand: the contiguous figures are kind ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from quire.cache.blocks import BlockPool
from quire.errors import RequestError
from quire.request import Request, SamplingParams, Sequence
from quire.scheduling.cost import shape_of
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.scheduler import Scheduler
from quire.sim.device import ModelledDevice
from quire.sim.trace import Arrival, read_trace
from quire.step import Step, StepResult, WorkResult

RESERVATIONS = (2048, 4096, 8192)
STEPS_PER_REPORT = 1000
DRAWN = WorkResult((0,))
NOT_DRAWN = WorkResult()


@dataclass(frozen=True, slots=True)
class WasteReport:
    """What a replay measured; shares are of slots used or reserved, time-weighted.

    `contiguous_waste_share` is keyed by the reservation in tokens; the largest key is the trace's longest request.
    `mean_running` is of busy time. `num_refused` requests could never fit the pool.
    """

    num_requests: int
    num_refused: int
    num_steps: int
    num_preempted: int
    num_output_tokens: int
    modelled_s: float
    busy_s: float
    mean_running: float
    num_blocks: int
    block_size: int
    peak_used_blocks: int
    waste_share: float
    contiguous_waste_share: Mapping[int, float]


def replay(
    path: Path,
    *,
    num_requests: int | None = None,
    speed: float = 1.0,
    num_blocks: int = 8192,
    block_size: int = 16,
    max_num_seqs: int = 256,
    max_num_batched_tokens: int = 2048,
    device: ModelledDevice | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> WasteReport:
    """Replay the trace at `path` (its first `num_requests`, arriving `speed` times as fast) over a modelled device.

    `tell(arrived, total)` is called now and then. A trace that cannot be read raises `StartError`.
    """
    arrivals = read_trace(path, num_requests)
    longest = max(one.num_prompt + one.num_output for one in arrivals)
    limits = SchedulerLimits(max_num_seqs, max_num_batched_tokens, longest, block_size)
    run = Replay(arrivals, limits, num_blocks, device or ModelledDevice(), speed)
    while run.advance():
        if tell is not None and run.num_steps % STEPS_PER_REPORT == 0:
            tell(run.num_arrived, len(arrivals))
    return run.report()


class Replay:
    """One replay under way: `advance()` makes one step, until there is nothing left to do."""

    def __init__(
        self, arrivals: list[Arrival], limits: SchedulerLimits, num_blocks: int, device: ModelledDevice, speed: float
    ) -> None:
        self.num_steps = self.num_arrived = self.num_refused = self.num_preempted = self.num_output_tokens = 0
        self._scheduler = Scheduler(limits, BlockPool(num_blocks), policy_name="fcfs")
        self._device = device
        self._speed = speed
        self._todo = deque(arrivals)
        self._now_s = 0.0
        self._meter = WasteMeter((*RESERVATIONS, limits.max_model_len))

    def advance(self) -> bool:
        """Let arrive who is due, and make one step; False once everyone is served."""
        scheduler = self._scheduler
        if not scheduler.has_work and self._todo:
            self._now_s = max(self._now_s, self._todo[0].at_s / self._speed)
        while self._todo and self._todo[0].at_s <= self._now_s * self._speed:
            self._arrive(self._todo.popleft())
        step = scheduler.schedule(self._now_s)
        if step is None:
            return bool(self._todo)
        seconds = self._device.seconds(shape_of(step))
        self._meter.measure(scheduler, step, seconds)
        self._now_s += seconds
        results = StepResult(tuple([NOT_DRAWN if work.draw is None else DRAWN for work in step.works]))
        self.num_output_tokens += len(scheduler.settle(step, results, self._now_s))
        self.num_preempted += scheduler.stats().num_preempted
        self.num_steps += 1
        return True

    def report(self) -> WasteReport:
        """What was measured so far."""
        meter, pool = self._meter, self._scheduler.cache_use()
        return WasteReport(
            num_requests=self.num_arrived,
            num_refused=self.num_refused,
            num_steps=self.num_steps,
            num_preempted=self.num_preempted,
            num_output_tokens=self.num_output_tokens,
            modelled_s=self._now_s,
            busy_s=meter.seconds,
            mean_running=meter.running_s / meter.seconds if meter.seconds else 0.0,
            num_blocks=pool.num_blocks,
            block_size=pool.block_size,
            peak_used_blocks=meter.peak_used_blocks,
            waste_share=meter.waste_share,
            contiguous_waste_share=meter.contiguous_waste_share,
        )

    def _arrive(self, arrival: Arrival) -> None:
        params = SamplingParams(temperature=0.0, seed=0, max_tokens=arrival.num_output, ignore_eos=True)
        self.num_arrived += 1
        try:
            self._scheduler.add(Request(str(self.num_arrived), (0,) * arrival.num_prompt, params), self._now_s)
        except RequestError:
            self.num_refused += 1


class WasteMeter:
    """Adds up slot-seconds: used and wasted ones of the pool, reserved and held ones of contiguous reservations."""

    def __init__(self, reservations: tuple[int, ...]) -> None:
        self.seconds = self.running_s = 0.0
        self.peak_used_blocks = 0
        self._used = self._held = 0.0
        self._reserved = dict.fromkeys(reservations, 0.0)
        self._running: tuple[Sequence, ...] = ()
        self._reserving = dict.fromkeys(reservations, 0)

    def measure(self, scheduler: Scheduler, step: Step, seconds: float) -> None:
        """Count one scheduled step, which takes `seconds`."""
        use, running = scheduler.cache_use(), scheduler.running
        if running != self._running:
            self._running = running
            longest = [sequence.request.max_total_tokens for sequence in running]
            self._reserving = {size: sum([max(size, own) for own in longest]) for size in self._reserved}
        num_slots = use.num_used * use.block_size
        self.seconds += seconds
        self.running_s += seconds * len(running)
        self.peak_used_blocks = max(self.peak_used_blocks, use.num_used)
        self._used += seconds * num_slots
        self._held += seconds * (num_slots - use.num_wasted_slots + step.num_tokens)
        for size, num_reserved in self._reserving.items():
            self._reserved[size] += seconds * num_reserved

    @property
    def waste_share(self) -> float:
        """Share of used slots that hold no token."""
        return 1 - self._held / self._used if self._used else 0.0

    @property
    def contiguous_waste_share(self) -> dict[int, float]:
        """The same for each size of contiguous reservation."""
        return {size: 1 - self._held / reserved if reserved else 0.0 for size, reserved in self._reserved.items()}
