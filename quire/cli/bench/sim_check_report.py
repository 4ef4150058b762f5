"""What serving and simulating the same requests gave, and how far apart it is.

Knows: the figures of both. Does not know: how they were run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quire.cli.bench.figures import significant
from quire.sim.figures import Spread

# What is compared, and how far off it may be, as shares.
ALLOWED = {
    "output_tokens_per_s": 0.10,
    "requests_per_s": 0.10,
    "ttft_p50_s": 0.15,
    "ttft_p99_s": 0.15,
    "itl_p50_s": 0.15,
    "itl_p99_s": 0.15,
}
SHOWN = (*ALLOWED, "ttft_mean_s", "itl_mean_s", "e2e_mean_s", "steps", "busy_share", "mean_running")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One load as it was served: `num_requests` that drew `num_tokens` tokens within `seconds` of the first's coming,
    in `num_steps` that took `busy_s`, and `running_s` seconds of sequences."""

    num_requests: int
    num_tokens: int
    seconds: float
    num_steps: int
    busy_s: float
    running_s: float
    ttft_s: Spread
    itl_s: Spread
    e2e_s: Spread


def figures(outcome: Outcome) -> dict[str, float]:
    """What is shown of it."""
    whole, busy = outcome.seconds or 1.0, outcome.busy_s or 1.0
    found = {
        "output_tokens_per_s": outcome.num_tokens / whole,
        "requests_per_s": outcome.num_requests / whole,
        "ttft_p50_s": outcome.ttft_s.p50,
        "ttft_p99_s": outcome.ttft_s.p99,
        "itl_p50_s": outcome.itl_s.p50,
        "itl_p99_s": outcome.itl_s.p99,
        "ttft_mean_s": outcome.ttft_s.mean,
        "itl_mean_s": outcome.itl_s.mean,
        "e2e_mean_s": outcome.e2e_s.mean,
        "steps": outcome.num_steps,
        "busy_share": outcome.busy_s / whole,
        "mean_running": outcome.running_s / busy,
    }
    return {name: significant(value) for name, value in found.items()}


def errors(real: dict[str, float], simulated: dict[str, float]) -> dict[str, float]:
    """Per cent that the simulation is above what was real, of what is compared."""
    return {name: significant(100 * (simulated[name] / (real[name] or 1.0) - 1), 3) for name in ALLOWED}


def load_object(rate: float, pace: Sequence[float], runs: Sequence[Outcome]) -> dict[str, Any]:
    """One load: `runs` are the real one, the simulation by the law, and that at the `pace` of the real run: its steps
    took so many times what the law says of the very same steps, from beginning to end."""
    real, simulated, paced = map(figures, runs)
    return {
        "rate": significant(rate),
        "requests": runs[0].num_requests,
        "pace": [significant(each, 3) for each in pace],
        "real": real,
        "simulated": simulated,
        "error_percent": errors(real, simulated),
        "simulated_at_pace": paced,
        "error_at_pace_percent": errors(real, paced),
    }


def table(found: dict[str, Any]) -> list[str]:
    """The same for people; `!` stands beside what is farther off than it may be."""
    lines = []
    for load in found["loads"]:
        lines += [
            "",
            f"load {load['load']:g} of capacity: {load['requests']} requests, {load['rate']:.3g} a second; "
            f"steps took {min(load['pace']):.2f} to {max(load['pace']):.2f} of what the law says of them",
            f"{'':<22}{'real':>11}{'simulated':>11}{'error':>9} {'at its pace':>12}{'error':>9}",
        ]
        for name in SHOWN:
            real, simulated, paced = load["real"][name], load["simulated"][name], load["simulated_at_pace"][name]
            first, second = (_error(name, load[key].get(name)) for key in ("error_percent", "error_at_pace_percent"))
            lines.append(f"{name:<22}{real:>11.4g}{simulated:>11.4g}{first:>10}{paced:>12.4g}{second:>10}")
    return lines


def _error(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:+.1f}%{'!' if abs(value) > 100 * ALLOWED[name] else ' '}"
