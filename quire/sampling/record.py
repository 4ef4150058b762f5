"""One draw as the kernel's record.

Knows: what each sampling parameter is called on either side. Does not know: other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quire.ops.sample import FORBIDDING, LEAST_REPETITION, MASKED, ROW, TokenCounts
from quire.request import SamplingParams
from quire.sampling.restrictions import Restriction, make_restriction
from quire.step import Draw

_SEED_BITS = 2**64 - 1
_LEAST_TEMPERATURE = 1e-38  # its inverse is still a float32; every logit but the largest weighs nothing long before


@dataclass(frozen=True, slots=True)
class Record:
    """What stays the same as long as one sequence draws: its parameters, its biases, what it may never be, and the
    counts of its tokens."""

    draw: Draw
    params: bytes
    bias: tuple[tuple[int, float], ...]
    counts: TokenCounts | None
    restriction: Restriction | None = None


def make_record(draw: Draw, vocab_size: int, token_counts: Callable[[int, int], TokenCounts]) -> Record:
    """The record of `draw`; a ban is a bias of minus infinity, and ids beyond the vocabulary cannot be drawn anyway.

    `token_counts` makes the device's counts, of a prompt's length and the vocabulary's size.
    """
    params = draw.params
    pairs = [*(params.logit_bias or {}).items(), *((token, -np.inf) for token in draw.banned_ids)]
    bias = tuple((token, value) for token, value in pairs if 0 <= token < vocab_size)
    penalised = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
    counts = token_counts(draw.num_prompt, vocab_size) if penalised else None
    restriction = make_restriction(draw, vocab_size)
    return Record(draw, _params_bytes(draw, len(bias), restriction is not None), bias, counts, restriction)


def inverse_temperature(params: SamplingParams) -> float:
    """1 / temperature; 0 where the likeliest token is taken."""
    if params.greedy or params.top_k == 1:
        return 0.0
    return 1.0 / max(params.temperature, _LEAST_TEMPERATURE)


def _params_bytes(draw: Draw, num_bias: int, restricted: bool) -> bytes:
    """One record of `ROW`; its first draw and first bias depend on its company and are set there."""
    params, num_top = draw.params, draw.num_top
    row = (
        (params.seed or 0) & _SEED_BITS,
        0,
        params.top_p,
        params.min_p,
        params.presence_penalty,
        params.frequency_penalty,
        max(params.repetition_penalty, LEAST_REPETITION),
        inverse_temperature(params) if not draw.num_candidates else 0.0,
        max(params.top_k, 0),
        -1 if num_top is None else num_top,
        -1,
        MASKED * (restricted or draw.constraint is not None) + FORBIDDING * bool(params.logits_processors),
        0,
        len(draw.indices),
        0,
        num_bias,
    )
    return np.array(row, ROW).tobytes()
