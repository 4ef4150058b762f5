"""Weights rounded to int8 and int4, and activations rounded to int8.

Knows: NumPy, the formulas of the kernels, operation by operation. Does not know: packing.
Legend: N outputs, K inputs, G groups along K, L inputs of a group, T rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from quire.kernels.reference.bf16 import from_bits, round_to_bf16

INPUT_GROUP = 128
"""Inputs of a row that share a scale."""

_TRIES = 12
_F32 = np.float32


def quantize(weight_NK: Any, bits: int, group_size: int | None, symmetric: bool = True) -> Any:
    """The float32 matrix [N, K] that `weight_NK` becomes: scale * q (+ offset), group by group."""
    weight_NK = np.asarray(weight_NK, dtype=_F32)
    length = group_size or weight_NK.shape[1]
    groups = [weight_NK[:, k : k + length] for k in range(0, weight_NK.shape[1], length)]
    return np.concatenate([_group(group_NL, bits, symmetric) for group_NL in groups], axis=1)


def round_inputs(x_TK: Any) -> Any:
    """float64 [T, K]: each `INPUT_GROUP` of a row rounded to scale * q, scale = max|x| / 127, q in -127..127."""
    x_TK = np.asarray(x_TK, dtype=_F32)
    return np.concatenate([_inputs(x_TK[:, k : k + INPUT_GROUP]) for k in range(0, x_TK.shape[1], INPUT_GROUP)], axis=1)


def linear(x_TK: Any, dequantized_NK: Any) -> Any:
    """x W^T in float64, x rounded as the kernels round it."""
    return round_inputs(x_TK) @ np.asarray(dequantized_NK, dtype=np.float64).T


def _inputs(x_TL: Any) -> Any:
    largest_T1 = np.abs(x_TL).max(axis=1, keepdims=True)
    some_T1 = largest_T1 >= _F32(2.0**-119)
    safe_T1 = np.where(some_T1, largest_T1, _F32(1))
    q_TL = np.rint(x_TL * np.where(some_T1, _F32(127) / safe_T1, _F32(0)))
    return q_TL.astype(np.float64) * np.where(some_T1, largest_T1 / _F32(127), _F32(0))


def _group(w_NL: Any, bits: int, symmetric: bool) -> Any:
    if not symmetric:
        scale_N, offset_N = (round_to_bf16(found_N)[:, None] for found_N in _fit_range(w_NL))
        q_NL = np.clip(np.rint((w_NL - offset_N) * _inverse(scale_N)), 0, 15).astype(_F32)
        return scale_N * q_NL + offset_N
    scale_N = _round_up(np.abs(w_NL).max(axis=1) / _F32(127)) if bits == 8 else round_to_bf16(_fit_scale(w_NL))
    least, most = (-127, 127) if bits == 8 else (-8, 7)
    q_NL = np.clip(np.rint(w_NL * _inverse(scale_N)[:, None]), least, most).astype(_F32)
    return scale_N[:, None] * q_NL


def _inverse(scale: Any) -> Any:
    usable = np.abs(scale) >= np.finfo(_F32).tiny
    return np.where(usable, _F32(1) / np.where(usable, scale, _F32(1)), _F32(0))


def _round_up(x: Any) -> Any:
    return from_bits(((np.asarray(x, dtype=_F32).view(np.uint32).astype(np.uint64) + 0xFFFF) >> 16).astype(np.uint16))


def _sum(terms_NL: Any) -> Any:
    """Along the last axis, ascending, in float32: `np.sum` would add pairwise.

    The sums lie side by side, not one row apart: NumPy gathers strided operands, and qemu 7.2 emulates gathers wrongly.
    """
    return np.add.accumulate(terms_NL, axis=1, dtype=_F32)[:, -1].copy()


def _fit_scale(w_NL: Any) -> Any:
    """The least-squares scale of the best of a dozen roundings to -8..7."""
    least_N, most_N = np.minimum(w_NL.min(axis=1), 0), np.maximum(w_NL.max(axis=1), 0)
    inverse_N = _inverse(np.where(most_N < -least_N, least_N, most_N))
    best_N, scale_N = np.full(len(w_NL), -1, dtype=_F32), np.zeros(len(w_NL), dtype=_F32)
    for t in range(_TRIES):
        divisor = _F32(8.75) - _F32(0.25) * _F32(t)
        q_NL = np.clip(np.rint(w_NL * (inverse_N * -divisor)[:, None]), -8, 7).astype(_F32)
        product_N, square_N = _sum(w_NL * q_NL), np.maximum(_sum(q_NL * q_NL), 1)
        fit_N = product_N / square_N
        gain_N = product_N * fit_N
        scale_N = np.where(best_N < gain_N, fit_N, scale_N)
        best_N = np.maximum(best_N, gain_N)
    return scale_N


def _fit_range(w_NL: Any) -> tuple[Any, Any]:
    """Scale and offset, in least squares, of the best of a dozen roundings to 0..15."""
    n, w_N = _F32(w_NL.shape[1]), _sum(w_NL)
    least_N, most_N = np.minimum(w_NL.min(axis=1), 0), np.maximum(w_NL.max(axis=1), 0)
    middle_N, half_N = (least_N + most_N) * _F32(0.5), (most_N - least_N) * _F32(0.5)
    best_N = np.full(len(w_NL), 3.0e38, dtype=_F32)
    scale_N, offset_N = np.zeros_like(best_N), np.zeros_like(best_N)
    for t in range(_TRIES):
        reach_N = half_N * (_F32(1) - _F32(0.03) * _F32(t))
        inverse_N = _inverse(reach_N * (_F32(2) / _F32(15)))
        q_NL = np.clip(np.rint((w_NL - (middle_N - reach_N)[:, None]) * inverse_N[:, None]), 0, 15).astype(_F32)
        q_N, wq_N = _sum(q_NL), _sum(w_NL * q_NL)
        spread_N = n * _sum(q_NL * q_NL) - q_N * q_N
        wide_N = spread_N > _F32(0.5)
        slope_N = np.where(wide_N, (n * wq_N - w_N * q_N) / np.where(wide_N, spread_N, _F32(1)), _F32(0))
        start_N = (w_N - slope_N * q_N) / n
        error_N = -(start_N * w_N + slope_N * wq_N)
        better_N = error_N < best_N
        scale_N, offset_N = np.where(better_N, slope_N, scale_N), np.where(better_N, start_N, offset_N)
        best_N = np.minimum(error_N, best_N)
    return scale_N, offset_N
