"""What the scheduler itself costs a step at 256 running sequences: microseconds of this thread, medians.

python benchmarks/scheduler_step.py [--policies fair,fcfs,priority] [--steps 300] [--json FILE]

bare       256 works and 256 deltas made in a loop, and nothing decided
still      all draw, nobody comes or goes
queue      the same, and 500 wait for whom there is no row
tenants    the same, of 16 tenants
flow       answers of 64 tokens end and others follow, 16 tenants: some four come and go in a step
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path
from statistics import median

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.request import Request, SamplingParams
from quire.scheduling.cost import StepShape
from quire.scheduling.limits import SchedulerLimits
from quire.scheduling.pace import ItlTarget
from quire.scheduling.scheduler import Scheduler
from quire.step import Delta, StepResult, Work, WorkResult

ROWS, PROMPT, WARM = 256, 100, 40
MOST_US = 300.0  # of a step, median
CASES = {"still": (0, 1, False), "queue": (500, 1, False), "tenants": (500, 16, False), "flow": (500, 16, True)}
DRAWN, NOTHING = WorkResult((7,)), WorkResult()


def scheduler(policy: str) -> Scheduler:
    limits = SchedulerLimits(ROWS, 2048, 4096, 16)
    pool = BlockPool(ROWS * 60)
    found = Scheduler(limits, pool, PrefixIndex(16), policy, ItlTarget(0.1, 5.0))
    found.cost.calibrate([(StepShape(n, n, 100 * n), 0.01 + 1e-4 * n) for n in (1, 64, 256, 1024)])
    return found


def request(number: int, tenants: int, length: int) -> Request:
    params = SamplingParams(seed=0, max_tokens=length, ignore_eos=True, temperature=0.0)
    return Request(str(number), tuple(range(number, number + PROMPT)), params, tenant=f"t{number % tenants}")


def measure(policy: str, waiting: int, tenants: int, flow: bool, num_steps: int) -> tuple[float, float, float]:
    """Medians of schedule, of settle, and of both together."""
    target = scheduler(policy)
    number = 0

    def more(count: int, now: float) -> None:
        nonlocal number
        for _ in range(count):
            length = 600 if not flow else 64 if number >= ROWS else 1 + number % 64
            target.add(request(number, tenants, length), now)
            number += 1

    more(ROWS + waiting, 0.0)
    times: list[tuple[float, float]] = []
    now = 0.0
    while len(times) < num_steps + WARM:
        if flow and target.num_waiting < waiting:
            more(waiting - target.num_waiting, now)
        begin = time.thread_time_ns()
        step = target.schedule(now)
        middle = time.thread_time_ns()
        if step is None:
            raise SystemExit("nobody is left")
        result = StepResult(tuple([DRAWN if work.draw else NOTHING for work in step.works]))
        between = time.thread_time_ns()
        target.settle(step, result, now)
        end = time.thread_time_ns()
        now += 0.05
        if flow or target.num_running >= ROWS:
            times.append(((middle - begin) / 1e3, (end - between) / 1e3))
    times = times[WARM:]
    return median(a for a, _ in times), median(b for _, b in times), median(a + b for a, b in times)


def bare() -> float:
    best = []
    for _ in range(200):
        begin = time.thread_time_ns()
        works = [Work(number, (1,), 5, (), None) for number in range(ROWS)]
        told = [Delta("a", 0, (7,), (), (), 0) for _ in works]
        best.append((time.thread_time_ns() - begin) / 1e3)
        assert len(told) == ROWS
    return median(best)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--policies", default="fair,fcfs,priority")
    parser.add_argument("--steps", type=int, default=300, help="of each case that are counted")
    parser.add_argument("--json", type=Path, help="where to write the medians in microseconds")
    options = parser.parse_args()
    gc.freeze()
    found = {"bare": bare()}
    print(f"bare             {found['bare']:.0f} us")
    for policy in options.policies.split(","):
        for name, case in CASES.items():
            schedule, settle, both = measure(policy, *case, options.steps)
            found[f"{policy} {name}"] = both
            said = "met" if both <= MOST_US else "missed"
            parts = f"schedule {schedule:.0f}, settle {settle:.0f}"
            print(f"{policy:<8} {name:<7} {both:.0f} us ({parts}): {said}, at most {MOST_US:.0f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"most_us": MOST_US, "median_us": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
