"""The product of rows with a weight matrix in any of its formats.

    plain     bfloat16, float16, float32: from 17 rows on cuBLAS, by way of torch, which is the one to beat there
    widened   int8, fp8 and int4 become the rows' type on their way to the tensor cores, where all of them are exact;
              the scales multiply sums: once a row of the weight, or a group's sum once a group. An int4 byte holds
              two neighbouring inputs, so the rows' tile is split into even and odd inputs and there are two products
    rounded   (asked for) the rows too become int8 or fp8, with a scale each: twice the rate for many rows, at a price
              in precision that int4 and weight-only int8 do not pay
    norm      For few rows: x * norm's weight goes in, the sum of x^2 is taken along, and 1 / rms multiplies the
              result. That saves two launches a layer, 2 us each of the 110 us that a layer of Llama-3.1-8B takes for
              one token. For many rows every tile of outputs would do it again, so it is a launch of its own. float16
              too: x * weight may be out of its range. The gate likewise, 2 loads and one exponential an input.
    splits    inputs in ranges, partial sums in memory, added in ascending order by a second launch

Sums are float32 (int32 where both sides are int8), inputs ascending, `BLOCK_K` at a time. A row's bits depend on
itself and on the tile; `invariant` is one tile for every number of rows.

Knows: the weight's layout. Does not know: layers.

Legend: T or M rows, K inputs, N outputs, C groups of inputs a row of the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.torch import linear as torch_linear
from quire.kernels.triton.rms_norm import rms_norm
from quire.kernels.triton.round_rows import round_rows
from quire.kernels.triton.silu_mul import gate, silu_mul
from quire.kernels.triton.tiles import FEW_ROWS, LinearTile, linear_tile

if TYPE_CHECKING:
    from quire.kernels.torch.weight import Weight

BITS = {"bfloat16": 16, "float16": 16, "float32": 32, "int8": 8, "fp8": 8, "int4": 4}
TILES_TOGETHER = 8  # rows of tiles that share the weight's tiles in L2


@triton.jit
def _load_rows(
    x_ptr, norm_ptr, rows, inputs, inside, K, squares, NORM: tl.constexpr, SILU: tl.constexpr
):  # fmt: skip
    """(a tile of rows as it is multiplied, the sums of squares so far)."""
    if SILU:
        places = rows[:, None] * (2 * K) + inputs[None, :]
        half = tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(x_ptr + K + places, mask=inside, other=0.0).to(tl.float32)
        return gate(half, up).to(x_ptr.dtype.element_ty), squares
    x = tl.load(x_ptr + rows[:, None] * K + inputs[None, :], mask=inside, other=0.0)
    if NORM:
        wide = x.to(tl.float32)
        squares += tl.sum(wide * wide, 1)
        x = (wide * tl.load(norm_ptr + inputs, mask=inputs < K, other=0.0)[None, :]).to(x_ptr.dtype.element_ty)
    return x, squares


@triton.jit
def _product(
    x, data_ptr, outputs, first, N, K, ROW, acc, INT4: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, CAST: tl.constexpr,
):  # fmt: skip
    """acc + x q^T for one step of inputs, q as numbers without scale."""
    is_output = (outputs < N)[:, None]
    starts = outputs.to(tl.int64)[:, None] * ROW
    if INT4:
        places = first // 2 + tl.arange(0, BLOCK_K // 2)
        pairs = tl.load(data_ptr + starts + places[None, :], mask=is_output & (places < ROW)[None, :], other=0)
        even, odd = tl.split(tl.reshape(x, (BLOCK_M, BLOCK_K // 2, 2)))
        low = ((pairs & 15).to(tl.int8) - OFFSET).to(x.dtype)
        high = ((pairs >> 4).to(tl.int8) - OFFSET).to(x.dtype)
        acc = tl.dot(even, tl.trans(low), acc, input_precision="ieee")
        return tl.dot(odd, tl.trans(high), acc, input_precision="ieee")
    inputs = first + tl.arange(0, BLOCK_K)
    q = tl.load(data_ptr + starts + inputs[None, :], mask=is_output & (inputs < K)[None, :], other=0.0)
    if CAST:
        q = q.to(x.dtype)
    return tl.dot(x, tl.trans(q), acc, input_precision="ieee", out_dtype=acc.dtype)


@triton.jit
def _finish(
    acc, squares, rows, outputs, out_ptr, scales_ptr, x_scales_ptr, bias_ptr, eps, M, N, K,
    NORM: tl.constexpr, ROW_SCALES: tl.constexpr, X_SCALES: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Scales, norm, bias and old output, and the store."""
    if ROW_SCALES:
        acc = acc * tl.load(scales_ptr + outputs, mask=outputs < N, other=0.0).to(tl.float32)[None, :]
    if X_SCALES:
        acc = acc * tl.load(x_scales_ptr + rows, mask=rows < M, other=0.0)[:, None]
    if NORM:
        acc = acc * tl.rsqrt(squares / K + eps)[:, None]
    if BIAS:
        acc += tl.load(bias_ptr + outputs, mask=outputs < N, other=0.0).to(tl.float32)[None, :]
    inside = (rows < M)[:, None] & (outputs < N)[None, :]
    places = rows[:, None] * N + outputs[None, :]
    if ADD:
        acc += tl.load(out_ptr + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + places, acc.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["M"])
def _linear(
    x_ptr, data_ptr, scales_ptr, offsets_ptr, norm_ptr, x_scales_ptr, bias_ptr, out_ptr, partial_ptr, squares_ptr, eps,
    M, N, K, ROW, C, INT4: tl.constexpr, GROUP: tl.constexpr, OFFSETS: tl.constexpr, CAST: tl.constexpr,
    NORM: tl.constexpr, SILU: tl.constexpr, ROW_SCALES: tl.constexpr, X_SCALES: tl.constexpr, BIAS: tl.constexpr,
    ADD: tl.constexpr, SPLITS: tl.constexpr, TOGETHER: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    tiles_n, split = tl.cdiv(N, BLOCK_N), tl.program_id(1)
    band = tl.program_id(0) // (TOGETHER * tiles_n)
    band_rows = tl.minimum(tl.cdiv(M, BLOCK_M) - band * TOGETHER, TOGETHER)
    within = tl.program_id(0) % (TOGETHER * tiles_n)
    rows = (band * TOGETHER + within % band_rows).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = within // band_rows * BLOCK_N + tl.arange(0, BLOCK_N)
    steps = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLITS)
    squares = tl.zeros([BLOCK_M], tl.float32)
    acc_type: tl.constexpr = tl.int32 if x_ptr.dtype.element_ty == tl.int8 and GROUP == 0 else tl.float32
    step_type: tl.constexpr = tl.int32 if x_ptr.dtype.element_ty == tl.int8 else tl.float32
    acc = tl.zeros([BLOCK_M, BLOCK_N], acc_type)
    for first in range(split * steps * BLOCK_K, tl.minimum((split + 1) * steps * BLOCK_K, K), BLOCK_K):
        inputs = first + tl.arange(0, BLOCK_K)
        inside = (rows < M)[:, None] & (inputs < K)[None, :]
        x, squares = _load_rows(x_ptr, norm_ptr, rows, inputs, inside, K, squares, NORM, SILU)
        if GROUP > 0:
            part = tl.zeros([BLOCK_M, BLOCK_N], step_type)
            part = _product(
                x, data_ptr, outputs, first, N, K, ROW, part, INT4, 0 if OFFSETS else 8, BLOCK_M, BLOCK_K, CAST
            )
            groups = outputs.to(tl.int64) * C + first // GROUP
            scale = tl.load(scales_ptr + groups, mask=outputs < N, other=0.0).to(tl.float32)
            acc += part.to(tl.float32) * scale[None, :]
            if OFFSETS:
                offset = tl.load(offsets_ptr + groups, mask=outputs < N, other=0.0).to(tl.float32)
                acc += tl.sum(x.to(tl.float32), 1)[:, None] * offset[None, :]
        else:
            acc = _product(x, data_ptr, outputs, first, N, K, ROW, acc, INT4, 8, BLOCK_M, BLOCK_K, CAST)
    if SPLITS > 1:
        inside = (rows < M)[:, None] & (outputs < N)[None, :]
        places = (split.to(tl.int64) * M + rows[:, None]) * N + outputs[None, :]
        tl.store(partial_ptr + places, acc.to(tl.float32), mask=inside)
        if NORM:
            tl.store(squares_ptr + split * M + rows, squares, mask=(rows < M) & (within // band_rows == 0))
    else:
        _finish(
            acc.to(tl.float32), squares, rows, outputs, out_ptr, scales_ptr, x_scales_ptr, bias_ptr, eps, M, N, K,
            NORM, ROW_SCALES, X_SCALES, BIAS, ADD,
        )  # fmt: skip


@triton.jit(do_not_specialize=["M"])
def _add_up(
    partial_ptr, squares_ptr, scales_ptr, x_scales_ptr, bias_ptr, out_ptr, eps, M, N, K, NORM: tl.constexpr,
    ROW_SCALES: tl.constexpr, X_SCALES: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (rows < M)[:, None] & (outputs < N)[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    squares = tl.zeros([BLOCK_M], tl.float32)
    for split in tl.static_range(SPLITS):
        acc += tl.load(partial_ptr + (split * M + rows[:, None]) * N + outputs[None, :], mask=inside, other=0.0)
        if NORM:
            squares += tl.load(squares_ptr + split * M + rows, mask=rows < M, other=0.0)
    _finish(
        acc, squares, rows, outputs, out_ptr, scales_ptr, x_scales_ptr, bias_ptr, eps, M, N, K,
        NORM, ROW_SCALES, X_SCALES, BIAS, ADD,
    )  # fmt: skip


def linear(
    x_TK: Tensor,
    weight: Weight,
    out_TN: Tensor,
    bias_N: Tensor | None = None,
    accumulate: bool = False,
    norm_weight_K: Tensor | None = None,
    eps: float = 0.0,
    silu: bool = False,
    invariant: bool = False,
    rounded: bool = False,
) -> None:
    """out = x W^T (+ bias) (+ old out). x float32, bfloat16 or float16 [T, K] ([T, 2K] with `silu`), contiguous.

    bias and norm weight are float32. With `norm_weight_K` rows are normalised, with `silu` gated on the way in. Sums
    are float32; out has x's dtype or is float32. `rounded` rounds rows to the weight's int8 or fp8.
    """
    num_rows, dtype = len(x_TK), x_TK.dtype
    if num_rows == 0:
        return
    plain = weight.data.dtype == dtype
    tile = linear_tile(num_rows, weight.n, weight.k, BITS[weight.dtype], weight.group_size, invariant)
    if not (tile.prepares and not rounded and (silu or dtype != torch.float16)):
        x_TK = prepared(x_TK, norm_weight_K, eps, silu)
        norm_weight_K, silu = None, False
    if plain and num_rows > FEW_ROWS and not invariant:
        torch_linear.linear(x_TK, weight, out_TN, bias_N, accumulate)
        return
    x_scales_T = None
    if rounded and weight.dtype in ("int8", "fp8"):
        x_TK, x_scales_T = round_rows(x_TK, weight.data.dtype)
    launch(x_TK, x_scales_T, weight, out_TN, bias_N, accumulate, norm_weight_K, eps, silu, tile)


def prepared(x_TK: Tensor, norm_weight_K: Tensor | None, eps: float, silu: bool) -> Tensor:
    """The rows as they are multiplied, by a launch of their own."""
    if norm_weight_K is not None:
        out_TK = torch.empty_like(x_TK)
        rms_norm(x_TK, norm_weight_K, eps, out_TK)
        return out_TK
    if silu:
        out_TK = x_TK.new_empty((len(x_TK), x_TK.shape[1] // 2))
        silu_mul(x_TK, out_TK)
        return out_TK
    return x_TK


def launch(
    x_TK: Tensor,
    x_scales_T: Tensor | None,
    weight: Weight,
    out_TN: Tensor,
    bias_N: Tensor | None,
    accumulate: bool,
    norm_weight_K: Tensor | None,
    eps: float,
    silu: bool,
    tile: LinearTile,
) -> None:
    """One product by `tile`; `benchmarks` calls it to compare tiles."""
    num_rows, splits = len(x_TK), tile.num_splits
    scales = weight.scales_NC
    partial = x_TK.new_empty((splits, num_rows, weight.n) if splits > 1 else 0, dtype=torch.float32)
    squares = x_TK.new_empty((splits, num_rows) if splits > 1 and norm_weight_K is not None else 0, dtype=torch.float32)
    flags = {
        "NORM": norm_weight_K is not None,
        "ROW_SCALES": scales is not None and weight.group_size == 0,
        "X_SCALES": x_scales_T is not None,
        "BIAS": bias_N is not None,
        "ADD": accumulate,
        "SPLITS": splits,
    }
    grid = (triton.cdiv(num_rows, tile.block_m) * triton.cdiv(weight.n, tile.block_n), splits)
    _linear[grid](
        x_TK, weight.data, scales, weight.offsets_NC, norm_weight_K, x_scales_T, bias_N, out_TN, partial, squares, eps,
        num_rows, weight.n, weight.k, weight.data.shape[1], 1 if scales is None else scales.shape[1],
        INT4=weight.dtype == "int4", GROUP=weight.group_size, OFFSETS=weight.offsets_NC is not None,
        CAST=weight.data.dtype != x_TK.dtype, SILU=silu, TOGETHER=TILES_TOGETHER, **flags,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    if splits > 1:
        _add_up[triton.cdiv(num_rows, 4), triton.cdiv(weight.n, 256)](
            partial, squares, scales, x_scales_T, bias_N, out_TN, eps, num_rows, weight.n, weight.k,
            **flags, BLOCK_M=4, BLOCK_N=256,
        )  # fmt: skip
