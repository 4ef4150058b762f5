"""Rows of an embedding matrix, widened from whatever it is held in.

    a program makes 1024 columns of one row; of int4 each byte is read twice, from L1 the second time

Knows: the weight's layout. Does not know: tokens' text.

Legend: T tokens, N rows of the matrix, K its columns, C groups of columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from quire.kernels.torch.weight import Weight

BLOCK = 1024


@triton.jit
def _embed(
    ids_ptr, data_ptr, scales_ptr, offsets_ptr, out_ptr, K, ROW, C, GROUP,
    IS_INT4: tl.constexpr, HAS_SCALES: tl.constexpr, HAS_OFFSETS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = columns < K
    row = tl.load(ids_ptr + token).to(tl.int64)
    if IS_INT4:
        pairs = tl.load(data_ptr + row * ROW + columns // 2, mask=inside, other=0).to(tl.int32)
        x = ((pairs >> (columns % 2 * 4)) & 15).to(tl.float32)
        if not HAS_OFFSETS:
            x -= 8.0
    else:
        x = tl.load(data_ptr + row * ROW + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_SCALES:
        x *= tl.load(scales_ptr + row * C + columns // GROUP, mask=inside, other=0.0).to(tl.float32)
    if HAS_OFFSETS:
        x += tl.load(offsets_ptr + row * C + columns // GROUP, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + token * K + columns, x.to(out_ptr.dtype.element_ty), mask=inside)


def embed(ids_T: Tensor, weight: Weight, out_TH: Tensor) -> None:
    """out[t] = W[ids[t]]; ids int32, out of any float dtype."""
    num_tokens = len(ids_T)
    if num_tokens == 0:
        return
    scales, offsets = weight.scales_NC, weight.offsets_NC
    _embed[(num_tokens, triton.cdiv(weight.k, BLOCK))](
        ids_T, weight.data, scales, offsets, out_TH, weight.k, weight.data.shape[1],
        1 if scales is None else scales.shape[1], weight.group_size or weight.k,
        weight.dtype == "int4", scales is not None, offsets is not None, BLOCK,
    )  # fmt: skip
