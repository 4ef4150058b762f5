"""What a draw on the device reads and writes: tensors beside the logits.

Knows: their names, types and meanings. Does not know: requests, or how a token is chosen.

Legend: R rows, V vocabulary, D draws, B biases, K likeliest tokens told.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class RowTensors:
    """How R rows are drawn from. The numbers of `ops/sample.py: ROW`, a tensor each, and what the host knows of all.

    `least_weight_R` is ceil(min_p * 2**42). Draw d belongs to row `row_D[d]` and is sample `index_D[d]`; bias b is
    added to token `bias_id_B[b]` of row `bias_row_B[b]`. `counts_R` is each row's place in the table of counts, -1
    without penalties. The flags say whether any row needs that link of the chain at all; `num_top` is K.
    """

    seed_R: Tensor  # int64: the 64 bits, as two's complement
    position_R: Tensor  # int64
    top_p_R: Tensor  # float64
    least_weight_R: Tensor  # int64
    presence_R: Tensor  # float64
    frequency_R: Tensor  # float64
    repetition_R: Tensor  # float32
    inv_temperature_R: Tensor  # float32; 0: the likeliest token
    top_k_R: Tensor  # int32; 0: off
    given_R: Tensor  # int32; -1: draw
    masked_R: Tensor  # int32; 1: the mask counts, 2: minus infinity is no flaw, or both
    counts_R: Tensor  # int32
    row_D: Tensor  # int32
    index_D: Tensor  # int32
    bias_row_B: Tensor  # int32
    bias_id_B: Tensor  # int32
    bias_value_B: Tensor  # float32
    is_one_each: bool  # draw d belongs to row d
    is_random: bool
    is_truncated: bool
    is_penalised: bool
    has_logprobs: bool
    num_top: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes out, written anew by every call; the meanings of `ops/sample.py: Drawn`."""

    tokens_D: Tensor  # int32
    status_R: Tensor  # int32
    logprobs_D: Tensor  # float64
    ranks_D: Tensor  # int32
    top_ids_RK: Tensor  # int32
    top_logprobs_RK: Tensor  # float64
