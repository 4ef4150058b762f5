"""Weights of a softmax as integers, so that sums have no order: the definition that every kernel meets bit for bit.

Knows: NumPy. Does not know: which tokens may be drawn.

Legend: N tokens.
"""

from __future__ import annotations

import numpy as np

UNIT = 2**42  # the weight of the likeliest token
LEAST = np.float32(-30.0)  # exp(-30) * UNIT rounds to 0
_SHIFTER = np.float32(1.5 * 2**23)  # adding it rounds to an integer
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504088896341), np.float32(0.693359375), np.float32(-2.12194440e-4)
# exp(r) on [-ln(2)/2, ln(2)/2], of the Cephes library's expf
_POLYNOMIAL = tuple(
    np.float32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)


def inverse_temperature(temperature: float) -> float:
    """1 / temperature as the float32 that scales logits; 0 stands for temperature 0, where nothing is scaled."""
    return float(np.float32(1.0 / max(temperature, 1e-38))) if temperature > 0.0 else 0.0


def weigh(x_N: np.ndarray, peak: float, inv_temperature: float) -> np.ndarray:
    """round(exp((x - peak) * inv_temperature) * 2**42) as int64; x <= peak, float32.

    Every step is one float32 operation, rounded once: x = 2^i * exp(r), with |r| <= ln(2) / 2 and exp(r) by a
    polynomial of degree 7. Within 1 ulp of float32 of the true exponential, and half a unit.
    """
    with np.errstate(over="ignore"):
        y_N = (x_N - np.float32(peak)) * np.float32(inv_temperature)
    held_N = np.maximum(LEAST, y_N)
    i_N = held_N * _LOG2_E + _SHIFTER - _SHIFTER
    r_N = held_N - i_N * _LN2_HIGH - i_N * _LN2_LOW
    p_N = np.full_like(r_N, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p_N = p_N * r_N + coefficient
    p_N = p_N * (r_N * r_N) + r_N + np.float32(1.0)
    weights_N = np.ldexp(p_N, i_N.astype(np.int32))
    return np.rint(weights_N.astype(np.float64) * UNIT).astype(np.int64)
