"""The gated activation of a SwiGLU network.

    a program takes 1024 columns of one row: 8 elements a thread of four warps, one load of 16 bytes from each half

Bound by memory. Products of few rows do it on their way in (`linear.py`), where it costs no launch and no memory.

Knows: rows. Does not know: layers.

Legend: T rows, I columns of either half.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def gate(gate_, up):
    """silu(gate) * up, float32."""
    return gate_ / (1.0 + tl.exp(-gate_)) * up


@triton.jit
def _silu_mul(gate_up_ptr, out_ptr, num_columns, BLOCK_I: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_I + tl.arange(0, BLOCK_I)
    inside = columns < num_columns
    first = gate_up_ptr + row * 2 * num_columns + columns
    gate_ = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(first + num_columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * num_columns + columns, gate(gate_, up).to(out_ptr.dtype.element_ty), mask=inside)


def silu_mul(gate_up_T2I: Tensor, out_TI: Tensor) -> None:
    """The contract of `ops/silu_mul.py`; any float dtype, computed in float32."""
    num_rows, num_columns = out_TI.shape
    if num_rows:
        _silu_mul[(num_rows, triton.cdiv(num_columns, BLOCK))](gate_up_T2I, out_TI, num_columns, BLOCK)
