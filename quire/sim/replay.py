"""Knows: a trace, the real scheduler and a modelled device, and what comes of them. Does not know: a clock, or a model.

The virtual clock moves by what the device takes for each step. The scheduler is not told how long an answer will be:
it ends with an end token, when its length in the trace is reached. It learns from its steps' times as in an engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import chain, cycle, islice
from random import Random
from typing import Protocol

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.errors import RequestError
from quire.events import StepStats
from quire.request import Request, SamplingParams
from quire.scheduling.cost import CostModel, StepShape, shape_of
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.scheduler import Scheduler
from quire.sim.device import ModelledDevice, Pace
from quire.sim.figures import Seen, Spread, jain_index
from quire.sim.names import SimulatedIndex
from quire.sim.peers.vllm import VllmScheduler
from quire.sim.trace import HASHED_TOKENS, Arrival, num_turns
from quire.step import Delta, Step, StepResult, WorkResult

EOS = 2**31
UNIQUE = 2**31 + 1  # first token of a prompt that nobody shares; what follows are ids of the trace's own blocks
DRAWN, NOT_DRAWN, ENDED = WorkResult((0,)), WorkResult(), WorkResult((EOS,))
MODELLED, UNBOUND, STEADY = ModelledDevice(), ItlTarget(), Pace(1.0, (1.0,))
NUM_SAMPLES = 200
LEARNING_STEPS, LEARN_EVERY = 500, 8  # a modelled device does not change: after a while every eighth step is enough


VLLM = "vllm"


class Schedules(Protocol):
    """What a replay asks of a scheduler: ours, or a peer's rules."""

    cost: CostModel

    @property
    def has_work(self) -> bool:
        """True while anyone is here."""
        ...

    def add(self, request: Request, now: float = 0.0) -> None:
        """Let a request wait, or refuse it."""
        ...

    def schedule(self, now: float) -> Step | None:
        """What to compute next."""
        ...

    def settle(self, step: Step, result: StepResult, now: float) -> list[Delta]:
        """Take in what a step computed."""
        ...

    def stats(self, seconds: float = 0.0) -> StepStats:
        """The last step in numbers."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """How requests are served. `policy` is one of ours, or `vllm`. `num_flex` requests more, of the trace's lengths,
    wait in the flex lane from the start; the replay ends with the last of the others. With `lengths_known` clients ask
    for the answers' very lengths; `taught` are timed steps from which the scheduler has learnt before; the device
    keeps `pace`."""

    limits: SchedulerLimits
    num_blocks: int
    device: ModelledDevice = MODELLED
    policy: str = "fair"
    itl_target: ItlTarget = UNBOUND
    prefix_cache: bool = True
    speed: float = 1.0
    num_tenants: int = 1
    ttft_goal_s: float = 2.0
    itl_goal_s: float = 0.2
    num_flex: int = 0
    lengths_known: bool = False
    taught: tuple[tuple[StepShape, float], ...] = ()
    pace: Pace = STEADY


@dataclass(slots=True)
class Visit:
    """One request's times on the virtual clock, and the tokens it got. `then` comes after it."""

    arrival_s: float
    tenant: str
    then: Arrival | None = None
    is_flex: bool = False
    first_s: float = -1.0
    last_s: float = -1.0
    num_tokens: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at one moment; shares are of the pool's blocks, waste of the slots in use."""

    at_s: float
    num_running: int
    num_waiting: int
    used_share: float
    cached_share: float
    waste_share: float


@dataclass(frozen=True, slots=True)
class SimReport:
    """What a replay measured. Rates are per modelled second; `goodput_rps` counts requests that met both goals: first
    token and mean time between tokens. `fairness` is Jain's index of the tenants' mean times to the first token. Times
    are those of ordinary requests; `flex_...` are the flex lane's, whose tokens are counted among all."""

    num_requests: int
    num_refused: int
    num_steps: int
    modelled_s: float
    busy_s: float
    requests_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    goodput_rps: float
    ttft_s: Spread
    itl_s: Spread
    e2e_s: Spread
    mean_running: float
    peak_used_share: float
    mean_used_share: float
    kv_waste_share: float
    num_cached_tokens: int
    num_preempted: int
    num_repeated_tokens: int
    repeated_share: float
    prediction_error_p90: float
    fairness: float
    num_flex_finished: int
    flex_requests_per_s: float
    num_yielded_tokens: int
    samples: tuple[Sample, ...] = field(repr=False, default=())


class Simulation:
    """One replay under way: `advance()` makes one step, until there is nothing left to do."""

    def __init__(self, arrivals: Sequence[Arrival], served: Served) -> None:
        self.num_arrived = self.num_refused = self.num_steps = 0
        self.now_s = 0.0
        self._served = served
        prefix = SimulatedIndex(served.limits.block_size) if served.prefix_cache else None
        self._scheduler = _scheduler(served, prefix)
        self._todo = [(each.at_s / served.speed, number, each) for number, each in enumerate(arrivals)]
        heapify(self._todo)
        self._num_todo = len(self._todo)
        self.num_requests = sum([num_turns(each) for each in arrivals])
        self._num_open = self.num_requests  # ordinary requests that have not ended
        self._visits: dict[str, Visit] = {}
        self._gaps = Seen()
        self._totals: Counter[str] = Counter()
        self._busy_s = self._running_s = self._used_s = self._wasted_s = 0.0
        self._peak_used = 0
        self._samples: list[Sample] = []
        for number, each in enumerate(islice(cycle(arrivals), served.num_flex)):
            flex = replace(each, hashes=(), then=None)
            self._submit(f"flex {number}", flex, Visit(0.0, str(number % served.num_tenants), is_flex=True))
        self._scheduler.cost.calibrate(served.taught)
        self._chance = Random(0).random
        self._sample_every_s = max(1e-3, arrivals[-1].at_s / served.speed / NUM_SAMPLES) if arrivals else 1.0

    def advance(self) -> bool:
        """Let arrive who is due, and make one step; False once everyone is served."""
        scheduler, todo = self._scheduler, self._todo
        if not self._num_open:
            return False
        if not scheduler.has_work and todo:
            self.now_s = max(self.now_s, todo[0][0])
        while todo and todo[0][0] <= self.now_s:
            at_s, _, arrival = heappop(todo)
            self._arrive(at_s, arrival)
        step = scheduler.schedule(self.now_s)
        if step is None:
            return bool(todo)
        shape = shape_of(step)
        seconds = self._served.device.drawn_s(shape, self._chance()) * self._served.pace.at(self.now_s)
        before_s, self.now_s = self.now_s, self.now_s + seconds
        if self.num_steps < LEARNING_STEPS or self.num_steps % LEARN_EVERY == 0:
            scheduler.cost.observe(shape, seconds)
        self._hear(scheduler.settle(step, _results(step), self.now_s), before_s)
        self._measure(seconds, shape.num_tokens)
        self.num_steps += 1
        return True

    def report(self) -> SimReport:
        """What was measured so far."""
        ttft, e2e = Seen(), Seen()
        waits: dict[str, list[float]] = {}
        num_good = num_flex = 0
        for visit in self._visits.values():
            if visit.is_flex:
                num_flex += visit.ended
            elif visit.first_s >= 0:
                wait = visit.first_s - visit.arrival_s
                ttft.add(wait)
                e2e.add(visit.last_s - visit.arrival_s)
                waits.setdefault(visit.tenant, []).append(wait)
                gap = (visit.last_s - visit.first_s) / max(1, visit.num_tokens - 1)
                num_good += wait <= self._served.ttft_goal_s and gap <= self._served.itl_goal_s
        totals, busy, whole = self._totals, self._busy_s or 1.0, self.now_s or 1.0
        computed = totals["computed"] or 1
        return SimReport(
            num_requests=self.num_arrived,
            num_refused=self.num_refused,
            num_steps=self.num_steps,
            modelled_s=self.now_s,
            busy_s=self._busy_s,
            requests_per_s=e2e.spread().count / whole,
            prompt_tokens_per_s=totals["prompt"] / whole,
            output_tokens_per_s=totals["output"] / whole,
            goodput_rps=num_good / whole,
            ttft_s=ttft.spread(),
            itl_s=self._gaps.spread(),
            e2e_s=e2e.spread(),
            mean_running=self._running_s / busy,
            peak_used_share=self._peak_used / self._served.num_blocks,
            mean_used_share=self._used_s / busy / self._served.num_blocks,
            kv_waste_share=self._wasted_s / (self._used_s * self._served.limits.block_size or 1.0),
            num_cached_tokens=totals["cached"],
            num_preempted=totals["preempted"],
            num_repeated_tokens=totals["repeated"],
            repeated_share=totals["repeated"] / computed,
            prediction_error_p90=self._scheduler.cost.error_p90,
            fairness=jain_index([sum(each) / len(each) for each in waits.values()] or [1.0]),
            num_flex_finished=num_flex,
            flex_requests_per_s=num_flex / whole,
            num_yielded_tokens=totals["yielded"],
            samples=tuple(self._samples),
        )

    def _arrive(self, at_s: float, arrival: Arrival) -> None:
        self.num_arrived += 1
        tenant = str(self.num_arrived % self._served.num_tenants)
        if self._submit(str(self.num_arrived), arrival, Visit(at_s, tenant, arrival.then)):
            return
        self.num_refused += 1
        self._num_open -= num_turns(arrival)

    def _submit(self, name: str, arrival: Arrival, visit: Visit) -> bool:
        limits = self._served.limits
        room = min(limits.max_model_len, self._served.num_blocks * limits.block_size + 1) - arrival.num_prompt
        # The seed carries the length before which the answer does not end: a greedy request does not use it.
        length = arrival.num_prompt + arrival.num_output - 1
        known = self._served.lengths_known
        most = arrival.num_output if known else room
        params = SamplingParams(temperature=0.0, seed=length, max_tokens=max(1, most), ignore_eos=known)
        prompt = _prompt(arrival, len(self._visits) + 1)
        request = Request(name, prompt, params, eos_ids=(EOS,), tenant=visit.tenant, flex=visit.is_flex)
        try:
            self._scheduler.add(request, self.now_s)
        except RequestError:
            return False
        self._visits[name] = visit
        return True

    def _end(self, visit: Visit) -> None:
        visit.ended = True
        if not visit.is_flex:
            self._num_open -= 1
        if visit.then is not None:
            self._num_todo += 1
            at_s = self.now_s + visit.then.at_s / self._served.speed
            heappush(self._todo, (at_s, self._num_todo, visit.then))

    def _hear(self, deltas: list[Delta], before_s: float) -> None:
        """Note everyone's token; those who drew in the step before too are counted together."""
        visits, now_s, num_steady = self._visits, self.now_s, 0
        for delta in deltas:
            visit = visits[delta.request_id]
            if delta.finish is not None:
                self._end(visit)
            if visit.is_flex:
                continue
            if visit.last_s == before_s:
                num_steady += 1
            elif visit.first_s < 0:
                visit.first_s = now_s
            else:
                self._gaps.add(now_s - visit.last_s)
            visit.last_s = now_s
            visit.num_tokens += 1
        if num_steady:
            self._gaps.add(now_s - before_s, num_steady)
        self._totals["output"] += len(deltas)

    def _measure(self, seconds: float, num_tokens: int) -> None:
        stats, totals = self._scheduler.stats(seconds), self._totals
        cache = stats.cache
        totals["computed"] += num_tokens
        totals["prompt"] += stats.num_prompt_tokens
        totals["cached"] += stats.num_cached_tokens
        totals["preempted"] += stats.num_preempted
        totals["repeated"] += stats.num_repeated_tokens
        totals["yielded"] += stats.num_yielded_tokens
        self._busy_s += seconds
        self._running_s += seconds * stats.num_running
        self._used_s += seconds * cache.num_used
        self._wasted_s += seconds * cache.num_wasted_slots
        self._peak_used = max(self._peak_used, cache.num_used)
        if not self._samples or self.now_s >= self._samples[-1].at_s + self._sample_every_s:
            used, cached = cache.num_used / cache.num_blocks, cache.num_cached / cache.num_blocks
            sample = Sample(self.now_s, stats.num_running, stats.num_waiting, used, cached, cache.waste_share)
            self._samples.append(sample)


def _scheduler(served: Served, prefix: PrefixIndex | None) -> Schedules:
    pool = BlockPool(served.num_blocks)
    if served.policy == VLLM:
        return VllmScheduler(served.limits, pool, prefix)
    return Scheduler(served.limits, pool, prefix, served.policy, served.itl_target)


def _results(step: Step) -> StepResult:
    draws = [work.draw for work in step.works]
    results = [
        NOT_DRAWN if draw is None else (DRAWN if len(draw.history) < (draw.params.seed or 0) else ENDED)
        for draw in draws
    ]
    return StepResult(tuple(results))


def _prompt(arrival: Arrival, number: int) -> tuple[int, ...]:
    """Tokens that share what the trace says is shared, and nothing else."""
    if not arrival.hashes:
        return (UNIQUE + number, *range(arrival.num_prompt - 1))
    blocks = (range(one * HASHED_TOKENS, (one + 1) * HASHED_TOKENS) for one in arrival.hashes)
    tokens = tuple(chain.from_iterable(blocks))[: arrival.num_prompt]
    return tokens + tuple(range(EOS - arrival.num_prompt + len(tokens), EOS))
