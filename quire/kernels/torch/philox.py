"""Counter-based random numbers on the device, those of `kernels/reference/philox.py`.

Knows: Philox4x32-10, in 64-bit integers whose overflow wraps. Does not know: what the number decides.

Legend: D draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def random_bits(seed_D: Tensor, index_D: Tensor, position_D: Tensor) -> Tensor:
    """int64 [D] of 53 random bits; all arguments int64."""
    c0, c1 = position_D & _MASK, (position_D >> 32) & _MASK
    c2, c3 = index_D & _MASK, torch.zeros_like(index_D)
    k0, k1 = seed_D & _MASK, (seed_D >> 32) & _MASK
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = ((product1 >> 32) & _MASK) ^ c1 ^ k0, ((product0 >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = product1 & _MASK, product0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return ((c0 >> 5) << 26) | (c1 >> 6)


def scaled(bits_D: Tensor, total_D: Tensor) -> Tensor:
    """floor(bits * total / 2**53), exact, of numbers below 2**53 and 2**60.

    The product has up to 113 bits. With bits = a * 2^26 + b and total = c * 2^30 + d it is
    ac * 2^56 + ad * 2^26 + bc * 2^30 + bd, of which only bd has bits below the 26th, and those are lost anyway.
    """
    a, b = bits_D >> 26, bits_D & (2**26 - 1)
    c, d = total_D >> 30, total_D & (2**30 - 1)
    return a * c * 8 + ((a * d + b * c * 16 + ((b * d) >> 26)) >> 27)
