"""What the kernels of a draw are made of: weights as integers, floats as ordered integers, random numbers, a search.

Bit for bit `kernels/reference/weights.py` and `philox.py`: every float32 step is one operation, so kernels that use
these are compiled with `enable_fp_fusion=False`.

Knows: the definitions. Does not know: rows, requests.
"""

from __future__ import annotations

import triton
import triton.language as tl

UNIT = 2.0**42
MOST_TOKENS = 2**20
NUM_TRIES = 8  # thresholds that a pass of the search tells apart: three bits of a key


@triton.jit
def weigh(x, peak, inv_temperature):
    """round(exp((x - peak) * inv_temperature) * 2**42), int64; x <= peak. NaN weighs 0."""
    y = (x - peak) * inv_temperature
    held = tl.where(y > -30.0, y, -30.0)
    i = held * 1.44269504088896341 + 12582912.0 - 12582912.0
    r = held - i * 0.693359375 - i * -2.12194440e-4
    p = r * 1.9875691500e-4 + 1.3981999507e-3
    p = p * r + 8.3334519073e-3
    p = p * r + 4.1665795894e-2
    p = p * r + 1.6666665459e-1
    p = p * r + 5.0000001201e-1
    p = p * (r * r) + r + 1.0
    units = p * ((i.to(tl.int32) + 169) << 23).to(tl.float32, bitcast=True)  # 2**(i + 42)
    whole = (units + 8388608.0) - 8388608.0  # 2**23: to the nearest integer, ties to even; beyond it all are integers
    return tl.where(units < 8388608.0, whole, units).to(tl.int64)


@triton.jit
def key_of(x):
    """Floats as int64 of the same order, 0 to 2**32 - 1; -0 is 0."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)
    return ordered.to(tl.int64) + 2147483648


@triton.jit
def random_bits(seed, index, position):
    """int64 of 53 random bits by Philox4x32-10; all arguments int64."""
    c0, c1 = (position & 0xFFFFFFFF).to(tl.uint32), (position >> 32).to(tl.uint32)
    c2, c3 = index.to(tl.uint32), (index * 0).to(tl.uint32)
    k0, k1 = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return ((c0.to(tl.int64) >> 5) << 26) | (c1.to(tl.int64) >> 6)


@triton.jit
def share(bits, total):
    """(bits * total) >> 53, exact, of numbers below 2**53 and 2**63."""
    wide, other = bits.to(tl.uint64), total.to(tl.uint64)
    return ((tl.umulhi(wide, other) << 11) | ((wide * other) >> 53)).to(tl.int64)


@triton.jit
def target_of(top_p, total):
    """The weight that a nucleus reaches: min(ceil(top_p * total), total)."""
    return tl.minimum(tl.ceil(top_p * total.to(tl.float64)).to(tl.int64), total)


@triton.jit
def tries(prefix, shift, NUM: tl.constexpr):
    """The keys that continue `prefix` by three bits from bit `shift` on."""
    return prefix + (tl.arange(0, NUM).to(tl.int64) << shift)
