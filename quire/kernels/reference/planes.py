"""A head in two planes of 4 bits: how weights are rounded, and which logits both planes are in.

Knows: NumPy, the formulas of the kernels. Does not know: packing, last bits.
Legend: N outputs, K inputs, T rows, P panels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quire.kernels.reference.bf16 import from_bits
from quire.kernels.reference.quantize import round_inputs

PANEL = 48
_F32 = np.float32


def quantize(weight_NK: Any) -> tuple[Any, Any, Any]:
    """(scale_N float32, high_NK, low_NK): w ~ scale * (16 * high + low), both in -8..7.

    The scale maps the largest magnitude to -128, or the largest of the other sign to 119 where that needs more; it is
    rounded up to bfloat16 in magnitude.
    """
    weight_NK = np.asarray(weight_NK, dtype=_F32)
    most_N, least_N = np.maximum(weight_NK.max(axis=1), 0), np.maximum(-weight_NK.min(axis=1), 0)
    large_N, small_N = np.maximum(most_N, least_N) / _F32(128), np.minimum(most_N, least_N) / _F32(119)
    bits_N = np.maximum(large_N, small_N).astype(_F32).view(np.uint32).astype(np.uint64)
    scale_N = np.where(most_N > least_N, _F32(-1), _F32(1)) * from_bits(((bits_N + 0xFFFF) >> 16).astype(np.uint16))
    usable_N = np.abs(scale_N) >= np.finfo(_F32).tiny
    inverse_N = np.where(usable_N, _F32(1) / np.where(usable_N, scale_N, _F32(1)), _F32(0))
    q_NK = np.clip(np.rint(weight_NK * inverse_N[:, None]), -128, 119).astype(np.int64)
    high_NK = (q_NK + 8) // 16
    return scale_N, high_NK, q_NK - 16 * high_NK


def linear(x_TK: Any, weight_NK: Any) -> tuple[Any, Any]:
    """(rough_TN, exact_TN) in float64: with the high plane alone, and with both; x rounded as the kernels round it."""
    scale_N, high_NK, low_NK = quantize(weight_NK)
    x_TK = round_inputs(x_TK)
    rough_TN = (x_TK @ (16.0 * high_NK).T) * scale_N
    return rough_TN, rough_TN + (x_TK @ low_NK.T.astype(np.float64)) * scale_N


def least_chosen(rough_N: Any, allowed_N: Any | None = None) -> float:
    """What an output of one row reaches to be chosen: the n-th largest of the panels' largest, of the allowed ones if
    there is a mask; n is a sixth of the panels, at least 64. Minus infinity where there are no more than n."""
    rough_N = np.asarray(rough_N) if allowed_N is None else np.where(allowed_N, rough_N, -np.inf)
    num_panels = -(-len(rough_N) // PANEL)
    filled = np.full(num_panels * PANEL, -np.inf)
    filled[: len(rough_N)] = rough_N
    num_best = max(64, num_panels // 6)
    maxima_P = np.sort(filled.reshape(num_panels, PANEL).max(axis=1))
    return float(maxima_P[-num_best]) if num_best < num_panels else -np.inf
