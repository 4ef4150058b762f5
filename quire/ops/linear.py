"""The product of rows with a packed weight matrix.

Knows: the contract of packing and multiplying. Does not know: names of weights, layers, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quire.kernels.cpu import _cpu
from quire.ops.device import Device

PackedWeight = _cpu.PackedWeight
"""A matrix [n, k] of the C++ side: `.n`, `.k`, `.dtype` ("bfloat16" or "float32"), `.nbytes`. Fits every `Device`."""


_NO_NORM = (None, 0.0)


def pack(device: Device, parts: Sequence[Any], dtype: str) -> PackedWeight:
    """The matrices `parts`, one below the other, copied into panels of 48 outputs.

    A part is a C-contiguous array [n_i, k] of float32, of float16, or of uint16 holding bfloat16 bits; it is read once,
    by all threads, and may be memory-mapped. dtype "bfloat16" rounds to nearest, ties to even; "float32" keeps every
    value.
    Raises TypeError for a part that is no such array, ValueError for shapes or types that do not fit, MemoryError.
    """
    return _cpu.pack(device.cpu, list(parts), dtype)


def unpack(device: Device, weight: PackedWeight) -> Any:
    """The matrix as float32 [n, k]; for tests and inspection."""
    out_NK = np.empty((weight.n, weight.k), dtype=np.float32)
    _cpu.unpack(device.cpu, weight, out_NK)
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
    A bfloat16 weight: the row is then rounded to bfloat16 once, products are summed in float32. Each output is one sum
    along K ascending: its bits do not depend on T, on the other rows or on the number of threads (they may on the
    instruction set).
    Raises TypeError for another type or layout, ValueError for shapes that do not fit.
    """
    norm_weight_K, eps = _NO_NORM if norm is None else norm
    _cpu.linear(device.cpu, x_TK, weight, out_TN, bias_N, accumulate, norm_weight_K, eps, silu)
