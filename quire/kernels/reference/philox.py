"""Counter-based random numbers: the same (seed, sample index, position) gives the same number, whatever ran before.

Knows: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
Does not know: what the number decides.
"""

from __future__ import annotations

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10
NUM_BITS = 53

Words = tuple[int, int, int, int]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random 32-bit words for a 128-bit counter and a 64-bit key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (product1 >> 32) ^ c1 ^ k0, product1 & _MASK, (product0 >> 32) ^ c3 ^ k1, product0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_bits(seed: int, index: int, position: int) -> int:
    """An integer of 53 random bits, for one draw of one sample.

    `seed` is any 64-bit integer (negative ones wrap), `index` the sample, `position` the drawn token's place.
    """
    key = (seed & _MASK, (seed >> 32) & _MASK)
    high, low, _, _ = philox((position & _MASK, position >> 32, index & _MASK, 0), key)
    return (high >> 5) << 26 | low >> 6


def uniform(seed: int, index: int, position: int) -> float:
    """The same number as a float64 in [0, 1)."""
    return float(random_bits(seed, index, position) / 2.0**NUM_BITS)
