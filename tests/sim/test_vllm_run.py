"""Another engine's rules against that engine. Knows: its recorded steps. Does not know: how to run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_simulation import run

from quire.cache.blocks import BlockPool
from quire.cache.prefix import PrefixIndex
from quire.request import Request, SamplingParams
from quire.scheduling.limits import SchedulerLimits
from quire.sim.peers.vllm import VllmScheduler
from quire.sim.trace import Arrival
from quire.step import StepResult, WorkResult

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-22-zen4-2-cores-vllm-preemptions.json"
ROWS = {row["setting"]["name"]: row for row in json.loads(RECORDED.read_text())["rows"]}
Row = dict[str, Any]


def limits_of(asked: Row) -> SchedulerLimits:
    return SchedulerLimits(
        asked["max_num_seqs"], asked["max_num_batched_tokens"], asked["max_model_len"], asked["block_size"]
    )


def steps_of(asked: Row) -> list[list[int]]:
    """Rows, tokens and who was put back, of each step that the rules make."""
    prefix = PrefixIndex(asked["block_size"]) if asked["prefix_cache"] else None
    scheduler = VllmScheduler(limits_of(asked), BlockPool(asked["num_blocks"]), prefix)
    for number, (prompt, output) in enumerate(zip(asked["num_prompt"], asked["num_output"], strict=True)):
        tokens = tuple(range(number << 20, (number << 20) + prompt))
        scheduler.add(Request(str(number), tokens, SamplingParams(seed=1, max_tokens=output, ignore_eos=True)))
    steps = []
    while (step := scheduler.schedule(0.0)) is not None:
        results = [WorkResult((7,)) if work.draw else WorkResult() for work in step.works]
        scheduler.settle(step, StepResult(tuple(results)), 0.0)
        steps.append([len(step.works), step.num_tokens, scheduler.stats().num_preempted])
    return steps


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_step_of_a_real_run_is_the_rules_step(row: Row) -> None:
    theirs = row["vllm"]
    assert theirs["whole"], "every answer was as long as asked for"
    assert theirs["num_preempted"] == sum(step[2] for step in theirs["steps"]) > 0
    assert steps_of(row["setting"]) == theirs["steps"]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_replay_puts_back_as_many(row: Row) -> None:
    asked = row["setting"]
    arrivals = [Arrival(0.0, *pair) for pair in zip(asked["num_prompt"], asked["num_output"], strict=True)]
    report = run(
        arrivals, limits=limits_of(asked), num_blocks=asked["num_blocks"], policy="vllm",
        prefix_cache=asked["prefix_cache"], lengths_known=True,
    )  # fmt: skip
    assert (report.num_preempted, report.num_steps) == (row["vllm"]["num_preempted"], len(row["vllm"]["steps"]))


def test_the_runs_tell_the_rules_apart() -> None:
    """Prompts longer than a step, more requests than rows, and with a prefix cache: not the same run again."""
    assert ROWS["chunks"]["setting"]["max_num_batched_tokens"] < min(ROWS["chunks"]["setting"]["num_prompt"])
    assert len(ROWS["rows"]["setting"]["num_prompt"]) > ROWS["rows"]["setting"]["max_num_seqs"]
    assert ROWS["cached"]["setting"]["prefix_cache"]
