"""How far down the likeliest tokens go that top_k and top_p leave: a threshold, found without sorting.

    collect   Chunks of a row in parallel: ids of the tokens that can be among them at all, ascending. top_k: those
              that reach the k-th largest of the peaks of blocks of 256, since k blocks have one that large. top_p:
              the nucleus leaves 1 - top_p of the weight to at most V tokens, so none of its own weighs less than
              their mean.
    cut       A program a row: the largest key above which enough lies, three bits of it a pass, eleven passes; first
              k tokens, then of these the weight of the nucleus. Equal logits beyond the cut go by ascending id:
              `need`.

Where a chunk of 8192 keeps more than 1024 (flat logits: random weights, high temperatures) nothing is collected and
the passes read the whole row: some 0.8 ms a row of 128k tokens instead of some 0.05 (arithmetic from 2 us a tile and
pass, not measured on a GPU).

Knows: rows of adjusted logits and their peaks. Does not know: random numbers, requests.

Legend: R rows, V vocabulary, C chunks, B blocks.
"""

from __future__ import annotations

import triton
import triton.language as tl

from quire.kernels.triton.draw_parts import key_of, target_of, tries, weigh

MOST_KEPT = 1024  # of a chunk
LARGEST = 3.4028234663852886e38


@triton.jit
def _peak_bound(peaks_ptr, row, B, top_k, BLOCK_B: tl.constexpr, NUM: tl.constexpr):
    """The largest key that at least `top_k` blocks reach; 0 where there are fewer blocks."""
    blocks = tl.arange(0, BLOCK_B)
    keys = key_of(tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")))
    keys = tl.where(blocks < B, keys, -1)
    prefix = (top_k * 0).to(tl.int64)
    for step in range(11):
        tried = tries(prefix, 30 - 3 * step, NUM)
        counts = tl.sum((keys[None, :] >= tried[:, None]).to(tl.int32), 1)
        prefix += (tl.maximum(tl.sum((counts >= top_k).to(tl.int64), 0) - 1, 0)) << (30 - 3 * step)
    return tl.where(top_k <= B, prefix, 0)


@triton.jit(do_not_specialize=["V"])
def collect(
    work_ptr, peaks_ptr, sums_ptr, top_k_ptr, top_p_ptr, least_ptr, inv_temperature_ptr, ids_ptr, kept_ptr, V, B, C,
    MOST: tl.constexpr, CHUNK: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr, NUM: tl.constexpr,
    TILE: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """Of one chunk of one row: ids of the tokens that top_k or top_p may leave, ascending, and how many there are."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
    inv_temperature = tl.load(inv_temperature_ptr + row)
    if ((top_k > 0) | (top_p < 1.0)) & (inv_temperature > 0.0):
        blocks, chunks = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_C)
        peak = tl.max(tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")), 0)
        total = tl.sum(tl.load(sums_ptr + row * C + chunks, mask=chunks < C, other=0), 0)
        least = tl.maximum(tl.load(least_ptr + row), 1)
        bound = (top_k * 0).to(tl.int64)
        if top_k > 0:
            bound = _peak_bound(peaks_ptr, row, B, top_k, BLOCK_B, NUM)
        else:
            least = tl.maximum(least, (total - target_of(top_p, total)) // V)
        kept = 0
        for first in range(chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, V), TILE):
            ids = first + tl.arange(0, TILE)
            x = tl.load(work_ptr + row * V + ids, mask=ids < V, other=float("-inf"))
            x = tl.minimum(x, TOP)
            keep = (weigh(x, peak, inv_temperature) >= least) & (key_of(x) >= bound) & (ids < V)
            places = kept + tl.cumsum(keep.to(tl.int32), 0) - 1
            region = (row * C + chunk) * MOST
            tl.store(ids_ptr + region + places, ids, mask=keep & (places < MOST))
            kept += tl.sum(keep.to(tl.int32), 0)
        tl.store(kept_ptr + row * C + chunk, kept)


@triton.jit
def _gather_ids(ids_ptr, list_ptr, ends, kept, row, num, C, MOST: tl.constexpr, TILE: tl.constexpr):
    """The chunks' ids one behind the other."""
    for first in range(0, num, TILE):
        places = first + tl.arange(0, TILE)
        before = ends[None, :] <= places[:, None]
        chunk = tl.sum(before.to(tl.int32), 1)
        offset = places - tl.sum(tl.where(before, kept[None, :], 0), 1)
        ids = tl.load(ids_ptr + (row * C + chunk) * MOST + offset, mask=places < num, other=0)
        tl.store(list_ptr + row * C * MOST + places, ids, mask=places < num)


@triton.jit
def read_some(
    work_ptr, list_ptr, row, first, num, V, listed, LIST: tl.constexpr, TOP: tl.constexpr, TILE: tl.constexpr
):
    """(ids, logits) of `TILE` places of the list, or of the whole row; beyond `num` minus infinity."""
    places = first + tl.arange(0, TILE)
    inside = places < num
    ids = tl.load(list_ptr + row * LIST + places, mask=inside & listed, other=0)
    ids = tl.where(listed, ids, places)
    x = tl.load(work_ptr + row * V + ids, mask=inside, other=float("-inf"))
    return ids, tl.minimum(x, TOP)


@triton.jit
def _search(
    work_ptr, list_ptr, row, num, V, listed, peak, inv_temperature, least, above, target,
    BY_WEIGHT: tl.constexpr, LIST: tl.constexpr, TOP: tl.constexpr, NUM: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """(the largest key such that keys from it on, and above `above`, reach `target`; what lies above it)."""
    prefix = target * 0
    beyond = target * 0
    for step in range(11):
        tried = tries(prefix, 30 - 3 * step, NUM)
        reached = tl.zeros([NUM], tl.int64)
        for first in range(0, num, TILE):
            _ids, x = read_some(work_ptr, list_ptr, row, first, num, V, listed, LIST, TOP, TILE)
            weights = weigh(x, peak, inv_temperature)
            keys = key_of(x)
            counts = (weights >= least) & (keys > above)
            amounts = tl.where(counts, weights if BY_WEIGHT else tl.full([TILE], 1, tl.int64), 0)
            reached += tl.sum(tl.where(keys[None, :] >= tried[:, None], amounts[None, :], 0), 1)
        enough = tl.maximum(tl.sum((reached >= target).to(tl.int64), 0) - 1, 0)
        last = tl.sum(tl.where(tl.arange(0, NUM) == enough + 1, reached, 0), 0)
        beyond = tl.where(enough + 1 < NUM, last, beyond)  # keys from the next prefix on
        prefix += enough << (30 - 3 * step)
    return prefix, beyond


@triton.jit
def _weight_at(key, peak, inv_temperature):
    """The weight of a token whose logit has this key."""
    ordered = (key - 2147483648).to(tl.int32)
    bits = tl.where(ordered < 0, (-(ordered + 1)) | -2147483648, ordered)
    return weigh(bits.to(tl.float32, bitcast=True), peak, inv_temperature)


@triton.jit
def _sums(
    work_ptr, list_ptr, row, num, V, listed, peak, inv_temperature, least, above,
    LIST: tl.constexpr, TOP: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """(weight, number) of the tokens that weigh at least `least` and whose keys are above `above`."""
    total, count = above * 0, above * 0
    for first in range(0, num, TILE):
        _ids, x = read_some(work_ptr, list_ptr, row, first, num, V, listed, LIST, TOP, TILE)
        weights = weigh(x, peak, inv_temperature)
        counts = (weights >= least) & (key_of(x) > above)
        total += tl.sum(tl.where(counts, weights, 0), 0)
        count += tl.sum(counts.to(tl.int64), 0)
    return total, count


@triton.jit(do_not_specialize=["V"])
def cut(
    work_ptr, peaks_ptr, sums_ptr, top_k_ptr, top_p_ptr, least_ptr, inv_temperature_ptr, ids_ptr, list_ptr, kept_ptr,
    key_ptr, need_ptr, num_ptr, V, B, C, MOST: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_C: tl.constexpr,
    LIST: tl.constexpr, NUM: tl.constexpr, TILE: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """key, need: tokens above the key are in, of those at it the first `need`; num: how many are listed, -1: none."""
    row = tl.program_id(0).to(tl.int64)
    top_k, top_p = tl.load(top_k_ptr + row).to(tl.int64), tl.load(top_p_ptr + row)
    inv_t = tl.load(inv_temperature_ptr + row)
    if ((top_k > 0) | (top_p < 1.0)) & (inv_t > 0.0):
        blocks, chunks = tl.arange(0, BLOCK_B), tl.arange(0, BLOCK_C)
        peak = tl.max(tl.load(peaks_ptr + row * B + blocks, mask=blocks < B, other=float("-inf")), 0)
        total = tl.sum(tl.load(sums_ptr + row * C + chunks, mask=chunks < C, other=0), 0)
        least = tl.maximum(tl.load(least_ptr + row), 1)
        kept = tl.load(kept_ptr + row * C + chunks, mask=chunks < C, other=0)
        listed = tl.max(kept, 0) <= MOST
        num = tl.where(listed, tl.sum(kept, 0), V)
        if listed:
            _gather_ids(ids_ptr, list_ptr, tl.cumsum(kept, 0), kept, row, num, C, MOST, TILE)
            tl.debug_barrier()
        nothing = top_k * 0
        key, above, need, heavier = nothing, nothing - 1, nothing, total
        if top_k > 0:
            total, count = _sums(work_ptr, list_ptr, row, num, V, listed, peak, inv_t, least, above, LIST, TOP, TILE)
            heavier = total
            if top_k < count:
                key, beyond = _search(
                    work_ptr, list_ptr, row, num, V, listed, peak, inv_t, least, above, top_k,
                    False, LIST, TOP, NUM, TILE,
                )  # fmt: skip
                above, need = key, top_k - beyond
                heavier, _count = _sums(
                    work_ptr, list_ptr, row, num, V, listed, peak, inv_t, least, above, LIST, TOP, TILE
                )
                total = heavier + need * _weight_at(key, peak, inv_t)
        if top_p < 1.0:
            target, beyond = target_of(top_p, total), heavier
            if target <= heavier:
                key, beyond = _search(
                    work_ptr, list_ptr, row, num, V, listed, peak, inv_t, least, above, target,
                    True, LIST, TOP, NUM, TILE,
                )  # fmt: skip
            weight = tl.maximum(_weight_at(key, peak, inv_t), 1)
            need = (target - beyond + weight - 1) // weight
        tl.store(key_ptr + row, key)
        tl.store(need_ptr + row, need)
        tl.store(num_ptr + row, tl.where(listed, num, -1))
