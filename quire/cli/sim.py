"""`quire sim`: a trace through the real scheduler over a modelled device, and what people would have waited for.

Knows: the command's options, and how a report is shown. Does not know: how it is simulated (`sim/replay.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quire.sim.replay import Served, SimReport, Simulation
    from quire.sim.trace import Arrival

STEPS_PER_WORD = 2000
COMPARED = (
    ("output_tokens_per_s", ""),
    ("goodput_rps", ""),
    ("ttft_s", "p50"),
    ("ttft_s", "p99"),
    ("itl_s", "p50"),
    ("itl_s", "p99"),
    ("mean_used_share", ""),
    ("kv_waste_share", ""),
    ("repeated_share", ""),
    ("fairness", ""),
    ("flex_requests_per_s", ""),
)
LAW = "fixed=0.02,token=60e-6,context_token=40e-9"


TraceFile = Annotated[
    Path, typer.Argument(help="Arrivals and lengths: Azure or BurstGPT .csv, Mooncake or agents' .jsonl.")
]
Requests = Annotated[int | None, typer.Option("--requests", help="Only the first so many. Default: all.")]
Speed = Annotated[float, typer.Option("--speed", help="Arrivals so many times as fast as recorded.")]
Law = Annotated[
    str,
    typer.Option(
        "--law",
        help="The modelled device: seconds of a step as fixed=, token=, extra_token= (each beyond knee=), draw=, "
        "context_token=, pair=; what is not named is 0. Or a .json file of `quire bench sim-check --law`: a "
        "machine that was measured.",
    ),
]
NumBlocks = Annotated[int, typer.Option("--num-blocks", help="Blocks of the modelled KV cache.")]
BlockSize = Annotated[int, typer.Option("--block-size", help="Tokens per block.")]
MaxNumSeqs = Annotated[int, typer.Option("--max-num-seqs", help="Most sequences in one step.")]
MaxNumBatchedTokens = Annotated[int, typer.Option("--max-num-batched-tokens", help="Most tokens in one step.")]
MaxModelLen = Annotated[
    int | None, typer.Option("--max-model-len", help="Longest sequence. Default: the trace's longest.")
]
SchedulingPolicy = Annotated[
    str, typer.Option("--scheduling-policy", help="fcfs, fair or priority; or vllm, that engine's rules.")
]
ItlTarget = Annotated[
    float | None, typer.Option("--itl-target", help="As for `quire serve`, in seconds; 0 for no bound.")
]
Tenants = Annotated[int, typer.Option("--tenants", help="Tenants to whom requests are dealt in turn.")]
TtftGoal = Annotated[float, typer.Option("--ttft-goal", help="Goodput: longest wait for a first token.")]
ItlGoal = Annotated[float, typer.Option("--itl-goal", help="Goodput: longest mean time between tokens.")]
Flex = Annotated[
    int,
    typer.Option("--flex", help="So many requests more of the trace's lengths, in the flex lane from the start."),
]
Swept = Annotated[
    list[str] | None,
    typer.Option("--sweep", help="An option's values, one run each: num-blocks=2000,4000. More: all combinations."),
]
Picture = Annotated[Path | None, typer.Option("--plot", help="Draw all runs into this .png or .svg file.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout (a list of them for a sweep) instead of a table.")
]


def sim(
    trace: TraceFile,
    requests: Requests = None,
    speed: Speed = 1.0,
    law: Law = LAW,
    num_blocks: NumBlocks = 8192,
    block_size: BlockSize = 16,
    max_num_seqs: MaxNumSeqs = 256,
    max_num_batched_tokens: MaxNumBatchedTokens = 2048,
    max_model_len: MaxModelLen = None,
    scheduling_policy: SchedulingPolicy = "fair",
    itl_target: ItlTarget = None,
    tenants: Tenants = 1,
    ttft_goal: TtftGoal = 2.0,
    itl_goal: ItlGoal = 0.2,
    flex: Flex = 0,
    sweep: Swept = None,
    plot: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Replay a trace through the real scheduler over a modelled device: latency, memory, waste, fairness."""
    asked: dict[str, Any] = {
        "law": law,
        "num_blocks": num_blocks,
        "block_size": block_size,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
        "policy": scheduling_policy,
        "itl_target": itl_target,
        "speed": speed,
        "num_tenants": tenants,
        "ttft_goal_s": ttft_goal,
        "itl_goal_s": itl_goal,
        "num_flex": flex,
    }
    _replay(trace, requests, asked, sweep or [], plot, as_json)


def _replay(
    trace: Path, requests: int | None, asked: dict[str, Any], sweep: list[str], plot: Path | None, as_json: bool
) -> None:
    from quire.sim.asked import served_as
    from quire.sim.plot import check_plot
    from quire.sim.plot import plot as draw
    from quire.sim.sweep import combinations
    from quire.sim.trace import longest, read_trace

    if plot is not None:
        check_plot(plot)
    arrivals = read_trace(trace, requests)
    asked["max_model_len"] = asked["max_model_len"] or longest(arrivals)
    runs = [(changed, served_as(**{**asked, **changed})) for changed in combinations(sweep)]
    reports = {}
    found = []
    for changed, served in runs:
        report, told = _one(trace.name, arrivals, served)
        reports[", ".join(f"{name}={value}" for name, value in changed.items()) or trace.name] = report
        found.append({**told, **changed})
    if plot is not None:
        draw(plot, reports)
    _tell(found, list(reports.values()), list(runs[0][0]), as_json)


def _one(trace: str, arrivals: Sequence[Arrival], served: Served) -> tuple[SimReport, dict[str, Any]]:
    from quire.sim.replay import Simulation

    run = Simulation(arrivals, served)
    report, seconds = _run(run, run.num_requests)
    found = {"trace": trace, **_settings(served), **_figures(report), "simulated_s": round(seconds, 3)}
    return report, {**found, "simulated_requests_per_s": round(report.num_requests / seconds, 1)}


def _tell(found: list[dict[str, Any]], reports: list[SimReport], swept: list[str], as_json: bool) -> None:
    if as_json:
        objects = [
            {**each, "samples": [asdict(sample) for sample in report.samples]}
            for each, report in zip(found, reports, strict=True)
        ]
        typer.echo(json.dumps(objects if swept else objects[0]))
    elif swept:
        typer.echo("\n".join(table(found, swept)))
    else:
        typer.echo("\n".join(lines(found[0])))


def table(found: list[dict[str, Any]], swept: list[str]) -> list[str]:
    """A line a run: what was varied, and the figures that are compared."""
    heads = [*swept, *(f"{name} {part}".rstrip() for name, part in COMPARED)]
    rows = [
        [
            *(str(each[name]) for name in swept),
            *(f"{each[name][part] if part else each[name]:.4g}" for name, part in COMPARED),
        ]
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]


def lines(found: dict[str, Any]) -> list[str]:
    """A line a figure; times as mean, p50, p90, p99, max."""
    shown = []
    for name, value in found.items():
        if isinstance(value, dict):
            value = "  ".join(f"{key} {inner:g}" for key, inner in value.items() if key != "count")
        shown.append(f"{name:<26} {value}")
    return shown


def _run(run: Simulation, total: int) -> tuple[SimReport, float]:
    begin = time.perf_counter()
    while run.advance():
        if run.num_steps % STEPS_PER_WORD == 0:
            typer.echo(f"{run.num_arrived:,} of {total:,} requests", err=True)
    return run.report(), max(1e-9, time.perf_counter() - begin)


def _figures(report: SimReport) -> dict[str, Any]:
    figures = asdict(replace(report, samples=()))
    del figures["samples"]
    return {name: _rounded(value) for name, value in figures.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _settings(served: Served) -> dict[str, Any]:
    return {
        "scheduling_policy": served.policy,
        "num_blocks": served.num_blocks,
        "max_num_seqs": served.limits.max_num_seqs,
        "max_num_batched_tokens": served.limits.max_num_batched_tokens,
        "speed": served.speed,
    }
