"""Knows: how a load is served for real and simulated, and how the law between them is learnt. Does not know: the table.

The engine runs in this process, in the order of its own loop: take in who is due, schedule, run, settle, learn. What
carries messages to it and text from it is left out; the simulator knows nothing of that either.

The law comes from steps that were timed while other requests came as often: what a step costs depends a little on what
the machine did before it. A machine that others share is another one after a minute, so a load is served in turns, with
steps timed before each of them and after the last; each turn begins with nobody here.

    |timed| turn |timed| turn |timed| turn |timed| turn |timed|

Its capacity is computed from steps of so many users, each asking again when answered. No figure of a real run goes into
the simulation that it is held against; beside it stands a second one, to which the machine's pace over that run's time
was told: what is left of the error then is the simulator's and not the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import ceil, inf
from pathlib import Path
from random import Random
from typing import Any

from quire.cli.bench.sim_check_report import Outcome, load_object
from quire.cli.bench.workload import poisson
from quire.cli.prepare import Prepared, describe, prepare
from quire.engine.build import build_engine
from quire.engine.engine import Engine
from quire.engine.warm_up import warm_up
from quire.errors import InternalError, InvalidSetting
from quire.plan import Plan
from quire.request import Request, SamplingParams
from quire.settings import EngineSettings
from quire.sim.asked import served_as_timed
from quire.sim.device import ModelledDevice, Pace
from quire.sim.figures import Seen
from quire.sim.law import Timed, law_object
from quire.sim.replay import Served, Simulation
from quire.sim.trace import Arrival, read_trace

Tell = Callable[[str], None]
CROWDS = (1, 2, 4, 8, 16, 32, 64)  # users at once while steps are timed
ASKED_EACH = 1.5  # requests of each of them
PACE_EVERY_S = 5.0
APART = 8  # times its seconds lie between two turns on the clock that they share, so that none reaches into the next
PROBED = 200  # requests that capacity is computed from


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options as they were typed."""

    model: str | None
    revision: str | None
    trace: Path
    shrink: float = 1.0
    loads: str = "0.4,0.75,1.5"
    seconds: float = 60.0
    calibrate_seconds: float = 20.0
    seed: int = 1
    turns: int = 4

    def shares(self) -> list[float]:
        """The loads, or the `InvalidSetting` that names what cannot be meant."""
        numbers = {"shrink": self.shrink, "seconds": self.seconds, "calibrate-seconds": self.calibrate_seconds}
        for name, value in numbers.items():
            if not 0 < value < inf:
                raise InvalidSetting(f"--{name} is out of range", got=value, allowed="a number above 0")
        if self.turns < 1:
            raise InvalidSetting("--turns is out of range", got=self.turns, allowed="1 or more")
        try:
            shares = [float(part) for part in self.loads.split(",")]
        except ValueError:
            shares = [0.0]
        if not all(0 < share < inf for share in shares):
            raise InvalidSetting("--loads cannot be read", got=self.loads, allowed="numbers above 0, such as 0.4,0.75")
        return shares


def run(asked: Asked, engine: EngineSettings, tell: Tell) -> tuple[dict[str, Any], ModelledDevice]:
    """Time steps, then serve and simulate every load; the report, and the law. Raises `QuireError`."""
    shares = asked.shares()
    rows = [_shrunk(row, asked.shrink) for row in read_trace(asked.trace)]
    prepared = prepare(asked.model, asked.revision, engine)
    for line in describe(prepared):
        tell(line)
    plan = prepared.plan
    rows = [row for row in rows if row.num_prompt + row.num_output <= plan.max_model_len]
    if not rows:
        raise InvalidSetting("every request is longer than the context", allowed=f"{plan.max_model_len} tokens")
    Random(asked.seed).shuffle(rows)
    built = build_engine(plan, prepared.folder)
    try:
        warm_up(built.engine, plan, time.perf_counter)
        bench = Bench(built.engine, prepared, asked.seed)
        crowds = bench.time_steps(rows, asked.calibrate_seconds)
        rate = capacity(rows[:PROBED], served_of(plan, crowds))
        tell(f"{len(crowds)} steps timed; {rate:.4g} requests a second at most")
        loads: list[dict[str, Any]] = []
        for share in shares:
            found, served = _one_load(bench, asked, rows, share * rate, plan)
            loads.append({"load": share, **found})
            tell(f"load {share:g}: {loads[-1]['real']['output_tokens_per_s']:.4g} output tokens a second")
    finally:
        built.device.close()
    return {
        "work": _about(asked, prepared, built.isa, rate),
        "loads": loads,
        "law": law_object(served.device),
    }, served.device


def _one_load(
    bench: Bench, asked: Asked, rows: Sequence[Arrival], rate: float, plan: Plan
) -> tuple[dict[str, Any], Served]:
    """Serve and simulate `rate` requests a second in turns; what is told, and how it was simulated."""
    turn_s = asked.seconds / asked.turns
    apart_s = PACE_EVERY_S * ceil(APART * turn_s / PACE_EVERY_S)
    turns = in_turns(bench.arrivals(rows, rate, asked.seconds), turn_s, apart_s)
    arrivals = [row for turn in turns for row in turn]
    others = rows[len(arrivals) :] or rows
    timed, real, place = Timed(), Real(), 0
    for number in range(len(turns) + 1):
        some = bench.arrivals([*others[place:], *others], rate, 2 * asked.calibrate_seconds / (len(turns) + 1))
        place = (place + len(some)) % len(others)
        timed += bench.serve(some).timed
        if number < len(turns):
            bench.serve(turns[number], real=real, from_s=number * apart_s)
    served = served_of(plan, timed)
    return _compared(rate, arrivals, real, served, apart_s), served


def in_turns(arrivals: Sequence[Arrival], turn_s: float, apart_s: float) -> list[list[Arrival]]:
    """Those of each `turn_s`, on one clock on which turns begin `apart_s` after each other; empty ones are left out."""
    turns: dict[int, list[Arrival]] = {}
    for row in arrivals:
        turns.setdefault(int(row.at_s / turn_s), []).append(row)
    return [
        [replace(row, at_s=row.at_s - old * turn_s + new * apart_s) for row in turn]
        for new, (old, turn) in enumerate(sorted(turns.items()))
    ]


def capacity(rows: Sequence[Arrival], served: Served) -> float:
    """Requests a second when all have come at once."""
    outcome = _simulated([replace(row, at_s=0.0) for row in rows], served, inf)
    return outcome.num_requests / outcome.seconds


def served_of(plan: Plan, timed: Timed) -> Served:
    """The engine of `plan` on a device that keeps the law of these steps, from which its scheduler has learnt."""
    return served_as_timed(
        timed,
        num_blocks=plan.num_blocks,
        block_size=plan.block_size,
        max_num_seqs=plan.max_num_seqs,
        max_num_batched_tokens=plan.max_num_batched_tokens,
        max_model_len=plan.max_model_len,
        policy=plan.scheduling_policy,
        itl_floor_s=plan.itl_floor_s,
        itl_factor=plan.itl_factor,
        prefix_cache=plan.prefix_cache,
    )


@dataclass(slots=True)
class Visit:
    """When a request's tokens came; in seconds, due `at_s`."""

    at_s: float
    first_s: float = -1.0
    last_s: float = -1.0
    num_tokens: int = 0


@dataclass(slots=True)
class Real:
    """One load under way on an engine, for `served_s` seconds so far."""

    visits: dict[str, Visit] = field(default_factory=dict)
    gaps: Seen = field(default_factory=Seen)
    timed: Timed = field(default_factory=list)
    begun_s: list[float] = field(default_factory=list)
    running_s: float = 0.0
    num_here: int = 0
    served_s: float = 0.0

    def outcome(self) -> Outcome:
        """What was measured."""
        ttft, e2e = Seen(), Seen()
        for visit in self.visits.values():
            ttft.add(visit.first_s - visit.at_s)
            e2e.add(visit.last_s - visit.at_s)
        return Outcome(
            num_requests=len(self.visits),
            num_tokens=sum([visit.num_tokens for visit in self.visits.values()]),
            seconds=self.served_s,
            num_steps=len(self.timed),
            busy_s=sum([seconds for _, seconds in self.timed]),
            running_s=self.running_s,
            ttft_s=ttft.spread(),
            itl_s=self.gaps.spread(),
            e2e_s=e2e.spread(),
        )


class Bench:
    """An engine, and what is measured of it."""

    def __init__(self, engine: Engine, prepared: Prepared, seed: int) -> None:
        self._engine = engine
        self._vocab_size = prepared.spec.vocab_size
        self._rng = Random(seed)

    def time_steps(self, rows: Sequence[Arrival], seconds: float) -> Timed:
        """Steps of crowds of growing size, until so many seconds are over; the rows from behind, which no load has."""
        begin, timed, place = time.perf_counter(), Timed(), len(rows)
        while True:
            for size in CROWDS:
                count = round(ASKED_EACH * size)
                crowd = [replace(rows[(place - number) % len(rows)], at_s=0.0) for number in range(1, count + 1)]
                place -= count
                timed += self.serve(crowd, size).timed
                if time.perf_counter() - begin > seconds:
                    return timed

    def arrivals(self, rows: Sequence[Arrival], rate: float, seconds: float) -> list[Arrival]:
        """Rows that come at random, `rate` a second, for so many seconds."""
        count = max(1, min(len(rows), round(rate * seconds)))
        times_s = list(islice(poisson(self._rng, rate), count))
        return [replace(row, at_s=at_s - times_s[0]) for row, at_s in zip(rows, times_s, strict=False)]

    def serve(
        self, arrivals: Sequence[Arrival], most_here: float = inf, real: Real | None = None, from_s: float = 0.0
    ) -> Real:
        """Serve them when they are due, at most so many at a time, with an empty prefix cache; as one more turn of
        `real`, if given, whose clock says `from_s` at its beginning."""
        engine, clock = self._engine, time.perf_counter
        real = Real() if real is None else real
        engine.scheduler.reset_prefix_cache()
        todo = [(row.at_s, self._request(number, row)) for number, row in enumerate(arrivals, len(real.visits))]
        todo.reverse()
        start = clock() - from_s
        while todo or engine.has_work:
            begin = clock()
            while todo and todo[-1][0] <= begin - start and real.num_here < most_here:
                at_s, request = todo.pop()
                real.visits[request.id] = Visit(at_s)
                real.num_here += 1
                engine.add(request, begin)
            self._turn(real, start, begin)
            if todo and not engine.has_work:
                time.sleep(max(0.0, start + todo[-1][0] - clock()))
        real.served_s += clock() - start - from_s
        return real

    def _turn(self, real: Real, start: float, begin: float) -> None:
        """One step, timed from `begin` until it is told."""
        engine, clock = self._engine, time.perf_counter
        step_begin = clock()
        deltas = engine.advance(step_begin)
        shape = engine.last_shape
        if deltas is None or shape is None:
            return
        stats = engine.timed(deltas, clock() - step_begin).stats
        now_s = clock() - start
        for delta in deltas:
            if delta.error is not None:
                raise InternalError("a request of a comparison went wrong", got=delta.error)
            visit = real.visits[delta.request_id]
            if visit.num_tokens:
                real.gaps.add(now_s - visit.last_s)
            else:
                visit.first_s = now_s
            visit.last_s = now_s
            visit.num_tokens += len(delta.tokens)
            real.num_here -= delta.finish is not None
        seconds = clock() - begin
        real.running_s += seconds * stats.num_running
        real.timed.append((shape, seconds))
        real.begun_s.append(begin - start)

    def _request(self, number: int, row: Arrival) -> Request:
        prompt = tuple(self._rng.choices(range(self._vocab_size), k=row.num_prompt))
        params = SamplingParams(temperature=0.0, seed=0, max_tokens=row.num_output, ignore_eos=True)
        return Request(str(number), prompt, params)


def _compared(rate: float, arrivals: Sequence[Arrival], real: Real, served: Served, apart_s: float) -> dict[str, Any]:
    pace = pace_of(real, served.device)
    told = [pace.at(PACE_EVERY_S * number) for number in sorted({int(at_s / PACE_EVERY_S) for at_s in real.begun_s})]
    paced = _simulated(arrivals, replace(served, pace=pace), apart_s)
    return load_object(rate, told, (real.outcome(), _simulated(arrivals, served, apart_s), paced))


def pace_of(real: Real, device: ModelledDevice) -> Pace:
    """What steps took of what the law says of the very same steps, over the time of a run."""
    took: dict[int, list[float]] = {}
    for begun_s, (shape, seconds) in zip(real.begun_s, real.timed, strict=True):
        both = took.setdefault(int(begun_s / PACE_EVERY_S), [0.0, 0.0])
        both[0] += seconds
        both[1] += device.mean_s(shape)
    factors: list[float] = []
    for number in range(max(took) + 1):
        seconds, expected_s = took.get(number, (0.0, 0.0))
        factors.append(seconds / expected_s if expected_s else factors[-1])
    return Pace(PACE_EVERY_S, tuple(factors))


def _simulated(arrivals: Sequence[Arrival], served: Served, apart_s: float) -> Outcome:
    """The same, simulated; what lies between turns is not counted."""
    simulation = Simulation(arrivals, served)
    seconds, before_s = 0.0, 0.0
    while simulation.advance():
        if simulation.now_s // apart_s > before_s // apart_s:
            seconds += before_s % apart_s
        before_s = simulation.now_s
    seconds += before_s % apart_s
    report = simulation.report()
    return Outcome(
        num_requests=report.e2e_s.count,
        num_tokens=sum([row.num_output for row in arrivals]),
        seconds=seconds,
        num_steps=report.num_steps,
        busy_s=report.busy_s,
        running_s=report.mean_running * report.busy_s,
        ttft_s=report.ttft_s,
        itl_s=report.itl_s,
        e2e_s=report.e2e_s,
    )


def _shrunk(row: Arrival, divisor: float) -> Arrival:
    return Arrival(0.0, max(1, round(row.num_prompt / divisor)), max(1, round(row.num_output / divisor)))


def _about(asked: Asked, prepared: Prepared, isa: str, rate: float) -> dict[str, Any]:
    plan = prepared.plan
    return {
        "model": prepared.name,
        "weights": str(plan.precision),
        "kv_dtype": plan.kv_dtype,
        "isa": isa,
        "threads": plan.threads,
        "trace": asked.trace.name,
        "lengths_divided_by": asked.shrink,
        "capacity_requests_per_s": rate,
        "seconds": asked.seconds,
        "turns": asked.turns,
        "calibrate_seconds": asked.calibrate_seconds,
        "max_num_seqs": plan.max_num_seqs,
        "max_num_batched_tokens": plan.max_num_batched_tokens,
        "kv_tokens": plan.kv_tokens,
        "seed": asked.seed,
    }
