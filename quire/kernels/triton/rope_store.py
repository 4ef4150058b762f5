"""Per-head norm, rotation of queries and keys, and the store of keys and values, in one pass over a row.

    program (token, some heads): a tile [heads, D / 2] of first halves and one of second halves; queries, keys and
    values differ by masks alone, so all heads of a row are spread evenly over programs of one shape

Eight heads of 128 are 512 elements a half, four a thread of four warps. Bound by memory (8192 tokens of Llama-3.1-8B
in bfloat16: 201 MB in and out, 47 us at 4.3 TB/s) and below some hundred tokens by the launch; with norms, rotation
and stores apart it would be five launches.

Knows: pages. Does not know: which positions a step computes.

Legend: T tokens, N = (Q + 2G) * D columns, Q query heads, G kv heads, D head_dim, H heads of a tile, P rows of the
rope table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from quire.kernels.torch.pages import Pages

BLOCK_HEADS = 8
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@triton.jit
def _norm(x1, x2, heads, Q, D, q_norm_ptr, k_norm_ptr, eps, halves, inside, HAS_Q: tl.constexpr, HAS_K: tl.constexpr):
    """Both halves of every head by its root mean square, queries and keys with a weight of their own."""
    scale = tl.rsqrt((tl.sum(x1 * x1, 1) + tl.sum(x2 * x2, 1)) / D + eps)[:, None]
    half = D // 2
    if HAS_Q:
        is_q = (heads < Q)[:, None]
        w1 = tl.load(q_norm_ptr + halves, mask=inside, other=0.0)[None, :]
        w2 = tl.load(q_norm_ptr + half + halves, mask=inside, other=0.0)[None, :]
        x1, x2 = tl.where(is_q, x1 * scale * w1, x1), tl.where(is_q, x2 * scale * w2, x2)
    if HAS_K:
        is_k = (heads >= Q)[:, None]
        w1 = tl.load(k_norm_ptr + halves, mask=inside, other=0.0)[None, :]
        w2 = tl.load(k_norm_ptr + half + halves, mask=inside, other=0.0)[None, :]
        x1, x2 = tl.where(is_k, x1 * scale * w1, x1), tl.where(is_k, x2 * scale * w2, x2)
    return x1, x2


@triton.jit
def _rounded(x1, x2, LARGEST_Q: tl.constexpr, IS_INT: tl.constexpr):
    """Both halves over their head's scale, whole numbers for int8, and the scale: NaN where a head is not finite."""
    top = tl.maximum(tl.max(tl.abs(x1), 1), tl.max(tl.abs(x2), 1))
    total = tl.sum(x1 * 0.0 + x2 * 0.0, 1)  # NaN where anything is not finite: a maximum may pass NaN by
    finite = total == 0.0
    scale = tl.where(finite, tl.maximum(tl.div_rn(top, LARGEST_Q), 7.888609052210118e-31), 1.0)  # 2**-100
    inverse = tl.div_rn(1.0, scale)[:, None]
    x1, x2 = tl.where(finite[:, None], x1 * inverse, 0.0), tl.where(finite[:, None], x2 * inverse, 0.0)
    if IS_INT:
        x1, x2 = (x1 + 12582912.0) - 12582912.0, (x2 + 12582912.0) - 12582912.0  # 1.5 * 2**23: to nearest, ties to even
    x1 = tl.minimum(tl.maximum(x1, -LARGEST_Q), LARGEST_Q)
    x2 = tl.minimum(tl.maximum(x2, -LARGEST_Q), LARGEST_Q)
    return x1, x2, tl.where(finite, scale, float("nan"))


@triton.jit
def _tell_flaw(y1, y2, heads, inside, token, Q, G, flaws_ptr):
    """1 in elements 0 and 1 + token where a key or value of these heads is not finite; nothing where all are."""
    kept = ((heads >= Q) & (heads < Q + 2 * G))[:, None] & inside[None, :]
    wrong = ((y1 - y1 != 0.0) | (y2 - y2 != 0.0)) & kept
    flawed = tl.max(tl.max(wrong.to(tl.int32), 1), 0) != 0
    tl.store(flaws_ptr, 1, mask=flawed)
    tl.store(flaws_ptr + 1 + token, 1, mask=flawed)


@triton.jit
def _rope_store(
    qkv_ptr, positions_ptr, slots_ptr, cos_ptr, sin_ptr, q_norm_ptr, k_norm_ptr, eps, q_out_ptr,
    keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr, flaws_ptr, Q, G, D,
    HAS_Q_NORM: tl.constexpr, HAS_K_NORM: tl.constexpr, FLAWS: tl.constexpr, LARGEST_Q: tl.constexpr,
    IS_INT: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D2: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    halves, half = tl.arange(0, BLOCK_D2), D // 2
    inside = halves < half
    mask = (heads < Q + 2 * G)[:, None] & inside[None, :]
    places = heads[:, None] * D + halves[None, :]
    row_ptr = qkv_ptr + token * (Q + 2 * G) * D
    raw1 = tl.load(row_ptr + places, mask=mask, other=0.0).to(tl.float32)
    raw2 = tl.load(row_ptr + half + places, mask=mask, other=0.0).to(tl.float32)
    x1, x2 = raw1, raw2
    if HAS_Q_NORM or HAS_K_NORM:
        x1, x2 = _norm(x1, x2, heads, Q, D, q_norm_ptr, k_norm_ptr, eps, halves, inside, HAS_Q_NORM, HAS_K_NORM)
    position = tl.load(positions_ptr + token).to(tl.int64)
    cos = tl.load(cos_ptr + position * half + halves, mask=inside, other=0.0)[None, :]
    sin = tl.load(sin_ptr + position * half + halves, mask=inside, other=0.0)[None, :]
    is_value = (heads >= Q + G)[:, None]
    y1, y2 = tl.where(is_value, raw1, x1 * cos - x2 * sin), tl.where(is_value, raw2, x2 * cos + x1 * sin)
    if FLAWS:
        _tell_flaw(y1, y2, heads, inside, token, Q, G, flaws_ptr)
    is_query = mask & (heads < Q)[:, None]
    out_ptr = q_out_ptr + token * Q * D + places
    tl.store(out_ptr, y1.to(q_out_ptr.dtype.element_ty), mask=is_query)
    tl.store(out_ptr + half, y2.to(q_out_ptr.dtype.element_ty), mask=is_query)
    slot = tl.load(slots_ptr + token).to(tl.int64)
    is_key, is_value = (heads >= Q) & (heads < Q + G), (heads >= Q + G) & (heads < Q + 2 * G)
    head = tl.where(is_value, heads - Q - G, heads - Q)
    if LARGEST_Q > 0:
        y1, y2, scale = _rounded(y1, y2, LARGEST_Q, IS_INT)
        tl.store(key_scales_ptr + slot * G + head, scale, mask=is_key)
        tl.store(value_scales_ptr + slot * G + head, scale, mask=is_value)
    z1, z2 = y1.to(keys_ptr.dtype.element_ty), y2.to(keys_ptr.dtype.element_ty)
    places = slot * G * D + head[:, None] * D + halves[None, :]
    tl.store(keys_ptr + places, z1, mask=is_key[:, None] & inside[None, :])
    tl.store(keys_ptr + half + places, z2, mask=is_key[:, None] & inside[None, :])
    tl.store(values_ptr + places, z1, mask=is_value[:, None] & inside[None, :])
    tl.store(values_ptr + half + places, z2, mask=is_value[:, None] & inside[None, :])


def rope_store(
    qkv_TN: Tensor,
    positions_T: Tensor,
    slots_T: Tensor,
    cos_PD2: Tensor,
    sin_PD2: Tensor,
    pages: Pages,
    layer: int,
    q_norm_D: Tensor | None,
    k_norm_D: Tensor | None,
    eps: float,
    q_out_TQD: Tensor,
    flaws_T1: Tensor | None = None,
) -> None:
    """The contract of `ops/rope_store.py`: qkv and q_out of any float dtype, tables and norms float32, positions and
    slots int32; everything between is float32. `flaws_T1` gets 1 in elements 0 and 1 + t where a key or value of row t
    is not finite."""
    num_tokens, num_heads, head_dim = q_out_TQD.shape
    if num_tokens == 0:
        return
    data, scales = pages.data[layer], pages.scales
    key_scales, value_scales = (None, None) if scales is None else (scales[layer, 0], scales[layer, 1])
    num_kv_heads = data.shape[3]
    grid = (num_tokens, triton.cdiv(num_heads + 2 * num_kv_heads, BLOCK_HEADS))
    _rope_store[grid](
        qkv_TN, positions_T, slots_T, cos_PD2, sin_PD2, q_norm_D, k_norm_D, eps, q_out_TQD,
        data[0], data[1], key_scales, value_scales, flaws_T1, num_heads, num_kv_heads, head_dim,
        q_norm_D is not None, k_norm_D is not None, flaws_T1 is not None,
        0.0 if scales is None else LARGEST[data.dtype], data.dtype == torch.int8,
        BLOCK_HEADS, triton.next_power_of_2(head_dim // 2),
    )  # fmt: skip
