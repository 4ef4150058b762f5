"""bfloat16 in NumPy: the upper half of a float32.

Knows: rounding. Does not know: any op.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def to_bits(x: Any) -> Any:
    """The bfloat16 bits (uint16) of float32 `x`, rounded to nearest, ties to even; NaN stays NaN (quiet)."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    quiet = ((bits >> 16) | 0x40).astype(np.uint16)
    return np.where((bits & 0x7FFFFFFF) > 0x7F800000, quiet, rounded)


def from_bits(bits: Any) -> Any:
    """The float32 values of bfloat16 `bits` (uint16); exact."""
    return (np.asarray(bits, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)


def round_to_bf16(x: Any) -> Any:
    """float32 `x` rounded to bfloat16 and back."""
    return from_bits(to_bits(x))
