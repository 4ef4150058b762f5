"""The draw: from rows of logits to tokens and log probabilities.

Knows: its contract. Does not know: requests, or whose row it is.

Legend: R rows, V vocabulary, D draws (a row may be drawn from several times), B biases, K likeliest tokens told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quire.kernels.cpu.native import _cpu
from quire.ops.device import Device

SAMPLED, NOT_FINITE, NOTHING_ALLOWED = 0, 1, 2
LEAST_REPETITION = 2.0**-126
MASKED, FORBIDDING = 1, 2

ROW = np.dtype(
    [
        ("seed", "u8"),  # any 64 bits
        ("position", "i8"),  # of the token to be drawn: with seed and index the key of its random number
        ("top_p", "f8"),  # (0, 1]; 1: off
        ("min_p", "f8"),  # [0, 1]; 0: off
        ("presence", "f8"),
        ("frequency", "f8"),
        ("repetition", "f4"),  # at least LEAST_REPETITION; 1: off
        ("inv_temperature", "f4"),  # 0: the likeliest token
        ("top_k", "i4"),  # 0: off
        ("num_top", "i4"),  # likeliest tokens to be told, at most K; -1: no log probabilities at all
        ("given", "i4"),  # a token to be told about instead of a draw; -1: draw
        ("masked", "i4"),  # MASKED: the mask counts for this row; FORBIDDING: -inf is no flaw; or both
        ("first_draw", "i4"),  # the row's share of indices and tokens
        ("num_draws", "i4"),
        ("first_bias", "i4"),  # the row's share of the biases
        ("num_bias", "i4"),
    ]
)
"""How one row is drawn from."""

TokenCounts = _cpu.TokenCounts
"""`TokenCounts(num_prompt)`: the distinct tokens of a sequence and how often each stands in its answer.

`.catch_up(history)` counts what was appended since (some ns a token); `.items()` are (id, times in the answer).
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """How R rows are drawn from; made once and used as long as the rows stay the same.

    `params_R` are records of `ROW` (only `position` may be changed later); `indices_D` int32 the sample indices;
    `bias_ids_B` int32 and `bias_values_B` float32 are added to the logits (minus infinity: a ban).
    """

    params_R: Any
    indices_D: Any
    bias_ids_B: Any
    bias_values_B: Any
    bytes_R: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes_R", self.params_R.view(np.uint8).reshape(len(self.params_R), ROW.itemsize))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What comes out; arrays that are written anew by every call.

    `tokens_D` int32, -1 where the row failed; `status_R` int32: SAMPLED, NOT_FINITE (NaN or infinity; a FORBIDDING row
    may hold -inf, but not alone) or NOTHING_ALLOWED (bans and mask leave no token). Where a row asks: `logprobs_D`
    float64 of the tokens, `ranks_D` int32 their places among all (1: the likeliest), `top_ids_RK` int32 and
    `top_logprobs_RK` float64 of the likeliest, best first, equal ones by the lower id; only min(num_top, V) of them are
    written.
    """

    tokens_D: Any
    status_R: Any
    logprobs_D: Any
    ranks_D: Any
    top_ids_RK: Any
    top_logprobs_RK: Any


def make_drawn(num_rows: int, num_draws: int, num_top: int) -> Drawn:
    """Room for the outcome of `num_rows` rows."""
    return Drawn(
        np.empty(num_draws, np.int32),
        np.empty(num_rows, np.int32),
        np.zeros(num_draws, np.float64),
        np.zeros(num_draws, np.int32),
        np.zeros((num_rows, num_top), np.int32),
        np.zeros((num_rows, num_top), np.float64),
    )


def sample(
    device: Device,
    logits_RV: Any,
    rows: Rows,
    drawn: Drawn,
    counts_R: Sequence[TokenCounts | None] | None = None,
    mask_RW: Any | None = None,
) -> int:
    """Draw from every row of `logits_RV` (float32, contiguous, 1 <= V <= 2**20); the number of rows that failed.

    A row's chain: repetition penalty on all counted tokens (x / p if x > 0, else x * p; Keskar et al. 2019); minus
    presence + frequency * count for those in the answer; plus biases; minus infinity where bit v % 32 of
    mask[r, v // 32] (int32, W = ceil(V / 32)) is 0. Then weights round(exp((x - max x) * inv_temperature) * 2**42);
    those below min_p * 2**42 count as 0; the top_k largest logits; of these the fewest, largest first, whose weight
    reaches top_p of theirs all. The draw goes through what is left by ascending id: the first token whose running sum
    exceeds (r * sum) >> 53, r being 53 bits of Philox4x32-10. Equal logits: the lower id is the larger.
    Log probabilities are of the raw logits: x - (max x + log(sum of weights at temperature 1)), in float64.

    All float32 steps are single multiplications and additions and all sums are of integers, so a row's outcome depends
    on the row alone: not on R, the threads or the instruction set. `logits_RV` is left as it was, but that in
    rows without log probabilities tokens outside the mask may become minus infinity.
    Raises TypeError for another type or layout, ValueError for shapes that do not fit or values out of range.
    """
    failed: int = device.kernels.sample(logits_RV, rows, drawn, counts_R, mask_RW)
    return failed
