"""The same ops so that a row's bits depend on the row alone, not on how many stand beside it.

    products, norms    always `ROWS` rows at a time, the last ones filled up with zeros: one shape, so one kernel and
                       one order of adding, whatever the step holds
    attention          `ROWS` queries of one sequence at a time against tiles of `KEYS` keys that begin at fixed
                       positions; one running softmax over the tiles, ascending

Knows: the plain ops. Does not know: what the difference costs (`benchmarks/batch_invariant.py` measures it).

Legend: T rows, K inputs, N outputs, Q query heads, G kv heads, D head_dim, M queries of a chunk, J keys of a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.torch import attention as plain_attention
from quire.kernels.torch import linear as plain_linear
from quire.kernels.torch import rms_norm as plain_rms_norm
from quire.kernels.torch import rope_store as plain_rope_store
from quire.kernels.torch.pages import Pages
from quire.kernels.torch.weight import Weight

ROWS = 64
KEYS = 128


def linear(
    x_TK: Tensor,
    weight: Weight,
    out_TN: Tensor,
    bias_N: Tensor | None = None,
    accumulate: bool = False,
    norm_weight_K: Tensor | None = None,
    eps: float = 0.0,
    silu: bool = False,
) -> None:
    """As `linear.linear`."""
    for rows in _chunks(len(x_TK)):
        x, out = _filled(x_TK[rows]), _filled(out_TN[rows])
        plain_linear.linear(x, weight, out, bias_N, accumulate, norm_weight_K, eps, silu)
        out_TN[rows] = out[: len(out_TN[rows])]


def rms_norm(x_TH: Tensor, weight_H: Tensor, eps: float, out_TH: Tensor) -> None:
    """As `rms_norm.rms_norm`."""
    for rows in _chunks(len(x_TH)):
        x = _filled(x_TH[rows])
        plain_rms_norm.rms_norm(x, weight_H, eps, x)
        out_TH[rows] = x[: len(out_TH[rows])]


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
    """As `rope_store.rope_store`: only heads' norms add anything up, over as many heads in every chunk."""
    for rows in _chunks(len(qkv_TN)):
        heads = plain_rope_store.heads_of(_filled(qkv_TN[rows]), pages, q_norm_D, k_norm_D, eps)
        q_TQD, k_TGD, v_TGD = (x[: len(qkv_TN[rows])] for x in heads)
        plain_rope_store.rotate_and_store(
            q_TQD, k_TGD, v_TGD, positions_T[rows], slots_T[rows], cos_PD2, sin_PD2,
            pages, layer, q_out_TQD[rows], flaws_T1, rows.start,
        )  # fmt: skip


def attention(
    q_TQD: Tensor,
    pages: Pages,
    layer: int,
    query_starts_S1: Tensor,
    seq_lens_S: Tensor,
    block_tables_SB: Tensor,
    scale: float,
    out_T_QD: Tensor,
) -> None:
    """As `attention.attention`."""
    out_TQD = out_T_QD.view(q_TQD.shape)
    for own_rows, k_JGD, v_JGD in plain_attention.sequences(pages, layer, query_starts_S1, seq_lens_S, block_tables_SB):
        to_position = len(k_JGD) - own_rows.stop
        for begin in range(own_rows.start, own_rows.stop, ROWS):
            rows = slice(begin, min(begin + ROWS, own_rows.stop))
            positions = begin + to_position, rows.stop + to_position
            mixed = attended(_filled(q_TQD[rows]).float(), k_JGD, v_JGD, *positions, scale)
            out_TQD[rows] = mixed[: len(q_TQD[rows])].to(out_TQD.dtype)


def attended(q_MQD: Tensor, k_JGD: Tensor, v_JGD: Tensor, own: int, end: int, scale: float) -> Tensor:
    """[M, Q, D]: query m stands at position own + m; keys from `end` on are nobody's."""
    num_queries, num_heads, head_dim = q_MQD.shape
    num_kv_heads = k_JGD.shape[1]
    q = q_MQD.view(num_queries, num_kv_heads, -1, head_dim).permute(1, 2, 0, 3)
    q = q.reshape(num_kv_heads, -1, head_dim) * scale  # [G, Q/G * M, D]
    largest = q.new_full((*q.shape[:2], 1), -torch.inf)
    total, mixed = torch.zeros_like(largest), torch.zeros_like(q)
    own_M = torch.arange(own, own + num_queries, device=q.device).repeat(q.shape[1] // num_queries)
    for first in range(0, end, KEYS):
        k, v = (_filled(x[first : first + KEYS], KEYS).transpose(0, 1) for x in (k_JGD, v_JGD))
        hidden = torch.arange(first, first + KEYS, device=q.device) > own_M[:, None]
        scores = torch.bmm(q, k.transpose(1, 2)).masked_fill(hidden, -torch.inf)
        peak = torch.maximum(largest, scores.amax(dim=2, keepdim=True))
        weights, keep = torch.exp(scores - peak), torch.exp(largest - peak)
        total = total * keep + weights.sum(dim=2, keepdim=True)
        mixed = mixed * keep + torch.bmm(weights, v)
        largest = peak
    mixed = (mixed / total).view(num_kv_heads, -1, num_queries, head_dim)
    return mixed.permute(2, 0, 1, 3).reshape(num_queries, num_heads, head_dim)


def _chunks(num_rows: int) -> list[slice]:
    return [slice(first, min(first + ROWS, num_rows)) for first in range(0, num_rows, ROWS)]


def _filled(x: Tensor, num_rows: int = ROWS) -> Tensor:
    """A copy of `num_rows` rows, zeros after those there are."""
    filled = x.new_zeros((num_rows, *x.shape[1:]))
    filled[: len(x)] = x
    return filled
