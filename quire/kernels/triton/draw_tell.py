"""What people are told who ask what the model really thought: log probabilities, ranks, the likeliest tokens.

    tell       a program a draw: its own log probability, and how many tokens of the row are likelier
    tell_top   a program a row: the likeliest one after the other; a block's peak is looked up, and when its largest
               has been told the block is searched for the next one, so each costs 256 logits instead of the row

Knows: raw logits, the peaks of their blocks, sums of their weights. Does not know: penalties, temperature.

Legend: R rows, V vocabulary, C chunks, B blocks, K likeliest tokens told.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normaliser(peaks_ptr, sums_ptr, row, B, C, UNIT: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr):
    """max x + log(sum of exp(x - max x)), float64."""
    blocks, chunks = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_C)
    peak = tl.max(tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")), 0)
    total = tl.sum(tl.load(sums_ptr + row * C + chunks, mask=chunks < C, other=0), 0)
    return peak.to(tl.float64) + tl.log(total.to(tl.float64) * (1.0 / UNIT))


@triton.jit(do_not_specialize=["V"])
def tell(
    logits_ptr, peaks_ptr, sums_ptr, row_ptr, tokens_ptr, logprobs_ptr, ranks_ptr, V, B, C,
    UNIT: tl.constexpr, TILE: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Log probability and rank (1: the likeliest) of one drawn token."""
    draw = tl.program_id(0)
    row = tl.load(row_ptr + draw).to(tl.int64)
    token = tl.load(tokens_ptr + draw)
    own = tl.load(logits_ptr + row * V + tl.maximum(token, 0))
    likelier = tl.zeros([TILE], tl.int32)
    for first in range(0, V, TILE):
        ids = first + tl.arange(0, TILE)
        x = tl.load(logits_ptr + row * V + ids, mask=ids < V, other=float("-inf"))
        likelier += (((x > own) | ((x == own) & (ids < token))) & (ids < V)).to(tl.int32)
    tl.store(ranks_ptr + draw, tl.sum(likelier, 0) + 1)
    tl.store(
        logprobs_ptr + draw, own.to(tl.float64) - _normaliser(peaks_ptr, sums_ptr, row, B, C, UNIT, BLOCK_B, BLOCK_C)
    )


@triton.jit(do_not_specialize=["V"])
def tell_top(
    logits_ptr, peaks_ptr, sums_ptr, ids_ptr, logprobs_ptr, V, B, C, K, width,
    UNIT: tl.constexpr, BLOCK: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The `width` likeliest tokens of one row and their log probabilities, equal ones by the lower id."""
    row = tl.program_id(0).to(tl.int64)
    blocks = tl.arange(0, BLOCK_B)
    peaks = tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf"))
    normaliser = _normaliser(peaks_ptr, sums_ptr, row, B, C, UNIT, BLOCK_B, BLOCK_C)
    left = tl.where(blocks < B, tl.minimum(V - blocks * BLOCK, BLOCK), 0)  # tokens of a block not told yet
    last_values, last_ids = tl.full([BLOCK_B], float("inf"), tl.float32), tl.full([BLOCK_B], -1, tl.int32)
    for place in range(width):
        best = tl.max(tl.where(left > 0, peaks, float("-inf")), 0)
        block = tl.min(tl.where((left > 0) & (peaks == best), blocks, B - 1), 0)
        chosen = blocks == block
        last_value = tl.min(tl.where(chosen, last_values, float("inf")), 0)
        last_id = tl.where(best < last_value, -1, tl.max(tl.where(chosen, last_ids, -1), 0))
        ids = block * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * V + ids, mask=ids < V, other=float("-inf"))
        token = tl.min(tl.where((x == best) & (ids > last_id), ids, V - 1), 0)
        tl.store(ids_ptr + row * K + place, token)
        tl.store(logprobs_ptr + row * K + place, best.to(tl.float64) - normaliser)
        next_peak = tl.max(tl.where((x < best) | ((x == best) & (ids > token)), x, float("-inf")), 0)
        peaks, left = tl.where(chosen, next_peak, peaks), tl.where(chosen, left - 1, left)
        last_values, last_ids = tl.where(chosen, best, last_values), tl.where(chosen, token, last_ids)
