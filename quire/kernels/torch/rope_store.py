"""Per-head norm, rotation of queries and keys, and the store of keys and values.

Knows: pages. Does not know: which positions a step computes.

Legend: T tokens, N = (Q + 2G) * D columns, Q query heads, G kv heads, D head_dim, P rows of the rope table.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.torch.pages import Pages
from quire.kernels.torch.rms_norm import normed


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
    slots int32; everything between is float32."""
    heads = heads_of(qkv_TN, pages, q_norm_D, k_norm_D, eps)
    rotate_and_store(*heads, positions_T, slots_T, cos_PD2, sin_PD2, pages, layer, q_out_TQD, flaws_T1)


def heads_of(
    qkv_TN: Tensor, pages: Pages, q_norm_D: Tensor | None, k_norm_D: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [T, Q, D], keys and values [T, G, D] in float32, normed where there is a norm."""
    num_kv_heads, head_dim = pages.data.shape[4:]
    heads = qkv_TN.float().unflatten(1, (-1, head_dim))
    q_TQD, k_TGD, v_TGD = heads.split([heads.shape[1] - 2 * num_kv_heads, num_kv_heads, num_kv_heads], dim=1)
    if q_norm_D is not None:
        q_TQD = normed(q_TQD, q_norm_D, eps)
    if k_norm_D is not None:
        k_TGD = normed(k_TGD, k_norm_D, eps)
    return q_TQD, k_TGD, v_TGD


def rotate_and_store(
    q_TQD: Tensor,
    k_TGD: Tensor,
    v_TGD: Tensor,
    positions_T: Tensor,
    slots_T: Tensor,
    cos_PD2: Tensor,
    sin_PD2: Tensor,
    pages: Pages,
    layer: int,
    q_out_TQD: Tensor,
    flaws_T1: Tensor | None,
    first: int = 0,
) -> None:
    """Queries to `q_out_TQD`, keys and values to their slots; these are rows `first` and on of those in `flaws_T1`."""
    cos_T1D2, sin_T1D2 = cos_PD2[positions_T][:, None], sin_PD2[positions_T][:, None]
    q_out_TQD.copy_(rotated(q_TQD, cos_T1D2, sin_T1D2))
    k_TGD = rotated(k_TGD, cos_T1D2, sin_T1D2)
    pages.store(layer, 0, slots_T, k_TGD)
    pages.store(layer, 1, slots_T, v_TGD)
    mark_flaws(flaws_T1, first, k_TGD, v_TGD)


def mark_flaws(flaws_T1: Tensor | None, first: int, k_TGD: Tensor, v_TGD: Tensor) -> None:
    """1 in elements 0 and 1 + t where row t, counted from `first`, is not finite; the device is not asked."""
    if flaws_T1 is None:
        return
    flawed_T = ~(k_TGD.isfinite() & v_TGD.isfinite()).flatten(1).all(dim=1)
    flaws_T1[1 + first : 1 + first + len(flawed_T)].masked_fill_(flawed_T, 1)
    flaws_T1[:1].masked_fill_(flawed_T.any(), 1)


def rotated(x_THD: Tensor, cos_T1D2: Tensor, sin_T1D2: Tensor) -> Tensor:
    """With x = (x1, x2), the halves of a head: (x1*cos - x2*sin, x2*cos + x1*sin)."""
    x1, x2 = x_THD.chunk(2, dim=-1)
    return torch.cat([x1 * cos_T1D2 - x2 * sin_T1D2, x2 * cos_T1D2 + x1 * sin_T1D2], dim=-1)
