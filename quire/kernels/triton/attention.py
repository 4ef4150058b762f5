"""Causal attention over the paged cache: prompt chunks and single tokens in one launch, long sequences in splits.

    items     A sequence whose queries fill several tiles has an item a tile, which walks all keys that the tile sees;
              one whose queries fit a tile has an item a split of its keys. Times kv heads. Programs take item after
              item; each finds its own in the sequences' lengths, on the device, so that nothing is asked of the host
              and a CUDA graph serves all lengths.
    a tile    [BLOCK_M, D] queries: all query heads of one kv head for some tokens, so keys are read once for the
              group. Keys and values come BLOCK_N at a time through the block table; softmax runs online in float32,
              in powers of two.
    pages     int8 and fp8 become the queries' type exactly; the scale of a key multiplies its column of scores, the
              scale of a value its column of weights: two products a key instead of 2 D.
    combine   splits of a sequence are added in ascending order, by one program a sequence and kv head.

A row's bits depend on its own query, keys and values and on the tile. `invariant` is one tile and one split length
for all steps, and tiles that walk all keys then fold them split by split in the order of the combination (with
explicit fused multiply-adds, since two kernels may be contracted differently): a token has the same bits as the end
of a prompt, alone, in company and in chunks.

Compiled for sm_90a (D 128, bfloat16): 16 rows 162 registers and 39 KB of shared memory, 64 rows 244 and 82 KB, 128
rows 242 and 99 KB, nothing spilt; keys and values by asynchronous copies, products by `wgmma` from 64 rows on. With
D, P and G as run-time numbers it was 255 registers, 328 to 1152 bytes spilt and no asynchronous copy.

Knows: pages, block tables, lengths. Does not know: prompts, decoding.

Legend: T tokens, S sequences, Q query heads, G kv heads, D head_dim, B blocks a table row, P block_size, M rows of a
tile, N keys.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.triton.tiles import AttentionTile, attention_tile, num_processors, power_of_two, sequences_block

if TYPE_CHECKING:
    from quire.kernels.torch.pages import Pages


@triton.jit
def _merge(m, total, acc, m_next, total_next, acc_next):
    """Two partial softmaxes as one; the first may be empty."""
    top = tl.maximum(m, m_next)
    base = tl.where(top == float("-inf"), 0.0, top)
    first, second = tl.exp2(m - base), tl.exp2(m_next - base)
    total = tl.fma(total, first, total_next * second)
    return top, total, tl.fma(acc, first[:, None], acc_next * second[:, None])


@triton.jit
def _walk(
    q, positions, keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr, table_ptr, head, begin, end, scale,
    P: tl.constexpr, G: tl.constexpr, D: tl.constexpr, HAS_SCALES: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """(largest score, sum of weights, sum of weighted values) of every row over keys begin..end - 1."""
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    columns = tl.arange(0, BLOCK_D)
    for first in range(begin, end, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        stored = keys < end
        block = tl.load(table_ptr + keys // P, mask=stored, other=0).to(tl.int64)
        slots = (block * P + keys % P) * G + head
        places = slots[:, None] * D + columns[None, :]
        inside = stored[:, None] & (columns < D)[None, :]
        k = tl.load(keys_ptr + places, mask=inside, other=0.0).to(q.dtype)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if HAS_SCALES:
            scores *= tl.load(key_scales_ptr + slots, mask=stored, other=0.0)[None, :]
        scores = tl.where((keys[None, :] <= positions[:, None]) & stored[None, :], scores, float("-inf"))
        top = tl.maximum(m, tl.max(scores, 1))
        base = tl.where(top == float("-inf"), 0.0, top)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(m - base)
        total = total * shrink + tl.sum(weights, 1)
        if HAS_SCALES:
            weights *= tl.load(value_scales_ptr + slots, mask=stored, other=0.0)[None, :]
        v = tl.load(values_ptr + places, mask=inside, other=0.0).to(q.dtype)
        acc = tl.dot(weights.to(q.dtype), v, acc * shrink[:, None], input_precision="ieee")
        m = top
    return m, total, acc


@triton.jit
def _pieces(query_starts_ptr, seq_lens_ptr, S, BLOCK_Q: tl.constexpr, SPLIT: tl.constexpr, BLOCK_S: tl.constexpr):
    """(items of each sequence, those of them that leave partial sums), for one kv head."""
    seqs = tl.arange(0, BLOCK_S)
    there = seqs < S
    starts = tl.load(query_starts_ptr + seqs, mask=there, other=0)
    counts = tl.load(query_starts_ptr + 1 + seqs, mask=there, other=0) - starts
    lens = tl.load(seq_lens_ptr + seqs, mask=there, other=0)
    tiles, splits = tl.cdiv(counts, BLOCK_Q), tl.cdiv(lens, SPLIT)
    partial = tl.where((tiles == 1) & (splits > 1), splits, 0)
    return tl.where(partial > 0, partial, tiles), partial


@triton.jit(do_not_specialize=["S", "B"])
def _attend(
    q_ptr, keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr, query_starts_ptr, seq_lens_ptr, tables_ptr, out_ptr,
    partial_ptr, stats_ptr, scale, S, B, P: tl.constexpr, G: tl.constexpr, D: tl.constexpr, GROUP: tl.constexpr,
    SPLIT: tl.constexpr, FOLD: tl.constexpr, HAS_SCALES: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    pieces, partial = _pieces(query_starts_ptr, seq_lens_ptr, S, BLOCK_Q, SPLIT, BLOCK_S)
    ends, partial_ends, seqs = tl.cumsum(pieces, 0), tl.cumsum(partial, 0), tl.arange(0, BLOCK_S)
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    for item in range(tl.program_id(0), tl.sum(pieces, 0) * G, tl.num_programs(0)):
        work, head = item // G, item % G
        seq = tl.sum((ends <= work).to(tl.int32), 0)
        piece = work - tl.max(tl.where(ends <= work, ends, 0), 0)
        num_partial = tl.sum(tl.where(seqs == seq, partial, 0), 0)
        start = tl.load(query_starts_ptr + seq)
        count, length = tl.load(query_starts_ptr + seq + 1) - start, tl.load(seq_lens_ptr + seq)
        tile = tl.where(num_partial > 0, 0, tl.cdiv(count, BLOCK_Q) - 1 - piece)  # the tile with most keys first
        begin = tl.where(num_partial > 0, piece * SPLIT, 0)
        end = tl.minimum(length - count + (tile + 1) * BLOCK_Q, length)
        end = tl.where(num_partial > 0, tl.minimum(begin + SPLIT, length), end)
        tokens = tile * BLOCK_Q + rows // GROUP
        inside = ((tokens < count) & (rows < BLOCK_Q * GROUP))[:, None] & (columns < D)[None, :]
        positions = length - count + tokens
        heads = (start + tokens).to(tl.int64) * (G * GROUP) + head * GROUP + rows % GROUP
        places = heads[:, None] * D + columns[None, :]
        q = tl.load(q_ptr + places, mask=inside, other=0.0)
        table_ptr = tables_ptr + seq.to(tl.int64) * B
        if FOLD:
            m = tl.full([BLOCK_M], float("-inf"), tl.float32)
            total = tl.zeros([BLOCK_M], tl.float32)
            acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
            for first in range(begin, end, SPLIT):
                m_next, total_next, acc_next = _walk(
                    q, positions, keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr, table_ptr, head, first,
                    tl.minimum(first + SPLIT, end), scale, P, G, D, HAS_SCALES, BLOCK_M, BLOCK_N, BLOCK_D,
                )  # fmt: skip
                m, total, acc = _merge(m, total, acc, m_next, total_next, acc_next)
        else:
            m, total, acc = _walk(
                q, positions, keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr, table_ptr, head, begin, end,
                scale, P, G, D, HAS_SCALES, BLOCK_M, BLOCK_N, BLOCK_D,
            )  # fmt: skip
        if num_partial > 0:
            before = tl.sum(tl.where(seqs == seq, partial_ends - partial, 0), 0)
            held = (((before + piece) * G + head).to(tl.int64) * BLOCK_M) + rows
            tl.store(partial_ptr + held[:, None] * D + columns[None, :], acc, mask=inside)
            tl.store(stats_ptr + 2 * held, m)
            tl.store(stats_ptr + 2 * held + 1, total)
        else:
            tl.store(out_ptr + places, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["S"])
def _combine(
    partial_ptr, stats_ptr, query_starts_ptr, seq_lens_ptr, out_ptr, S, G: tl.constexpr, D: tl.constexpr,
    GROUP: tl.constexpr, SPLIT: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    seq, head = tl.program_id(0), tl.program_id(1)
    _, partial = _pieces(query_starts_ptr, seq_lens_ptr, S, BLOCK_Q, SPLIT, BLOCK_S)
    seqs, rows, columns = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    num_partial = tl.sum(tl.where(seqs == seq, partial, 0), 0)
    if num_partial > 0:
        before = tl.sum(tl.where(seqs < seq, partial, 0), 0)
        start = tl.load(query_starts_ptr + seq)
        tokens = rows // GROUP
        there = (start + tokens < tl.load(query_starts_ptr + seq + 1)) & (rows < BLOCK_Q * GROUP)
        inside = there[:, None] & (columns < D)[None, :]
        m = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
        acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
        for piece in range(before, before + num_partial):
            held = ((piece * G + head).to(tl.int64) * BLOCK_M) + rows
            acc_next = tl.load(partial_ptr + held[:, None] * D + columns[None, :], mask=inside, other=0.0)
            m_next = tl.load(stats_ptr + 2 * held, mask=there, other=0.0)
            total_next = tl.load(stats_ptr + 2 * held + 1, mask=there, other=1.0)
            m, total, acc = _merge(m, total, acc, m_next, total_next, acc_next)
        heads = (start + tokens).to(tl.int64) * (G * GROUP) + head * GROUP + rows % GROUP
        places = heads[:, None] * D + columns[None, :]
        tl.store(out_ptr + places, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=inside)


def num_floats(num_seqs: int, most_keys: int, num_kv_heads: int, head_dim: int, tile: AttentionTile) -> int:
    """Scratch that such a step needs at most: sums and two numbers for every row of every split."""
    if most_keys <= tile.split:
        return 0
    return num_seqs * -(-most_keys // tile.split) * num_kv_heads * tile.block_m * (head_dim + 2)


def attention(
    q_TQD: Tensor,
    pages: Pages,
    layer: int,
    query_starts_S1: Tensor,
    seq_lens_S: Tensor,
    block_tables_SB: Tensor,
    scale: float,
    out_T_QD: Tensor,
    invariant: bool = False,
) -> None:
    """The contract of `ops/attention.py`: q and out of one float type, sums and softmax float32, weights rounded to
    q's type. Nothing is asked of the device, so the step may be captured in a CUDA graph. Where the tables are wider
    than one split, `num_floats` of scratch are taken for the time of the call.
    """
    num_tokens, num_heads, head_dim = q_TQD.shape
    num_seqs, table_width = block_tables_SB.shape
    if num_tokens == 0:
        return
    data, scales = pages.data[layer], pages.scales
    block_size, num_kv_heads = data.shape[2], data.shape[3]
    group, most_keys = num_heads // num_kv_heads, table_width * block_size
    tile = attention_tile(num_tokens, num_seqs, most_keys, group, head_dim, invariant)
    needed = num_floats(num_seqs, most_keys, num_kv_heads, head_dim, tile)
    floats = q_TQD.new_empty(needed, dtype=torch.float32)
    rows = needed // (head_dim + 2)
    partial, stats = floats[: rows * head_dim], floats[rows * head_dim :]
    most_items = (num_seqs * -(-most_keys // tile.split) + num_tokens * group // tile.block_m) * num_kv_heads
    key_scales, value_scales = (None, None) if scales is None else (scales[layer, 0], scales[layer, 1])
    shape = {"GROUP": group, "SPLIT": tile.split, "BLOCK_S": sequences_block(num_seqs), "BLOCK_M": tile.block_m}
    shape["BLOCK_D"] = max(16, power_of_two(head_dim))
    _attend[(min(most_items, tile.programs * num_processors(q_TQD.device)),)](
        q_TQD, data[0], data[1], key_scales, value_scales, query_starts_S1, seq_lens_S, block_tables_SB, out_T_QD,
        partial, stats, scale * math.log2(math.e), num_seqs, table_width, block_size, num_kv_heads, head_dim,
        FOLD=invariant, HAS_SCALES=scales is not None, BLOCK_N=tile.block_n, **shape,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    if needed:
        _combine[(num_seqs, num_kv_heads)](
            partial,
            stats,
            query_starts_S1,
            seq_lens_S,
            out_T_QD,
            num_seqs,
            num_kv_heads,
            head_dim,
            **shape,
            num_warps=tile.num_warps,
        )
