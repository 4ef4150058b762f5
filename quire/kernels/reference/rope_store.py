"""Knows: the definition of per-head RMS norm, rotate-half rope and the store of K and V. Does not know: speed.

Legend: T tokens, N = (Q + 2G) * D columns, Q query heads, G kv heads, D head_dim, P table rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quire.kernels.reference.kv_cache import Float32, ReferenceKVCache

Int32 = npt.NDArray[np.int32]


def norm_heads(x_THD: Float32, weight_D: Float32, eps: float) -> Float32:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float64, rounded to float32 at the end."""
    x = x_THD.astype(np.float64)
    scaled = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight_D
    return scaled.astype(np.float32)


def rotate_half(x_THD: Float32, cos_TD2: Float32, sin_TD2: Float32) -> Float32:
    """With x = (x1, x2) split in the middle of the head: (x1*cos - x2*sin, x2*cos + x1*sin).

    The convention of Hugging Face checkpoints (RoFormer, arXiv 2104.09864, with the pairs (i, i + D/2)).
    """
    half = x_THD.shape[-1] // 2
    x1, x2 = x_THD[..., :half].astype(np.float64), x_THD[..., half:].astype(np.float64)
    cos, sin = cos_TD2[:, None, :].astype(np.float64), sin_TD2[:, None, :].astype(np.float64)
    return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(np.float32)


def rope_store(
    qkv_TN: Float32,
    positions_T: Int32,
    slots_T: Int32,
    cos_PD2: Float32,
    sin_PD2: Float32,
    kv: ReferenceKVCache,
    layer: int,
    q_norm_D: Float32 | None,
    k_norm_D: Float32 | None,
    eps: float,
    q_out_TQD: Float32,
) -> None:
    """The same contract as quire.ops.rope_store.rope_store, on a ReferenceKVCache."""
    num_tokens, head_dim, num_kv_heads = len(qkv_TN), kv.head_dim, kv.num_kv_heads
    heads = qkv_TN.reshape(num_tokens, -1, head_dim)
    num_query_heads = heads.shape[1] - 2 * num_kv_heads
    q, k, v = np.split(heads, [num_query_heads, num_query_heads + num_kv_heads], axis=1)
    if q_norm_D is not None:
        q = norm_heads(q, q_norm_D, eps)
    if k_norm_D is not None:
        k = norm_heads(k, k_norm_D, eps)
    cos, sin = cos_PD2[positions_T], sin_PD2[positions_T]
    q_out_TQD.reshape(q.shape)[:] = rotate_half(q, cos, sin)
    k = rotate_half(k, cos, sin)
    for row, slot in enumerate(slots_T):
        kv.store(layer, int(slot), k[row], v[row])
