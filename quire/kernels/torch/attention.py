"""Causal attention over the paged cache, one sequence after the other.

Knows: pages, torch's own attention. Does not know: prompts, decoding.

Legend: T tokens, S sequences, Q query heads, G kv heads, D head_dim, B blocks a table row, M queries and J keys of one
sequence.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from quire.kernels.torch.pages import Pages


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
    """The contract of `ops/attention.py`: q and out of any float dtype, computed in float32 from the values as stored.

    It asks for the lengths on the host, so on a GPU it waits for the device at every layer.
    """
    out_TQD = out_T_QD.view(q_TQD.shape)
    for rows, k_JGD, v_JGD in sequences(pages, layer, query_starts_S1, seq_lens_S, block_tables_SB):
        out_TQD[rows] = attended(q_TQD[rows].float(), k_JGD, v_JGD, scale).to(out_TQD.dtype)


def sequences(
    pages: Pages, layer: int, query_starts_S1: Tensor, seq_lens_S: Tensor, block_tables_SB: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Of each sequence its rows among the queries, its keys and its values [J, G, D]."""
    starts, lengths = query_starts_S1.tolist(), seq_lens_S.tolist()
    for seq, num_keys in enumerate(lengths):
        blocks = block_tables_SB[seq, : -(-num_keys // pages.block_size)]
        yield slice(starts[seq], starts[seq + 1]), *pages.rows(layer, blocks, num_keys)


def attended(q_MQD: Tensor, k_JGD: Tensor, v_JGD: Tensor, scale: float) -> Tensor:
    """[M, Q, D]: query m, the (J - M + m)-th position, sees the keys up to its own."""
    num_queries, num_keys = len(q_MQD), len(k_JGD)
    own_M1 = torch.arange(num_keys - num_queries, num_keys, device=q_MQD.device)[:, None]
    visible_MJ = torch.arange(num_keys, device=q_MQD.device) <= own_M1
    q, k, v = (x.transpose(0, 1)[None] for x in (q_MQD, k_JGD, v_JGD))
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=visible_MJ, scale=scale, enable_gqa=True)
    return mixed[0].transpose(0, 1)
