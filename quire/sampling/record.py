"""One draw as the kernel's record.

Knows: what each sampling parameter is called on either side. Does not know: other rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quire.ops.sample import LEAST_REPETITION, ROW, TokenCounts
from quire.request import SamplingParams
from quire.step import Draw

_SEED_BITS = 2**64 - 1
_LEAST_TEMPERATURE = 1e-38  # its inverse is still a float32; every logit but the largest weighs nothing long before


@dataclass(frozen=True, slots=True)
class Record:
    """What stays the same as long as one sequence draws: its parameters, its biases, the counts of its tokens."""

    draw: Draw
    params: bytes
    bias: tuple[tuple[int, float], ...]
    counts: TokenCounts | None


def make_record(draw: Draw, vocab_size: int) -> Record:
    """The record of `draw`; a ban is a bias of minus infinity, and ids beyond the vocabulary cannot be drawn anyway."""
    params = draw.params
    pairs = [*(params.logit_bias or {}).items(), *((token, -np.inf) for token in draw.banned_ids)]
    bias = tuple((token, value) for token, value in pairs if 0 <= token < vocab_size)
    penalised = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
    counts = TokenCounts(draw.num_prompt) if penalised else None
    return Record(draw, _params_bytes(params, len(draw.indices), len(bias)), bias, counts)


def inverse_temperature(params: SamplingParams) -> float:
    """1 / temperature; 0 where the likeliest token is taken."""
    if params.greedy or params.top_k == 1:
        return 0.0
    return 1.0 / max(params.temperature, _LEAST_TEMPERATURE)


def _params_bytes(params: SamplingParams, num_draws: int, num_bias: int) -> bytes:
    row = np.zeros(1, ROW)
    row["seed"] = (params.seed or 0) & _SEED_BITS
    row["top_p"], row["min_p"] = params.top_p, params.min_p
    row["presence"], row["frequency"] = params.presence_penalty, params.frequency_penalty
    row["repetition"] = max(params.repetition_penalty, LEAST_REPETITION)
    row["inv_temperature"] = inverse_temperature(params)
    row["top_k"] = max(params.top_k, 0)
    row["num_top"] = -1 if params.logprobs is None else params.logprobs
    row["given"] = -1
    row["num_draws"], row["num_bias"] = num_draws, num_bias
    return row.tobytes()
