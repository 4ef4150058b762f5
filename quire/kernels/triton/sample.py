"""The draw: from rows of logits to tokens and log probabilities, with nothing asked of the host on the way.

    adjust    where a row is penalised or masked: a copy, changed (and biases added, one launch more)
    survey    every chunk of 8192 of every row: peaks of blocks of 256, the first largest, whether all is finite
    tally     weights of every chunk, as integers, so that their sum has no order
    cut       where top_k or top_p leave some out (`draw_cut.py`)
    choose    a program a draw: a random share of the sum, the chunk in which it lies, the token
    tell      log probabilities, rank and the likeliest tokens, of the raw logits

Greedy rows take two launches, plain temperature three, top_k and top_p five. A row's outcome depends on the row
alone, and is that of `kernels/reference/sample.py`, token for token. Launches that weigh are compiled without fused
multiply-adds.

Knows: the chain. Does not know: requests, the host.

Legend: R rows, V vocabulary, W words of 32 tokens, D draws, C chunks, B blocks, K likeliest tokens told, S places in
the table of counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.triton.draw_cut import LARGEST, MOST_KEPT, collect, cut, read_some
from quire.kernels.triton.draw_parts import NUM_TRIES, UNIT, key_of, random_bits, share, weigh
from quire.kernels.triton.draw_tell import tell, tell_top
from quire.kernels.triton.tiles import power_of_two

if TYPE_CHECKING:
    from quire.kernels.torch.draws import Outcome, RowTensors

CHUNK, BLOCK, TILE = 8192, 256, 1024
EXACT = {"enable_fp_fusion": False}


@triton.jit(do_not_specialize=["V", "W"])
def _adjust(
    logits_ptr, work_ptr, counts_ptr, place_ptr, repetition_ptr, presence_ptr, frequency_ptr, mask_ptr, masked_ptr,
    V, W, PENALISED: tl.constexpr, MASKED: tl.constexpr, TILE: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    ids = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = ids < V
    x = tl.load(logits_ptr + row * V + ids, mask=inside, other=0.0)
    if PENALISED:
        place = tl.load(place_ptr + row).to(tl.int64)
        counts = tl.load(counts_ptr + place * V + ids, mask=inside & (place >= 0), other=-1)
        penalty = tl.maximum(tl.load(repetition_ptr + row), 1.1754943508222875e-38)
        repeated = tl.where(x > 0, tl.div_rn(x, penalty + x * 0.0), x * penalty)
        x = tl.where(counts >= 0, repeated, x)
        off = tl.load(presence_ptr + row) + tl.load(frequency_ptr + row) * counts.to(tl.float64)
        x = tl.where(counts > 0, x - off.to(tl.float32), x)
        x = tl.where(x > TOP, TOP, x)
    if MASKED:
        word = tl.load(mask_ptr + row * W + ids // 32, mask=inside, other=0)
        hidden = ((word >> (ids % 32)) & 1) == 0
        x = tl.where(hidden & ((tl.load(masked_ptr + row) & 1) != 0), float("-inf"), x)
    tl.store(work_ptr + row * V + ids, x, mask=inside)


@triton.jit(do_not_specialize=["V", "num_biases"])
def _add_biases(work_ptr, row_ptr, id_ptr, value_ptr, V, num_biases, TILE: tl.constexpr):
    """A token may have a bias and a ban: they are added one by one, and minus infinity has no order."""
    places = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = places < num_biases
    rows = tl.load(row_ptr + places, mask=inside, other=0).to(tl.int64)
    ids = tl.load(id_ptr + places, mask=inside, other=0)
    tl.atomic_add(work_ptr + rows * V + ids, tl.load(value_ptr + places, mask=inside, other=0.0), mask=inside)


@triton.jit(do_not_specialize=["V"])
def _survey(
    logits_ptr, work_ptr, masked_ptr, peaks_ptr, raw_peaks_ptr, best_ptr, raw_ptr, V, B, C, COPIED: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    raw = tl.load(logits_ptr + row * V + ids, mask=ids < V, other=float("-inf"))
    x = tl.load(work_ptr + row * V + ids, mask=ids < V, other=float("-inf")) if COPIED else raw
    x = tl.where(x > TOP, TOP, x)
    blocks = chunk * (CHUNK // BLOCK) + tl.arange(0, CHUNK // BLOCK)
    tl.store(peaks_ptr + row * B + blocks, tl.max(tl.reshape(x, (CHUNK // BLOCK, BLOCK)), 1), mask=blocks < B)
    raw_peaks = tl.max(tl.reshape(raw, (CHUNK // BLOCK, BLOCK)), 1)
    tl.store(raw_peaks_ptr + row * B + blocks, raw_peaks, mask=blocks < B)
    bad = (raw != raw) | (raw == float("inf"))  # NaN is passed by by a maximum
    if (tl.load(masked_ptr + row) & 2) == 0:  # nobody forbids tokens by minus infinity
        bad = bad | ((raw == float("-inf")) & (ids < V))
    flawed = tl.max(bad.to(tl.int32), 0)
    peak = tl.max(x, 0)
    best = tl.min(tl.where(x == peak, ids, V), 0)
    tl.store(best_ptr + row * C + chunk, tl.minimum(best, V - 1))
    tl.store(raw_ptr + row * C + chunk, flawed)


@triton.jit(do_not_specialize=["V"])
def _tally(
    logits_ptr, work_ptr, peaks_ptr, raw_peaks_ptr, least_ptr, inv_temperature_ptr, sums_ptr, raw_sums_ptr, V, B, C,
    RANDOM: tl.constexpr, TOLD: tl.constexpr, CHUNK: tl.constexpr, BLOCK_B: tl.constexpr, TILE: tl.constexpr,
    TOP: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    blocks = tl.arange(0, BLOCK_B)
    peak = tl.max(tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")), 0)
    raw_peak = tl.max(tl.load(raw_peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")), 0)
    inv_temperature, least = tl.load(inv_temperature_ptr + row), tl.load(least_ptr + row)
    total, raw_total = tl.zeros([TILE], tl.int64), tl.zeros([TILE], tl.int64)
    for first in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, V), TILE):
        ids = first + tl.arange(0, TILE)
        if RANDOM:
            x = tl.load(work_ptr + row * V + ids, mask=ids < V, other=float("-inf"))
            weights = weigh(tl.where(x > TOP, TOP, x), peak, inv_temperature)
            total += tl.where((weights >= least) & (ids < V), weights, 0)
        if TOLD:
            raw = tl.load(logits_ptr + row * V + ids, mask=ids < V, other=float("-inf"))
            raw_total += tl.where(ids < V, weigh(raw, raw_peak, 1.0), 0)
    if RANDOM:
        tl.store(sums_ptr + row * C + chunk, tl.sum(total, 0))
    if TOLD:
        tl.store(raw_sums_ptr + row * C + chunk, tl.sum(raw_total, 0))


@triton.jit
def _weights_in(ids, x, peak, inv_t, least, key, need, ties, V):
    """(weights of the tokens that may be drawn, else 0; tokens at the cut so far)."""
    keys, weights = key_of(x), weigh(x, peak, inv_t)
    tied = (keys == key) & (ids < V)
    rank = ties + tl.cumsum(tied.to(tl.int64), 0)
    may = ((keys > key) | (tied & (rank <= need))) & (weights >= least) & (ids < V)
    return tl.where(may, weights, 0), ties + tl.sum(tied.to(tl.int64), 0)


@triton.jit(do_not_specialize=["V"])
def _choose(
    work_ptr, peaks_ptr, best_ptr, raw_ptr, raw_peaks_ptr, sums_ptr, list_ptr, key_ptr, need_ptr, num_ptr, row_ptr,
    index_ptr, given_ptr, top_k_ptr, top_p_ptr, least_ptr, inv_temperature_ptr, seed_ptr, position_ptr, tokens_ptr,
    status_ptr, V, B, C, RANDOM: tl.constexpr, CUT: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, LIST: tl.constexpr, TILE: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    draw = tl.program_id(0)
    row = tl.load(row_ptr + draw).to(tl.int64)
    blocks, chunks = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_C)
    peaks = tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf"))
    peak = tl.max(peaks, 0)
    flawed = tl.max(tl.load(raw_ptr + row * C + chunks, mask=chunks < C, other=0), 0) != 0
    raw_peak = tl.max(tl.load(raw_peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")), 0)
    flawed = flawed | (raw_peak == float("-inf"))
    block = tl.min(tl.where(peaks == peak, blocks, B - 1), 0)
    token = tl.load(best_ptr + row * C + block * BLOCK // CHUNK)
    fine = (peak > float("-inf")) & (flawed == 0)
    inv_t = tl.load(inv_temperature_ptr + row)
    if RANDOM and (fine & (inv_t > 0.0)):
        token = _draw(
            work_ptr, sums_ptr, list_ptr, key_ptr, need_ptr, num_ptr, top_k_ptr, top_p_ptr, least_ptr, seed_ptr,
            position_ptr, tl.load(index_ptr + draw), row, peak, inv_t, V, C, CUT, CHUNK, BLOCK_C, LIST, TILE, TOP,
        )  # fmt: skip
    given = tl.load(given_ptr + row)
    token = tl.where(given >= 0, given, token)
    tl.store(tokens_ptr + draw, tl.where(fine, token, -1))
    tl.store(status_ptr + row, tl.where(flawed, 1, tl.where(peak > float("-inf"), 0, 2)))


@triton.jit
def _draw(
    work_ptr, sums_ptr, list_ptr, key_ptr, need_ptr, num_ptr, top_k_ptr, top_p_ptr, least_ptr, seed_ptr, position_ptr,
    index, row, peak, inv_t, V, C, CUT: tl.constexpr, CHUNK: tl.constexpr, BLOCK_C: tl.constexpr,
    LIST: tl.constexpr, TILE: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """By ascending id, the first token whose running sum of weights exceeds a random share of them all."""
    bits = random_bits(tl.load(seed_ptr + row), index.to(tl.int64), tl.load(position_ptr + row))
    least = tl.maximum(tl.load(least_ptr + row), 1)
    chunks = tl.arange(0, BLOCK_C)
    sums = tl.load(sums_ptr + row * C + chunks, mask=chunks < C, other=0)
    reach = tl.cumsum(sums, 0)
    total = tl.sum(sums, 0)
    point = share(bits, total)
    chunk = tl.minimum(tl.sum((reach <= point).to(tl.int32), 0), C - 1)
    before = tl.max(tl.where(reach <= point, reach, 0), 0)
    first_place, num, listed = chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, V), chunk < 0
    key, need = total * 0 - 1, total * 0
    if CUT:  # noqa: SIM102 - known when it is compiled; the other is not
        if (tl.load(top_k_ptr + row) > 0) | (tl.load(top_p_ptr + row) < 1.0):
            num = tl.load(num_ptr + row).to(tl.int32)
            listed, first_place = num >= 0, chunk * 0
            num = tl.where(listed, num, V)
            key, need = tl.load(key_ptr + row), tl.load(need_ptr + row)
            total, ties = total * 0, total * 0
            for first in range(0, num, TILE):
                ids, x = read_some(work_ptr, list_ptr, row, first, num, V, listed, LIST, TOP, TILE)
                ids = tl.where(first + tl.arange(0, TILE) < num, ids, V)
                weights, ties = _weights_in(ids, x, peak, inv_t, least, key, need, ties, V)
                total += tl.sum(weights, 0)
            point, before = share(bits, total), total * 0
    token, ties = V - 1, total * 0
    for first in range(first_place, num, TILE):
        ids, x = read_some(work_ptr, list_ptr, row, first, num, V, listed, LIST, TOP, TILE)
        ids = tl.where(first + tl.arange(0, TILE) < num, ids, V)
        weights, ties = _weights_in(ids, x, peak, inv_t, least, key, need, ties, V)
        beyond = (before + tl.cumsum(weights, 0) > point) & (weights > 0)
        token = tl.minimum(token, tl.min(tl.where(beyond, ids, V - 1), 0))
        before += tl.sum(weights, 0)
    return token


@dataclass(frozen=True, slots=True)
class _Scratch:
    """What launches of one call tell each other."""

    work_RV: Tensor
    peaks_RB: Tensor
    raw_peaks_RB: Tensor
    best_RC: Tensor
    flawed_RC: Tensor
    sums_RC: Tensor
    raw_sums_RC: Tensor
    num_chunks: int
    num_blocks: int
    sizes: dict[str, Any]


def sample(
    logits_RV: Tensor,
    rows: RowTensors,
    out: Outcome,
    counts_SV: Tensor | None = None,
    mask_RW: Tensor | None = None,
) -> None:
    """The contract of `ops/sample.py`, with the tensors of `kernels/torch/draws.py`; see `kernels/torch/sample.py`."""
    num_rows, vocab_size = logits_RV.shape
    if num_rows == 0:
        return
    work_RV = adjusted(logits_RV, rows, counts_SV, mask_RW)
    scratch = surveyed(logits_RV, work_RV, rows)
    key_R = need_R = num_R = torch.empty(1, dtype=torch.int64, device=logits_RV.device)
    listed = torch.empty(1, dtype=torch.int32, device=logits_RV.device)
    if rows.is_random and rows.is_truncated:
        key_R, need_R, num_R, listed = cut_rows(rows, scratch, vocab_size)
    sizes = {**scratch.sizes, "LIST": scratch.num_chunks * MOST_KEPT, "TILE": TILE, "TOP": LARGEST}
    _choose[(len(rows.row_D),)](
        work_RV, scratch.peaks_RB, scratch.best_RC, scratch.flawed_RC, scratch.raw_peaks_RB, scratch.sums_RC, listed,
        key_R, need_R, num_R, rows.row_D, rows.index_D, rows.given_R, rows.top_k_R, rows.top_p_R, rows.least_weight_R,
        rows.inv_temperature_R, rows.seed_R, rows.position_R, out.tokens_D, out.status_R, vocab_size,
        scratch.num_blocks, scratch.num_chunks, RANDOM=rows.is_random, CUT=rows.is_random and rows.is_truncated,
        CHUNK=CHUNK, BLOCK=BLOCK, **sizes, **EXACT,
    )  # fmt: skip
    if rows.has_logprobs:
        tell_rows(logits_RV, rows, out, scratch)


def adjusted(logits_RV: Tensor, rows: RowTensors, counts_SV: Tensor | None, mask_RW: Tensor | None) -> Tensor:
    """The rows with penalties, biases, bans and mask; the logits themselves where there is none."""
    (num_rows, vocab_size), num_biases = logits_RV.shape, len(rows.bias_row_B)
    penalised = rows.is_penalised and counts_SV is not None
    if not penalised and mask_RW is None and num_biases == 0:
        return logits_RV
    work_RV = torch.empty_like(logits_RV)
    _adjust[num_rows, triton.cdiv(vocab_size, TILE)](
        logits_RV, work_RV, counts_SV, rows.counts_R, rows.repetition_R, rows.presence_R, rows.frequency_R, mask_RW,
        rows.masked_R, vocab_size, 0 if mask_RW is None else mask_RW.shape[1], PENALISED=penalised,
        MASKED=mask_RW is not None, TILE=TILE, TOP=LARGEST, **EXACT,
    )  # fmt: skip
    if num_biases:
        _add_biases[(triton.cdiv(num_biases, TILE),)](
            work_RV, rows.bias_row_B, rows.bias_id_B, rows.bias_value_B, vocab_size, num_biases, TILE=TILE
        )
    return work_RV


def surveyed(logits_RV: Tensor, work_RV: Tensor, rows: RowTensors) -> _Scratch:
    """Peaks of all rows and, where any is drawn at random or told about, sums of their weights."""
    num_rows, vocab_size = logits_RV.shape
    num_chunks, num_blocks = triton.cdiv(vocab_size, CHUNK), triton.cdiv(vocab_size, BLOCK)
    sizes = {"BLOCK_B": power_of_two(max(num_blocks, 16)), "BLOCK_C": power_of_two(max(num_chunks, 16))}
    floats = logits_RV.new_empty((2, num_rows, num_blocks))
    ints = logits_RV.new_empty((2, num_rows, num_chunks), dtype=torch.int32)
    longs = logits_RV.new_empty((2, num_rows, num_chunks), dtype=torch.int64)
    scratch = _Scratch(
        work_RV, floats[0], floats[1], ints[0], ints[1], longs[0], longs[1], num_chunks, num_blocks, sizes
    )  # fmt: skip
    _survey[num_rows, num_chunks](
        logits_RV, work_RV, rows.masked_R, scratch.peaks_RB, scratch.raw_peaks_RB, scratch.best_RC, scratch.flawed_RC,
        vocab_size, num_blocks, num_chunks, COPIED=work_RV is not logits_RV, CHUNK=CHUNK, BLOCK=BLOCK, TOP=LARGEST,
        num_warps=8,
    )  # fmt: skip
    if rows.is_random or rows.has_logprobs:
        _tally[num_rows, num_chunks](
            logits_RV, work_RV, scratch.peaks_RB, scratch.raw_peaks_RB, rows.least_weight_R, rows.inv_temperature_R,
            scratch.sums_RC, scratch.raw_sums_RC, vocab_size, num_blocks, num_chunks, RANDOM=rows.is_random,
            TOLD=rows.has_logprobs, CHUNK=CHUNK, BLOCK_B=sizes["BLOCK_B"], TILE=TILE, TOP=LARGEST, **EXACT,
        )  # fmt: skip
    return scratch


def cut_rows(rows: RowTensors, scratch: _Scratch, vocab_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(key, need, number listed, lists) of the rows that top_k or top_p cut; see `draw_cut.cut`."""
    num_rows, num_chunks = len(rows.top_k_R), scratch.num_chunks
    found = scratch.sums_RC.new_empty((3, num_rows))
    lists = scratch.best_RC.new_empty((2, num_rows, num_chunks * MOST_KEPT))
    kept_RC = scratch.best_RC.new_empty((num_rows, num_chunks))
    how = (rows.top_k_R, rows.top_p_R, rows.least_weight_R, rows.inv_temperature_R)
    sizes = {**scratch.sizes, "MOST": MOST_KEPT, "NUM": NUM_TRIES, "TILE": TILE, "TOP": LARGEST}
    collect[num_rows, num_chunks](
        scratch.work_RV, scratch.peaks_RB, scratch.sums_RC, *how, lists[0], kept_RC, vocab_size, scratch.num_blocks,
        num_chunks, CHUNK=CHUNK, **sizes, **EXACT,
    )  # fmt: skip
    cut[(num_rows,)](
        scratch.work_RV, scratch.peaks_RB, scratch.sums_RC, *how, lists[0], lists[1], kept_RC, *found, vocab_size,
        scratch.num_blocks, num_chunks, LIST=num_chunks * MOST_KEPT, **sizes, **EXACT,
    )  # fmt: skip
    return found[0], found[1], found[2], lists[1]


def tell_rows(logits_RV: Tensor, rows: RowTensors, out: Outcome, scratch: _Scratch) -> None:
    """Log probabilities and ranks of the draws, and the likeliest tokens of the rows."""
    num_rows, vocab_size = logits_RV.shape
    tell[(len(rows.row_D),)](
        logits_RV, scratch.raw_peaks_RB, scratch.raw_sums_RC, rows.row_D, out.tokens_D, out.logprobs_D, out.ranks_D,
        vocab_size, scratch.num_blocks, scratch.num_chunks, UNIT=UNIT, TILE=TILE, **scratch.sizes, **EXACT,
    )  # fmt: skip
    width = min(rows.num_top, vocab_size)
    if width:
        tell_top[(num_rows,)](
            logits_RV, scratch.raw_peaks_RB, scratch.raw_sums_RC, out.top_ids_RK, out.top_logprobs_RK, vocab_size,
            scratch.num_blocks, scratch.num_chunks, rows.num_top, width, UNIT=UNIT, BLOCK=BLOCK, **scratch.sizes,
            **EXACT,
        )  # fmt: skip
