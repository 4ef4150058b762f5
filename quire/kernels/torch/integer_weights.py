"""Weights of a softmax as integers, bit for bit those of `kernels/reference/weights.py`.

Knows: torch, one rounded operation at a time. Does not know: which tokens may be drawn.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNIT = 2**42  # the weight of the likeliest token
_LEAST = -30.0  # exp(-30) * UNIT rounds to 0
_SHIFTER = 1.5 * 2**23  # adding it rounds to an integer
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def weigh(x_RV: Tensor, peak_R1: Tensor, inv_temperature_R1: Tensor) -> Tensor:
    """round(exp((x - peak) * inv_temperature) * 2**42), int64 [R, V]; x <= peak, all float32.

    torch rounds a Python number to the tensor's float32 before it computes, so each step is one float32 operation. (A
    constant made on the device would be a copy that waits.)
    """
    y_RV = (x_RV - peak_R1) * inv_temperature_R1
    held_RV = torch.where(y_RV > _LEAST, y_RV, _LEAST)  # NaN too: of rows that fail, or where nothing is scaled
    i_RV = held_RV * _LOG2_E + _SHIFTER - _SHIFTER
    r_RV = held_RV - i_RV * _LN2_HIGH - i_RV * _LN2_LOW
    p_RV = torch.full_like(r_RV, _POLYNOMIAL[0])
    for coefficient in _POLYNOMIAL[1:]:
        p_RV = p_RV * r_RV + coefficient
    p_RV = p_RV * (r_RV * r_RV) + r_RV + 1.0
    power_RV = ((i_RV.to(torch.int32) + 127) << 23).view(torch.float32)
    return ((p_RV * power_RV).double() * UNIT).round().long()
