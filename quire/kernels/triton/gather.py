"""Chosen rows.

    a program moves 1024 columns of one row; bound by memory, and by the launch where a step draws from few rows

Knows: rows. Does not know: why these.

Legend: T rows, R chosen rows, H columns.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _gather(x_ptr, rows_ptr, out_ptr, H, BLOCK_H: tl.constexpr):
    place = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    row = tl.load(rows_ptr + place).to(tl.int64)
    x = tl.load(x_ptr + row * H + columns, mask=columns < H)
    tl.store(out_ptr + place * H + columns, x.to(out_ptr.dtype.element_ty), mask=columns < H)


def gather_rows(x_TH: Tensor, rows_R: Tensor, out_RH: Tensor) -> None:
    """out[r] = x[rows[r]]; rows int32, x and out of any dtype."""
    num_rows, num_columns = out_RH.shape
    if num_rows:
        _gather[(num_rows, triton.cdiv(num_columns, BLOCK))](x_TH, rows_R, out_RH, num_columns, BLOCK)
