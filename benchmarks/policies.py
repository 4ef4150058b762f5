"""Scheduling policies beside each other on real execution, in turns of a second: the host's mood is the same for all.

    python benchmarks/policies.py --policies fair,fcfs --seconds 30 [--model MODEL] [--flood-rate 100]

One process, one engine a policy, each with a clock that stands still while the others are served. Tenant `flood` asks
at random times, tenant `quiet` once a second; both engines see the same arrivals. Prints what steps were made of.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from itertools import cycle
from random import Random
from typing import Any

from quire.cli.bench.figures import spread
from quire.cli.prepare import Prepared, prepare
from quire.engine.build import build_engine
from quire.engine.engine import Engine
from quire.engine.warm_up import warm_up
from quire.errors import Overloaded
from quire.events import StepStats
from quire.plan import Contract
from quire.request import Request, SamplingParams
from quire.settings import EngineSettings

WARM_S = 3.0  # not counted
QUIET_FROM_S = 2.0
CONTRACT = Contract(60.0, 2**20)  # as `quire serve` has it


@dataclass
class Side:
    """One policy's engine, its clock and what it did. `num_prompt` and `num_output` tokens a request."""

    name: str
    engine: Engine
    flood_rate: float
    num_prompt: int
    num_output: int
    now_s: float = 0.0
    num_asked: int = 0
    num_refused: int = 0
    asking_s: float = 0.0
    due_s: dict[str, float] = field(default_factory=dict)
    ttft_s: list[float] = field(default_factory=list)
    steps: list[tuple[float, int, StepStats]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = Random(1)
        self.next_flood_s, self.next_quiet_s = 0.0 if self.flood_rate else float("inf"), QUIET_FROM_S

    def serve(self, seconds: float) -> None:
        """Go on for so long."""
        base, end_s = time.monotonic() - self.now_s, self.now_s + seconds
        while (now := time.monotonic() - base) < end_s:
            while self.next_flood_s <= now:
                self.ask("flood", self.next_flood_s, base)
                self.next_flood_s += self.rng.expovariate(self.flood_rate)
            while self.next_quiet_s <= now:
                self.ask("quiet", self.next_quiet_s, base)
                self.next_quiet_s += 1.0
            self.engine.expire(now)
            self.step(now, base)
        self.now_s = time.monotonic() - base

    def ask(self, tenant: str, due_s: float, base: float) -> None:
        self.num_asked += 1
        prompt = tuple(Random(self.num_asked).choices(range(5, 4000), k=self.num_prompt))
        params = SamplingParams(temperature=0.0, seed=1, max_tokens=self.num_output, ignore_eos=True)
        begin = time.monotonic()
        try:
            self.engine.add(Request(f"{tenant}{self.num_asked}", prompt, params, tenant=tenant), begin - base)
            if tenant == "quiet":
                self.due_s[f"{tenant}{self.num_asked}"] = due_s
        except Overloaded:
            self.num_refused += 1
        self.asking_s += time.monotonic() - begin

    def step(self, now: float, base: float) -> None:
        deltas = self.engine.advance(now)
        if deltas is None:
            time.sleep(0.0005)
            return
        end = time.monotonic() - base
        report = self.engine.timed(deltas, end - now)
        num_tokens = report.stats.num_prompt_tokens + report.stats.num_output_tokens
        self.steps.append((now, num_tokens, report.stats))
        self.ttft_s += [end - self.due_s.pop(each.request_id) for each in deltas if each.request_id in self.due_s]

    def figures(self) -> dict[str, Any]:
        stats = [each for at_s, _, each in self.steps if at_s >= WARM_S]
        seconds = self.now_s - WARM_S

        def rate(name: str) -> float:
            return round(sum(getattr(each, name) for each in stats) / seconds, 2)

        names = ("num_finished", "num_prompt_tokens", "num_output_tokens", "num_cached_tokens", "num_preempted")
        return {
            "quiet tenant, first token, s": spread(self.ttft_s),
            "step, s": spread(each.seconds for each in stats),
            "steps a second": round(len(stats) / seconds, 2),
            "draws a step": round(sum(each.num_output_tokens for each in stats) / max(1, len(stats)), 2),
            **{f"{name} a second": rate(name) for name in (*names, "num_repeated_tokens")},
            "asked, refused": f"{self.num_asked}, {self.num_refused}",
            "taking one in, us": round(1e6 * self.asking_s / max(1, self.num_asked)),
        }


def side(name: str, prepared: Prepared, options: argparse.Namespace) -> Side:
    """An engine under policy `name`; `NAME-alone` has no flood."""
    policy, _, alone = name.partition("-")
    engine = build_engine(replace(prepared.plan, scheduling_policy=policy), prepared.folder, contract=CONTRACT).engine
    warm_up(engine, prepared.plan, time.monotonic)
    return Side(name, engine, 0.0 if alone else options.flood_rate, options.input_tokens, options.output_tokens)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--policies", default="fair,fcfs,fair-alone")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turn", type=float, default=1.0)
    parser.add_argument("--flood-rate", type=float, default=100.0)
    parser.add_argument("--input-tokens", type=int, default=256)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    prepared = prepare(options.model, None, EngineSettings(threads=options.threads))
    sides = [side(name, prepared, options) for name in options.policies.split(",")]
    for order in cycle([sides, sides[::-1]]):
        for each in order:
            each.serve(options.turn)
        if sides[0].now_s >= options.seconds:
            break
    for each in sides:
        print(f"{each.name}\n" + "\n".join(f"  {name:<32} {figure}" for name, figure in each.figures().items()))


if __name__ == "__main__":
    main()
