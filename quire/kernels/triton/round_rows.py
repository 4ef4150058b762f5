"""Rows rounded to int8 or fp8 (e4m3), with a scale each: their largest / 127 or 448.

Knows: rows. Does not know: what they are multiplied with.

Legend: T rows, K columns.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.triton.rms_norm import warps_of

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@triton.jit
def _round_rows(x_ptr, q_ptr, scales_ptr, K, LARGEST_Q: tl.constexpr, IS_INT: tl.constexpr, BLOCK_K: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK_K)
    x = tl.load(x_ptr + row * K + columns, mask=columns < K, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 0) / LARGEST_Q, 7.888609052210118e-31)  # 2**-100: rows of zeros
    x = tl.minimum(tl.maximum(x * (1.0 / scale), -LARGEST_Q), LARGEST_Q)
    if IS_INT:
        x = (x + 12582912.0) - 12582912.0  # 1.5 * 2**23: to nearest, ties to even
    tl.store(q_ptr + row * K + columns, x.to(q_ptr.dtype.element_ty), mask=columns < K)
    tl.store(scales_ptr + row, scale)


def round_rows(x_TK: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(q [T, K] of `dtype`, scale [T] float32) with q * scale ~ x."""
    num_rows, num_columns = x_TK.shape
    q_TK = torch.empty((num_rows, num_columns), dtype=dtype, device=x_TK.device)
    scales_T = torch.empty(num_rows, dtype=torch.float32, device=x_TK.device)
    block = triton.next_power_of_2(num_columns)
    _round_rows[(num_rows,)](
        x_TK, q_TK, scales_T, num_columns, LARGEST[dtype], dtype == torch.int8, block, num_warps=warps_of(block)
    )
    return q_TK, scales_T
