"""What a comparison found, as one plain object and as a table.

Knows: runs of policies, and what each figure means. Does not know: how they were run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quire.cli.bench.figures import percentile, significant
from quire.sim.device import ModelledDevice
from quire.sim.savings.asks import Ask
from quire.sim.savings.limit import alone_s, law_text, learnt_law, shared_s
from quire.sim.savings.policies import Policy
from quire.sim.savings.serving import Serving

HEAD = (
    f"{'policy':<16}{'out tok/s':>10}{'ratio':>7}{'latency s':>10}{'p50':>9}{'p99':>9}{'ratio':>7}{'running':>9}"
    f"{'held':>8}{'reserved':>9}{'fragm.':>8}{'waste':>8}{'$/M out':>10}{'$/M all':>10}{'saved':>8}"
)


@dataclass(frozen=True, slots=True)
class Served:
    """A policy and its median run; `seconds` of all its runs."""

    policy: Policy
    serving: Serving
    seconds: Sequence[float]


def report(served: Sequence[Served], asks: Sequence[Ask], about: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain values. `about` names the machine and the work; `modelled`, if there, is the device's law.

    `limit_ratio`: what batching without end could gain over one at a time, by that law or by one learnt from all steps.
    """
    device = about.pop("modelled", None) or _learnt(served)
    rows = [figures(each, asks, about["price_per_hour"]) for each in served]
    for row in rows:
        row.update(compared(row, rows[0]))
    return {
        **about,
        "requests": len(asks),
        "prompt_tokens": sum(len(ask.prompt) for ask in asks),
        "answer_tokens": sum(ask.num_output for ask in asks),
        "policies": rows,
        "limit_ratio": significant(_limit(served, device, asks, about["max_num_batched_tokens"])),
        "law": law_text(device),
    }


def figures(served: Served, asks: Sequence[Ask], price_per_hour: float) -> dict[str, Any]:
    """One policy's figures.

    seconds: from the first request's coming to the last token; throughput is over them. latency_s: from when a request
    was due to its last token, ttft_s to its first. Dollars are those seconds at `price_per_hour`, for the tokens of
    answers alone or with those of prompts. kv: shares of the KV memory, and `waste_share` of what is taken of it.
    computed_tokens: rows that the model computed, padding and dead rows too.
    """
    serving = served.serving
    seconds, visits = serving.seconds, serving.visits.values()
    num_output = sum(ask.num_output for ask in asks)
    num_all = num_output + sum(len(ask.prompt) for ask in asks)
    dollars = price_per_hour / 3600 * seconds * 1e6
    meter, use = serving.meter, serving.meter.use
    row = {
        "seconds": seconds,
        "requests_per_s": len(asks) / seconds,
        "output_tokens_per_s": num_output / seconds,
        "latency_s": _spread([visit.last_s - visit.due_s for visit in visits]),
        "ttft_s": _spread([visit.first_s - visit.due_s for visit in visits]),
        "mean_running": meter.running_s / meter.seconds,
        "kv": {**asdict(use), "waste_share": use.waste_share},
        "dollars_per_million_output_tokens": dollars / num_output,
        "dollars_per_million_tokens": dollars / num_all,
    }
    counts = {"peak_running": meter.peak_running, "steps": serving.num_steps, "computed_tokens": serving.num_computed}
    named = {"policy": served.policy.name, "imitates": served.policy.imitates}
    return {**named, **_rounded(row), **counts, "runs_s": [significant(each) for each in served.seconds]}


def compared(row: dict[str, Any], first: dict[str, Any]) -> dict[str, float]:
    """Throughput and mean latency as ratios to the first policy's, and per cent that a token costs less."""
    throughput = row["output_tokens_per_s"] / first["output_tokens_per_s"]
    return {
        "throughput_ratio": significant(throughput),
        "latency_ratio": significant(row["latency_s"]["mean"] / first["latency_s"]["mean"]),
        "cost_lower_percent": significant(100 * (1 - 1 / throughput)),
    }


def table(found: dict[str, Any]) -> list[str]:
    """The same for people. Shares of KV memory are of all there is; waste is of what is taken."""
    lines = [HEAD]
    for row in found["policies"]:
        kv, latency = row["kv"], row["latency_s"]
        lines.append(
            f"{row['policy']:<16}{row['output_tokens_per_s']:>10.4g}{row['throughput_ratio']:>7.2f}"
            f"{latency['mean']:>10.4g}{latency['p50']:>9.4g}{latency['p99']:>9.4g}{row['latency_ratio']:>7.2f}"
            f"{row['mean_running']:>9.1f}{kv['held_share']:>8.1%}{kv['reserved_share']:>9.1%}"
            f"{kv['fragmented_share']:>8.1%}{kv['waste_share']:>8.1%}"
            f"{row['dollars_per_million_output_tokens']:>10.4g}{row['dollars_per_million_tokens']:>10.4g}"
            f"{row['cost_lower_percent']:>7.1f}%"
        )
    lines += [f"{row['policy']}: {row['imitates']}" for row in found["policies"] if row["imitates"]]
    lines.append(f"batching without end would gain {found['limit_ratio']:.2f} on this work, by {found['law']}")
    if found.get("outputs_equal"):
        lines.append("every policy drew the same tokens")
    if found["left_out"]:
        lines.append(f"{found['left_out']} requests are longer than {found['max_model_len']} tokens and were left out")
    return lines


def _limit(served: Sequence[Served], device: ModelledDevice, asks: Sequence[Ask], most: int) -> float:
    """By the time that one at a time really took, where it was run; else by what the law says of it."""
    alone = next((each.serving.meter.seconds for each in served if each.policy.name == "one"), None)
    return (alone or alone_s(device, asks, most)) / shared_s(device, asks)


def _learnt(served: Sequence[Served]) -> ModelledDevice:
    return learnt_law([each for one in served for each in one.serving.timed])


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered)
    return {"mean": mean, "p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return significant(value) if isinstance(value, float) else value
