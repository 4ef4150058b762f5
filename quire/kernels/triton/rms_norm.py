"""Root-mean-square normalisation of rows, with or without the residual added first.

    one program a row; the row stays in registers, so it is read once and written once

Bound by memory from some hundred rows on (H200: 8192 rows of 4096 in bfloat16 are 134 MB, 31 us at 4.3 TB/s); below
that by the launch (2 us), which is why products of few rows normalise on their way in (`linear.py`) and this is for
many.

Knows: rows. Does not know: layers.

Legend: T rows, H columns.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm(x_ptr, delta_ptr, weight_ptr, out_ptr, eps, H, HAS_DELTA: tl.constexpr, BLOCK_H: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK_H)
    inside = columns < H
    x = tl.load(x_ptr + row * H + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_DELTA:
        x += tl.load(delta_ptr + row * H + columns, mask=inside, other=0.0).to(tl.float32)
        held = x.to(x_ptr.dtype.element_ty)
        tl.store(x_ptr + row * H + columns, held, mask=inside)
        x = held.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / H + eps)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * H + columns, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


def rms_norm(x_TH: Tensor, weight_H: Tensor, eps: float, out_TH: Tensor, delta_TH: Tensor | None = None) -> None:
    """The contract of `ops/rms_norm.py`; x and out of any float dtype, computed in float32; out may be x.

    With `delta_TH` x becomes x + delta, rounded to x's dtype, and that is what is normalised; out is then not x.
    """
    num_rows, num_columns = x_TH.shape
    if num_rows == 0:
        return
    block = triton.next_power_of_2(num_columns)
    _rms_norm[(num_rows,)](
        x_TH, delta_TH, weight_H, out_TH, eps, num_columns, delta_TH is not None, block, num_warps=warps_of(block)
    )  # fmt: skip


def warps_of(block: int) -> int:
    """Warps for a row of `block` columns: 16 elements a thread, two loads of 16 bytes in bfloat16; 1 to 16."""
    return min(max(block // 512, 1), 16)
