"""The product of rows with a packed weight matrix.

Knows: the contract of packing and multiplying. Does not know: names of weights, layers, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quire.kernels.cpu.native import _cpu
from quire.ops.device import Device

PackedWeight = _cpu.PackedWeight
"""A matrix [n, k] of the C++ side, fit for every `Device`.

`.n`, `.k`; `.dtype` "bfloat16", "float32", "int8", "int4" or "int4x2"; `.group_size` inputs per scale (k when per
channel, 0 without scales); `.symmetric` False for int4 with offsets; `.nbytes` that a product reads (of int4x2: that
are held); `.buffer()` these bytes as a read-only uint8 array that keeps the weight alive, for `from_buffer`.
"""

PACKED_LAYOUT = 2
"""Goes up whenever the bytes of an int8 or int4 weight change, so that files of an earlier layout are not read."""

_NO_NORM = (None, 0.0)


def pack(device: Device, parts: Sequence[Any], dtype: str) -> PackedWeight:
    """The matrices `parts`, one below the other, copied into panels of 48 outputs.

    A part is a C-contiguous array [n_i, k] of float32, of float16, or of uint16 holding bfloat16 bits; it is read once,
    by all threads, and may be memory-mapped. dtype "bfloat16" rounds to nearest, ties to even; "float32" keeps every
    value.
    Raises TypeError for a part that is no such array, ValueError for shapes or types that do not fit, MemoryError.
    """
    return device.kernels.pack(list(parts), dtype)


def quantize(
    device: Device, parts: Sequence[Any], bits: int, group_size: int | None = None, symmetric: bool = True
) -> PackedWeight:
    """The matrices `parts`, as in `pack`, rounded to `bits` 8 or 4 per weight.

    A scale (bfloat16) for every `group_size` successive inputs of an output: 32, 64 or 128 (the last group is shorter
    when k is no multiple), or one per output with None. int8: w ~ scale * q, q in -127..127. int4: q in -8..7; with
    symmetric=False w ~ scale * q + offset, q in 0..15 (only with a group_size). int4 scales are chosen for the least
    squared error among a dozen tries. The bytes are the same on every instruction set and for any number of threads.
    Raises TypeError and ValueError as `pack`, ValueError for weights that are infinite or NaN, MemoryError.
    """
    return device.kernels.quantize(list(parts), bits, group_size, symmetric)


def quantize_planes(device: Device, parts: Sequence[Any]) -> PackedWeight:
    """The matrices `parts`, as in `pack`, in two planes of 4 bits: the dtype "int4x2" for a head (decision 031).

    w ~ scale * (16 * high + low), high and low in -8..7, one scale (bfloat16) an output. The bytes are the same on
    every instruction set and for any number of threads. Raises as `quantize`.
    """
    return device.kernels.quantize_planes(list(parts))


def from_buffer(n: int, k: int, dtype: str, group_size: int, symmetric: bool, buffer: Any) -> PackedWeight:
    """The weight that had these properties and this `.buffer()`; the bytes are used in place and not checked.

    `buffer` is a contiguous uint8 array that begins at a multiple of 64 bytes; it may be memory-mapped, and nobody may
    write to it any more.
    Raises TypeError for another type or layout, ValueError for properties or a length that do not fit.
    """
    return _cpu.from_buffer(n, k, dtype, group_size, symmetric, buffer)


def unpack(device: Device, weight: PackedWeight) -> Any:
    """The matrix as float32 [n, k], as the products see it; for tests and inspection."""
    out_NK = np.empty((weight.n, weight.k), dtype=np.float32)
    device.kernels.unpack(weight, out_NK)
    return out_NK


def linear(
    device: Device,
    x_TK: Any,
    weight: PackedWeight,
    out_TN: Any,
    bias_N: Any | None = None,
    accumulate: bool = False,
    norm: tuple[Any, float] | None = None,
    silu: bool = False,
) -> None:
    """out = x W^T (+ bias) (+ old out, when `accumulate`), in this order; float32 arrays, contiguous; out is not x.

    With `norm` = (weight_K, eps) every row goes through `rms_norm` on its way in; with `silu` x is [T, 2K], a gate and
    an up half, and every row goes through `silu_mul`: the same bits as the two ops one after the other, in one launch
    and without the array between them. Not both.
    A bfloat16 weight: the row is then rounded to bfloat16 once, products are summed in float32. An int8 or int4 weight:
    the row is rounded to int8 in groups of 128 inputs, scale max|x| / 127; integer sums are exact, and scaled sums of
    groups are added in float32, ascending. An int4x2 weight: likewise with the high plane, then the low plane is added
    where an output is among the row's best (`kernels/cpu/planes_best.h`), whose last bit says so; no bias, no
    `accumulate`. Each output is one sum
    along K ascending: its bits do not depend on T, on the other rows or on the number of threads (they may on the
    instruction set).
    Raises TypeError for another type or layout, ValueError for shapes that do not fit.
    """
    norm_weight_K, eps = _NO_NORM if norm is None else norm
    device.kernels.linear(x_TK, weight, out_TN, bias_N, accumulate, norm_weight_K, eps, silu)
