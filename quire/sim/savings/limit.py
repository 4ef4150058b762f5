"""Knows: what batching can save at most where a step's time follows a law. Does not know: any policy.

Of the six prices of the law only the fixed one is paid by a step and not by what is in it, and up to the knee tokens
are paid at less than their full price. A batch without end pays neither:

    limit = sum of (what each request costs alone) / sum of (what each costs at full prices and nothing fixed)

A prompt is long enough to pay full price alone already, so reading it does not amortise: the more of a request is
prompt, the nearer the limit is to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.scheduling.cost import Coefficients, CostModel, StepShape, num_chunk_pairs
from quire.sim.device import ModelledDevice
from quire.sim.savings.asks import Ask

MOST_SAMPLES = 4000


def learnt_law(timed: Sequence[tuple[StepShape, float]]) -> ModelledDevice:
    """The law of timed steps; all are remembered alike, every so many of very many."""
    every = -(-len(timed) // MOST_SAMPLES) or 1
    return ModelledDevice(CostModel.calibrated(timed[::every]).coefficients)


def law_text(device: ModelledDevice) -> str:
    """As `--law` takes it."""
    law = device.law
    names = ("fixed", "token", "extra_token", "draw", "context_token", "pair")
    prices = [f"{name}={getattr(law, f'{name}_s'):.4g}" for name in names]
    return ",".join([*prices, f"knee={device.knee_tokens}"])


def alone_s(device: ModelledDevice, asks: Sequence[Ask], max_num_batched_tokens: int) -> float:
    """Seconds for all of them, one at a time."""
    return sum([_alone_s(device, ask, max_num_batched_tokens) for ask in asks])


def shared_s(device: ModelledDevice, asks: Sequence[Ask]) -> float:
    """Seconds for all of them in batches without end: what no policy can go below."""
    return sum([_shared_s(device.law, ask) for ask in asks])


def _alone_s(device: ModelledDevice, ask: Ask, most: int) -> float:
    num_prompt = len(ask.prompt)
    seconds = 0.0
    for start in range(0, num_prompt, most):
        count = min(most, num_prompt - start)
        draws = start + count == num_prompt
        pairs = num_chunk_pairs(start, count) if count > 1 else 0
        seconds += device.seconds(StepShape(count, int(draws), start + count, pairs))
    # The law is linear in the context: each step costs what one without context does, and what it reads.
    steps_s = (ask.num_output - 1) * device.seconds(StepShape(1, 1, 0))
    return seconds + steps_s + device.law.context_token_s * _num_read(ask)


def _shared_s(law: Coefficients, ask: Ask) -> float:
    num_prompt = len(ask.prompt)
    num_tokens = num_prompt + ask.num_output - 1
    seconds = (law.token_s + law.extra_token_s) * num_tokens + law.draw_s * ask.num_output
    seconds += law.context_token_s * (num_prompt + _num_read(ask))
    return seconds + law.pair_s * num_chunk_pairs(0, num_prompt)


def _num_read(ask: Ask) -> int:
    """Key slots that the draws after the first read."""
    num_steps = ask.num_output - 1
    return num_steps * len(ask.prompt) + num_steps * (num_steps + 1) // 2
