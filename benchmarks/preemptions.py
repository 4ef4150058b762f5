"""vLLM's scheduler in a real run beside its rules in our simulator: the same requests, who is put back, step by step.

    python benchmarks/preemptions.py MODEL --python PYTHON_WITH_VLLM [--only NAME,NAME] [--json FILE]
    python benchmarks/preemptions.py --recorded FILE          # the recorded runs against today's rules, without vLLM

All requests are there before the first step, answers have fixed lengths and end by nothing else, the pool is too small:
what happens depends on rules alone, not on time. MODEL may be small, since lengths decide and not words. Met where both
sides make the same steps: as many rows and tokens, and as many put back, in each of them.

Knows: lengths, counts. Does not know: how either side decides.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.request import Request, SamplingParams
from quire.scheduling.limits import SchedulerLimits
from quire.sim.peers.vllm import VllmScheduler
from quire.sim.replay import VLLM, Served, Simulation
from quire.sim.trace import Arrival
from quire.step import StepResult, WorkResult

REAL = Path(__file__).with_name("vllm_steps.py")
Steps = list[list[int]]  # of each step: rows, tokens, put back


@dataclass(frozen=True, slots=True)
class Setting:
    """Requests by their lengths, and the limits under which both sides serve them."""

    name: str
    num_prompt: list[int]
    num_output: list[int]
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_cache: bool = False
    block_size: int = 32  # the least that vLLM's attention takes on a CPU
    max_model_len: int = 1024
    seed: int = 1


def settings() -> list[Setting]:
    """Many short ones; as many as there are rows; prompts longer than a step; the first again with a prefix cache."""
    short = _lengths(48, (16, 128), (48, 128))
    return [
        Setting("short", *short, num_blocks=120, max_num_seqs=48, max_num_batched_tokens=512),
        Setting("rows", *_lengths(24, (100, 300), (32, 100)), 60, max_num_seqs=12, max_num_batched_tokens=256),
        Setting("chunks", *_lengths(12, (300, 700), (50, 150)), 60, max_num_seqs=32, max_num_batched_tokens=128),
        Setting("cached", *short, 120, max_num_seqs=48, max_num_batched_tokens=512, prefix_cache=True),
    ]


def _lengths(count: int, prompt: tuple[int, int], output: tuple[int, int]) -> tuple[list[int], list[int]]:
    rng = Random(count)
    return [rng.randint(*prompt) for _ in range(count)], [rng.randint(*output) for _ in range(count)]


def simulated(setting: Setting) -> Steps:
    """The steps that the rules make."""
    scheduler = VllmScheduler(_limits(setting), BlockPool(setting.num_blocks), _prefix(setting))
    for number, (prompt, output) in enumerate(zip(setting.num_prompt, setting.num_output, strict=True)):
        tokens = tuple(range(number << 20, (number << 20) + prompt))
        params = SamplingParams(temperature=0.0, seed=0, max_tokens=output, ignore_eos=True)
        scheduler.add(Request(str(number), tokens, params))
    steps: Steps = []
    while (step := scheduler.schedule(0.0)) is not None:
        results = [WorkResult((0,)) if work.draw is not None else WorkResult() for work in step.works]
        scheduler.settle(step, StepResult(tuple(results)), 0.0)
        steps.append([len(step.works), step.num_tokens, scheduler.stats().num_preempted])
    return steps


def replayed(setting: Setting) -> int:
    """Who was put back when `quire sim` replays the same requests."""
    pairs = zip(setting.num_prompt, setting.num_output, strict=True)
    arrivals = [Arrival(0.0, prompt, output) for prompt, output in pairs]
    served = Served(
        _limits(setting), setting.num_blocks, policy=VLLM, prefix_cache=setting.prefix_cache, lengths_known=True
    )
    simulation = Simulation(arrivals, served)
    while simulation.advance():
        pass
    return simulation.report().num_preempted


def _limits(setting: Setting) -> SchedulerLimits:
    return SchedulerLimits(
        setting.max_num_seqs, setting.max_num_batched_tokens, setting.max_model_len, setting.block_size
    )


def _prefix(setting: Setting) -> PrefixIndex | None:
    return PrefixIndex(setting.block_size) if setting.prefix_cache else None


def real(python: str, model: str, setting: Setting) -> dict[str, Any]:
    """The same in vLLM, in its own interpreter; ends the script with what it said if it fails."""
    cores = f"0-{(os.cpu_count() or 1) - 1}"
    environment = {"VLLM_CPU_OMP_THREADS_BIND": cores} | dict(os.environ)
    done = subprocess.run(
        [python, str(REAL), model], input=json.dumps(asdict(setting)), text=True, capture_output=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"vLLM did not serve {setting.name}:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout))


def compared(setting: Setting, theirs: dict[str, Any]) -> dict[str, Any]:
    """One row: both counts, and the first step that is not the same (None: all are)."""
    ours, steps = simulated(setting), theirs["steps"]
    differs = next((at for at, pair in enumerate(zip(ours, steps, strict=False)) if pair[0] != pair[1]), None)
    if differs is None and len(ours) != len(steps):
        differs = min(len(ours), len(steps))
    return {
        "setting": asdict(setting),
        "vllm": theirs,
        "simulated": {"num_preempted": sum(step[2] for step in ours), "num_steps": len(ours)},
        "replayed_num_preempted": replayed(setting),
        "first_step_that_differs": differs,
        "met": differs is None and replayed(setting) == theirs["num_preempted"] > 0,
    }


def tell(row: dict[str, Any]) -> str:
    """One line of the table."""
    theirs, ours, differs = row["vllm"], row["simulated"], row["first_step_that_differs"]
    return (
        f"{row['setting']['name']:8} put back: vLLM {theirs['version']} {theirs['num_preempted']:4}, "
        f"simulated {ours['num_preempted']:4} (quire sim {row['replayed_num_preempted']:4}); "
        f"steps {theirs['num_steps']:4}, {ours['num_steps']:4}, "
        f"{'all the same' if differs is None else f'other from step {differs + 1} on'}"
        f"   {'met' if row['met'] else 'MISSED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder that vLLM can serve")
    parser.add_argument("--python", help="the interpreter in which vLLM is installed")
    parser.add_argument("--only", help="names of settings, with commas")
    parser.add_argument("--recorded", type=Path, help="take vLLM's side from this file")
    parser.add_argument("--json", type=Path, help="write what was found here")
    options = parser.parse_args()
    rows = []
    for setting, theirs in _pairs(options):
        rows.append(compared(setting, theirs))
        print(tell(rows[-1]), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps({"work": "steps are [rows, tokens, put back]", "rows": rows}) + "\n")
    sys.exit(0 if rows and all(row["met"] for row in rows) else 1)


def _pairs(options: argparse.Namespace) -> Iterator[tuple[Setting, dict[str, Any]]]:
    """Each setting with vLLM's side: recorded, or made now."""
    if options.recorded is not None:
        for row in json.loads(options.recorded.read_text())["rows"]:
            yield Setting(**row["setting"]), row["vllm"]
        return
    if options.model is None or options.python is None:
        raise SystemExit("nothing to compare with; allowed: MODEL with --python, or --recorded FILE")
    names = [each.name for each in settings()]
    chosen = options.only.split(",") if options.only else names
    if unknown := set(chosen) - set(names):
        raise SystemExit(f"no such setting: {', '.join(sorted(unknown))}; allowed: {', '.join(names)}")
    for setting in settings():
        if setting.name in chosen:
            yield setting, real(options.python, options.model, setting)


if __name__ == "__main__":
    main()
