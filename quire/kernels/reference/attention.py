"""Knows: the definition of causal attention over a paged cache. Does not know: tiles, splits, online softmax.

Legend: T tokens, S sequences, Q query heads, G kv heads, D head_dim, B blocks per table row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quire.kernels.reference.kv_cache import Float32, ReferenceKVCache, round_bf16

Int32 = npt.NDArray[np.int32]


def softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """exp(x - max) / sum over the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def attention(
    q_TQD: Float32,
    kv: ReferenceKVCache,
    layer: int,
    query_starts_S1: Int32,
    seq_lens_S: Int32,
    block_tables_SB: Int32,
    scale: float,
    out_T_QD: Float32,
) -> None:
    """The same contract as quire.ops.attention.attention, on a ReferenceKVCache; float64 inside.

    With bfloat16 pages q is rounded to bfloat16 first, as the kernels do; the softmax weights are not. (With int8 pages
    the kernels round q to 15 bits: too fine to matter here.)
    """
    for seq, num_keys in enumerate(seq_lens_S):
        begin, end = int(query_starts_S1[seq]), int(query_starts_S1[seq + 1])
        k, v = kv.rows(layer, block_tables_SB[seq], int(num_keys))
        group = q_TQD.shape[1] // kv.num_kv_heads
        k, v = np.repeat(k, group, axis=1).astype(np.float64), np.repeat(v, group, axis=1).astype(np.float64)
        for row in range(begin, end):
            visible = int(num_keys) - (end - 1 - row)
            q = (round_bf16(q_TQD[row]) if kv.dtype == "bfloat16" else q_TQD[row]).astype(np.float64)
            weights_QJ = softmax(np.einsum("qd,jqd->qj", q, k[:visible]) * scale)
            out_T_QD[row] = np.einsum("qj,jqd->qd", weights_QJ, v[:visible]).reshape(-1).astype(np.float32)
