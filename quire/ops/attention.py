"""Causal attention over the paged cache.

Knows: its contract. Does not know: prompts, decoding.

Legend: T tokens, S sequences, Q query heads, G kv heads, D head_dim, B blocks per table row.
"""

from __future__ import annotations

from typing import Any, Protocol

from quire.ops.device import Device
from quire.ops.kv_cache import KVCache


class PlannedAttention(Protocol):
    """Attention of a step that was planned on the host, by a device that has such."""

    def attend(self, q_TQD: Any, pages: Any, layer: int, scale: float, out_T_QD: Any) -> None:
        """The contract of `attention`, for the step that was planned."""
        ...


def attention(
    device: Device,
    q_TQD: Any,
    kv: KVCache,
    layer: int,
    query_starts_S1: Any,
    seq_lens_S: Any,
    block_tables_SB: Any,
    scale: float,
    out_T_QD: Any,
    planned: PlannedAttention | None = None,
) -> None:
    """out[t, q] = sum_j softmax_j(scale * q[t, q] . k[j, q // (Q/G)]) * v[j, q // (Q/G)], j up to row t's own position.

    Sequence s owns rows query_starts[s] to query_starts[s + 1] of q, the last positions of its seq_lens[s] tokens,
    whose keys and values all lie in the cache already (rope_store); block_tables[s] names its blocks in order,
    entries beyond its length are not looked at. One launch serves prompt chunks and single tokens together; pages with
    which several single tokens' sequences begin are read once for them. q, out float32; the rest int32; all
    contiguous.

    A row's bits depend on its own q and on keys and values up to its position alone: not on its neighbours, the
    chunk, the block ids or the number of threads. With bfloat16 pages q and the softmax weights are rounded to
    bfloat16, with int8 pages to 15 and 16 bits; sums are float32, within 128 keys of int8 pages exact. Raises TypeError
    for another type or layout, ValueError for shapes or indices that do not fit. With `planned`, which the device made
    of the same step (`Device.plan_attention`), that computes it.
    """
    if planned is not None:
        planned.attend(q_TQD, kv.pages, layer, scale, out_T_QD)
        return
    device.kernels.attention(q_TQD, kv.pages, layer, query_starts_S1, seq_lens_S, block_tables_SB, scale, out_T_QD)
