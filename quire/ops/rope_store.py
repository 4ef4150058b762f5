"""Rotary embedding and the store of keys and values.

Knows: its contract. Does not know: which positions a step computes.

Legend: T tokens, N = (Q + 2G) * D columns, Q query heads, G kv heads, D head_dim, P rows of the rope table.
"""

from __future__ import annotations

from typing import Any

from quire.ops.device import Device
from quire.ops.kv_cache import KVCache


def rope_store(
    device: Device,
    qkv_TN: Any,
    positions_T: Any,
    slots_T: Any,
    cos_PD2: Any,
    sin_PD2: Any,
    kv: KVCache,
    layer: int,
    q_norm_D: Any,
    k_norm_D: Any,
    eps: float,
    q_out_TQD: Any,
    flaws_T1: Any | None = None,
) -> None:
    """Norm (if weights are given) and rotate q and k of every token; q goes to `q_out_TQD`, k and v to their slot of
    `layer`.

    A row of qkv_TN (float32) is [Q*D q | G*D k | G*D v]. norm: x / sqrt(mean(x^2) + eps) * weight, per head.
    rotation: with x = (x1, x2), the halves of a head, (x1*cos - x2*sin, x2*cos + x1*sin), cos and sin (float32) by
    the token's position. slot = block * block_size + offset; positions and slots are int32, slots distinct. With
    bfloat16 pages k and v are rounded once, to nearest even; with int8 pages to integers times the head's scale, its
    largest / 127. Where k or v of row t is not finite, `flaws_T1` (int32, T + 1 elements, left as it is otherwise) gets
    1 in elements 0 and 1 + t. All arrays contiguous. Raises TypeError for another type or layout, ValueError for shapes
    that do not fit, a position outside the table, a slot outside the cache (before anything is written).
    """
    device.kernels.rope_store(
        qkv_TN, positions_T, slots_T, cos_PD2, sin_PD2, kv.pages, layer, q_norm_D, k_norm_D, eps, q_out_TQD, flaws_T1
    )
