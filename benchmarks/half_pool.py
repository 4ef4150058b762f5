"""Half the KV memory that is needed: quire beside vLLM's rules on published traces, in the simulator.

    python benchmarks/half_pool.py TRACES [--only "NAME; NAME"] [--json]

TRACES is a folder with azure/, mooncake/ and agentic/. What is needed is the most blocks in use under vLLM's rules in
a pool without end; both sides get half of it. The bound holds for whoever knows everything beforehand and caches
everything without taking room for it: the tokens that cannot be found in a cache, once, and as many steps as the sum
of the slots held at each draw fills the pool. Nothing is timed: a quiet machine is not needed.

Knows: settings and targets. Does not know: how either side decides.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verdict import Result, report

from quire.scheduling.limits import SchedulerLimits
from quire.sim.device import ModelledDevice
from quire.sim.named import DEVICES
from quire.sim.replay import MODELLED, VLLM, Served, SimReport, Simulation
from quire.sim.trace import Arrival, longest, num_turns, read_trace, turns_of

AT_ONCE = 1e9
PLENTY = 2_000_000  # blocks
MOST_WASTED, LEAST_RATIO = 0.02, 1.1
CONVERSATION = "azure/AzureLLMInferenceTrace_conv.csv"
A100 = DEVICES["a100-40gb-opt-13b"].device


@dataclass(frozen=True, slots=True)
class Setting:
    """A trace's first requests, how fast they come, and on what; with `longer` answers and shorter prompts."""

    trace: str
    num_requests: int
    speed: float = AT_ONCE
    device: ModelledDevice = MODELLED
    longer: int = 1


SETTINGS = {
    "conversation": Setting(CONVERSATION, 600),
    "conversation, recorded speed": Setting(CONVERSATION, 600, 1.0),
    "conversation, A100": Setting(CONVERSATION, 600, 1.0, A100),
    "long answers": Setting(CONVERSATION, 300, longer=4),
    "long answers, A100": Setting(CONVERSATION, 300, device=A100, longer=4),
    "code": Setting("azure/AzureLLMInferenceTrace_code.csv", 1000),
    "shared prefixes": Setting("mooncake/conversation_trace.jsonl", 600, 1.0),
    "shared prefixes, synthetic": Setting("mooncake/synthetic_trace.jsonl", 600, 1.0),
    "agents": Setting("agentic/lmcache_agentic_traces.jsonl", 3000, 1.0),
}


def arrivals_of(setting: Setting, traces: Path) -> list[Arrival]:
    """The requests of a setting."""
    arrivals = read_trace(traces / setting.trace, setting.num_requests)
    if setting.longer == 1:
        return arrivals
    factor = setting.longer
    return [
        replace(each, num_prompt=max(1, each.num_prompt // factor), num_output=factor * each.num_output)
        for each in arrivals
    ]


def replayed(arrivals: Sequence[Arrival], setting: Setting, policy: str, num_blocks: int) -> SimReport:
    """One run."""
    limits = SchedulerLimits(256, 2048, longest(arrivals))
    simulation = Simulation(arrivals, Served(limits, num_blocks, setting.device, policy, speed=setting.speed))
    while simulation.advance():
        pass
    return simulation.report()


def bound_s(arrivals: Sequence[Arrival], setting: Setting, num_computed: int, num_blocks: int) -> float:
    """Seconds that nobody undercuts who draws all these answers, `num_computed` prompt tokens read."""
    law, knee = setting.device.law, setting.device.knee_tokens
    turns = [turn for each in arrivals for turn in turns_of(each)]
    num_drawn = sum([turn.num_output for turn in turns])
    # The first token is drawn where the prompt is computed, and before each other one the whole of it is read again.
    num_held = sum([(turn.num_output - 1) * (2 * turn.num_prompt + turn.num_output) // 2 for turn in turns])
    least_steps = max(num_held / (16 * num_blocks), max(turn.num_output for turn in turns))
    num_tokens = num_computed + num_drawn - len(turns)
    steps_s = least_steps * law.fixed_s + law.extra_token_s * max(0.0, num_tokens - knee * least_steps)
    return steps_s + law.token_s * num_tokens + law.draw_s * num_drawn + law.context_token_s * num_held


def compared(name: str, setting: Setting, traces: Path) -> Result:
    """One row."""
    arrivals = arrivals_of(setting, traces)
    plenty = replayed(arrivals, setting, VLLM, PLENTY)
    need = round(plenty.peak_used_share * PLENTY)
    theirs, ours = (replayed(arrivals, setting, policy, need // 2) for policy in (VLLM, "fair"))
    least_s = bound_s(arrivals, setting, round(plenty.prompt_tokens_per_s * plenty.modelled_s), need // 2)
    return {
        "name": name,
        "num_requests": sum(map(num_turns, arrivals)),
        "need_blocks": need,
        "pool_blocks": need // 2,
        "vllm": _figures(theirs),
        "quire": _figures(ours),
        "ratio": ours.output_tokens_per_s / theirs.output_tokens_per_s,
        "bound_ratio": theirs.modelled_s / max(least_s, 1e-9),
    }


def _figures(run: SimReport) -> dict[str, Any]:
    return {
        "output_tokens_per_s": run.output_tokens_per_s,
        "seconds": run.modelled_s,
        "num_steps": run.num_steps,
        "num_preempted": run.num_preempted,
        "wasted_share": run.repeated_share,
        "num_cached_tokens": run.num_cached_tokens,
        "mean_used_share": run.mean_used_share,
        "ttft_p50_s": run.ttft_s.p50,
        "ttft_p99_s": run.ttft_s.p99,
        "e2e_p50_s": run.e2e_s.p50,
    }


def show(result: Result) -> None:
    """One line a setting."""
    for row in result["rows"]:
        theirs, ours = row["vllm"], row["quire"]
        print(
            f"{row['name']:28} {row['pool_blocks']:6} blocks  {theirs['output_tokens_per_s']:8.1f} "
            f"{ours['output_tokens_per_s']:8.1f} tokens/s  {row['ratio']:.2f}x of at most {row['bound_ratio']:.2f}x  "
            f"wasted {theirs['wasted_share']:6.2%} {ours['wasted_share']:6.2%}  "
            f"first token p50 {theirs['ttft_p50_s']:.1f} "
            f"{ours['ttft_p50_s']:.1f} s, p99 {theirs['ttft_p99_s']:.1f} {ours['ttft_p99_s']:.1f} s"
        )


def main() -> int:
    """Run the settings and tell for each of them which targets were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--only", default="", help=f"of: {', '.join(SETTINGS)} (separated by ;)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    names = [name.strip() for name in asked.only.split(";") if name.strip()] or list(SETTINGS)
    if unknown := [name for name in names if name not in SETTINGS]:
        parser.error(f"there is no setting {unknown[0]!r}; allowed: {'; '.join(SETTINGS)}")
    rows = [compared(name, SETTINGS[name], asked.traces) for name in names]
    targets = {f"{row['name']}: wasted at most 2 %": row["quire"]["wasted_share"] <= MOST_WASTED for row in rows}
    targets |= {f"{row['name']}: at least 1.1x of vLLM's rules": row["ratio"] >= LEAST_RATIO for row in rows}
    return report({"rows": rows, "targets": targets}, asked.json, show)


if __name__ == "__main__":
    sys.exit(main())
